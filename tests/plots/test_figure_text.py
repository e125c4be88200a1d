"""A stranger's text on a figure: drawn as it is, never run, never a warning."""

import logging
from io import BytesIO
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.figure import Figure

from subspace.plots import figure_3, grid, heatmap
from subspace.plots import style as plot_style
from subspace.plots.canvas import rendered

NASTY = {
    "unbalanced math": r"$\frac{",
    "math": "a$b$c",
    "escaped dollar": r"\$x\$",
    "emoji and CJK": "layers.🎉.注意力.q",
    "right to left": "שלום عربي \u202egnp.exe",
    "newlines": "a\nb\r\nc\x00\x1b[31m",
    "very long": "x" * 10_000,
    "very long words": "layers.0." * 2_000,
    "unpaired surrogate": "a\ud800b",
    "markup": "--><script>alert(1)</script>&amp;]]>",
    "percent and braces": "%(asctime)s {0} %s",
    "empty": "",
}


@pytest.fixture(params=NASTY.values(), ids=NASTY.keys())
def nasty(request) -> str:
    return request.param


def test_any_title_and_label_is_drawn_without_a_warning(make_panel, nasty, caplog) -> None:
    panel = make_panel(8, 8, title=nasty, i_label=nasty, j_label=nasty)
    with caplog.at_level(logging.WARNING):
        assert rendered(heatmap(panel).figure, "svg", dpi=50)  # the other kinds below, all texts on one page
    assert not caplog.records


@pytest.mark.parametrize(("preset", "kind"), [(grid, "png"), (grid, "pdf"), (grid, "svg"), (figure_3, "pdf")])
def test_all_of_them_are_drawn_on_one_page_without_a_warning(make_panel, preset, kind, caplog) -> None:
    panels = [make_panel(8, 8, title=text, i_label=text, j_label=text) for text in NASTY.values()]
    with caplog.at_level(logging.WARNING):
        assert rendered(preset(panels), kind, dpi=50)
    assert not caplog.records


def test_text_is_never_math(make_panel) -> None:
    ax = heatmap(make_panel(title="a$b$c", i_label="$x$"))
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
        assert not text.get_parse_math()
    assert ax.get_title() == "a$b$c"


def test_a_long_title_takes_two_lines_and_keeps_both_ends() -> None:
    fitted = plot_style.fitted("first." + "x" * 500 + ".last", inches=1.4, size=8.0)
    assert fitted.count("\n") == 1
    assert fitted.startswith("first.") and fitted.endswith(".last")


def test_fitted_text_has_at_most_two_lines_of_the_width() -> None:
    for n in range(1, 120):
        lines = plot_style.fitted(("ab.cdefg." * n)[:n], inches=1.0, size=8.0).split("\n")
        assert len(lines) <= 2
        assert max(map(len, lines)) <= 15


def test_titles_of_a_page_do_not_overlap_their_neighbours(make_panel) -> None:
    figure = grid(
        [make_panel(8, 8, title="W" * 5 + "model.layers.10.self_attn.q_proj" * 3) for _ in range(9)]
    )
    with plot_style.paper_style():
        figure.draw_without_rendering()
    boxes = [ax.title.get_window_extent() for ax in figure.axes if ax.get_title()]
    for k, first in enumerate(boxes):
        assert not any(first.overlaps(second) for second in boxes[k + 1 :])


def test_svg_holds_no_live_markup(make_panel) -> None:
    svg = rendered(heatmap(make_panel(title=NASTY["markup"])).figure, "svg")
    assert b"<script" not in svg
    names = {element.tag.rsplit("}")[-1] for element in ElementTree.fromstring(svg).iter()}
    assert not names & {"script", "a", "foreignObject", "text"}


def test_the_callers_settings_neither_reach_the_figure_nor_change(make_panel) -> None:
    plain = rendered(heatmap(make_panel()).figure, "png", dpi=50)
    with matplotlib.rc_context(
        {"axes.grid": True, "font.size": 30, "savefig.bbox": "tight", "xtick.labelsize": 30}
    ):
        before = dict(matplotlib.rcParams)
        assert rendered(heatmap(make_panel()).figure, "png", dpi=50) == plain
        assert dict(matplotlib.rcParams) == before


def test_a_figure_of_the_callers_own_settings_can_still_hold_a_heatmap(make_panel) -> None:
    with matplotlib.rc_context({"axes.grid": True}):
        ax = heatmap(make_panel(), ax=Figure().add_subplot())
        ax.figure.savefig(BytesIO(), dpi=50)


def test_levels_over_narrow_panels_do_not_meet(make_panel) -> None:
    figure = figure_3([make_panel(8, 64, d=12288), make_panel(8, 64, d=12288)])
    with plot_style.paper_style():
        figure.draw_without_rendering()
    boxes = [
        text.get_window_extent() for ax in figure.axes for text in (*ax.texts, ax.title) if text.get_text()
    ]
    for k, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[k + 1 :])


def test_no_text_of_a_page_leaves_the_page_or_meets_another_panels(make_panel) -> None:
    long = "i, the top-i directions of the first adapter"
    panels = [make_panel(8, 8, title=long, i_label=f"{long} {k}", j_label=long) for k in range(6)]
    figure = grid(panels)
    with plot_style.paper_style():
        figure.draw_without_rendering()
    texts = [t for ax in figure.axes for t in (ax.title, ax.xaxis.label, ax.yaxis.label) if t.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    page = figure.bbox
    for k, box in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert not any(box.overlaps(other) for other in boxes[k + 1 :])
