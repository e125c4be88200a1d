"""Panels of controls and the figure of effects: they show what the rows of a comparison say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import subspace
from subspace.plots import drawn, figures, style
from subspace.results.module_comparison import Control

D = 24
_NAMES = [f"model.layers.{n}.self_attn.{kind}_proj" for n in range(3) for kind in "qkv"]


def _adapter(rng, names, r):
    return {
        f"{name}.lora_{x}": rng.standard_normal((r, D) if x == "A" else (D, r))
        for name in names
        for x in "AB"
    }


def _compared(names=_NAMES, **options):
    rng = np.random.default_rng(0)
    return subspace.compare(_adapter(rng, names, 3), _adapter(rng, names, 5), **options)


def _controls(pages):
    return [what.panel for page in pages for what in drawn(page) if what.panel.control is not None]


def test_a_control_has_its_grid_its_modules_and_a_title_of_its_own():
    comparison = _compared()
    (figure,) = figures(comparison, "fig4", layer=1)
    q, v = _controls([figure])
    assert q.title == "same input, other job: q_proj against k_proj and v_proj, layer 1 (A)"
    assert v.title == "same input, other job: v_proj against k_proj and q_proj, layer 1 (A)"
    np.testing.assert_array_equal(q.phi, comparison["layers.1.self_attn.q_proj"].phi_control_grid)
    assert q.control == {"kind": "same_input", "pairs": 4}
    assert (q.i_module, q.j_module) == ("model.layers.1.self_attn.q_proj", None)


def test_what_reads_no_common_input_has_other_layers_for_a_control():
    panels = _controls(figures(_compared(side="b"), "fig3", side="b"))
    assert [panel.title for panel in panels][:2] == [
        "same kind, other layers: q_proj, layer 1 (B)",
        "same kind, other layers: v_proj, layer 1 (B)",
    ]
    assert all(panel.title.endswith("(zoom)") for panel in panels[2:])


@pytest.mark.parametrize(
    "names",
    [
        [f"h.{n}.{block}.{kind}" for n in range(3) for block in ("self", "cross") for kind in ("q", "v")],
        [f"lora_unet_blocks_{n}_attn_to_{kind}" for n in range(3) for kind in ("q", "v")],
        ["decoder.0.self.q_proj", "decoder.0.self.v_proj", "encoder.0.self.q_proj", "encoder.0.self.v_proj"],
    ],
)
@pytest.mark.parametrize("preset", ["fig3", "fig4", "fig6", "fig7"])
def test_no_two_panels_have_one_title(names, preset):
    for page in figures(_compared(names), preset):
        titles = [what.panel.title for what in drawn(page)]
        assert len(set(titles)) == len(titles) and _controls([page])


@pytest.mark.parametrize("preset", ["fig3", "fig4", "fig6", "fig7"])
def test_without_controls_a_figure_is_without_them(preset):
    bare = figures(_compared(controls="none"), preset)
    assert not _controls(bare)
    full = figures(_compared(), preset)
    own = [[w.panel.title for w in drawn(page) if w.panel.control is None] for page in full]
    assert own == [[w.panel.title for w in drawn(page)] for page in bare]
    assert "other job" not in "".join(text.get_text() for page in bare for text in page.texts)


def _marks(ax):
    return {str(line.get_label()): np.asarray(line.get_xdata()) for line in ax.lines}


@pytest.mark.parametrize("relative", [False, True])
def test_effects_are_the_numbers_of_the_rows(relative):
    comparison = _compared()
    (figure,) = figures(comparison, "effects", relative=relative)
    rows = list(comparison.modules)
    levels = (1 / D, 5 / D)
    values = (
        [(row.phi_11, row.phi_control) for row in rows],
        [(row.phi_full, row.phi_full_control) for row in rows],
    )
    for ax, level, numbers in zip(figure.axes, levels, values, strict=True):
        unit = level if relative else 1.0
        marks = _marks(ax)
        np.testing.assert_allclose(marks["measured"], [phi / unit for phi, _ in numbers])
        np.testing.assert_allclose(marks["same input, other job"], [control / unit for _, control in numbers])
        np.testing.assert_allclose(marks["isotropic random spans"], level / unit)
        assert ax.get_xlabel() == ("φ over isotropic random spans" if relative else "φ")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[0] == "0.self_attn.k_proj" and len(names) == len(rows)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "measured", "same input, other job", "isotropic random spans",
    ]  # fmt: skip


def test_the_data_of_effects_have_every_mark():
    comparison = _compared()
    (figure,) = figures(comparison, "effects")
    shown = drawn(figure)
    assert len(shown) == 4 * len(comparison.modules)
    for row in comparison.modules:
        own, control, whole, whole_control = (
            what.panel for what in shown if what.panel.i_module == row.module
        )
        assert [p.phi.item() for p in (own, control, whole, whole_control)] == [
            row.phi_11, row.phi_control, row.phi_full, row.phi_full_control,
        ]  # fmt: skip
        assert (whole.i_start, whole.j_start) == row.phi.shape == (3, 5)
        assert (own.control, control.control) == (None, row.control)


def test_effects_of_both_kinds_of_control_and_of_none():
    comparison = _compared()
    kinds = ("same_input", "layers", None)
    rows = [
        replace(row, matched_controls=(Control(kind, 2, 0.1, 0.2, None),) if kind else ())
        for row, kind in zip(comparison.modules[:3], kinds, strict=True)
    ]
    (figure,) = figures(replace(comparison, modules=tuple(rows)), "effects")
    marks = _marks(figure.axes[0])
    assert marks["same input, other job"].tolist() == marks["same kind, other layers"].tolist() == [0.1]
    (bare,) = figures(_compared(controls="none"), "effects")
    assert list(_marks(bare.axes[0])) == ["isotropic random spans", "measured"]
    for page in (figure, bare):
        _is_inside(page)


def _is_inside(figure):
    with style.paper_style():
        figure.draw_without_rendering()
    page = figure.bbox
    texts = [*figure.texts, *figure.legends, *figure.axes[0].get_yticklabels()]
    boxes = [each.get_window_extent() for each in [*texts, *(ax.title for ax in figure.axes)]]
    boxes += [ax.xaxis.label.get_window_extent() for ax in figure.axes]
    for k, box in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert not any(box.overlaps(other) for other in boxes[k + 1 :])


@pytest.mark.parametrize("names", [["q"], [f"net.{'x' * 300}{n}{'y' * 300}.q" for n in range(3)]])
def test_no_text_of_effects_leaves_the_page_or_meets_another(names):
    (figure,) = figures(_compared(names), "effects")
    _is_inside(figure)


def test_effects_of_many_modules_take_pages_and_of_one_layer_a_line_each():
    comparison = _compared([f"h.{n}.q" for n in range(61)], controls="none")
    first, second = figures(comparison, "effects")
    assert len(drawn(second)) == 2 and "modules 1–60 of 61 (page 1 of 2)" in first.texts[-1].get_text()
    (one,) = figures(comparison, "effects", layer=4)
    assert {what.panel.i_module for what in drawn(one)} == {"h.4.q"}


@pytest.mark.parametrize("preset", ["effects", "fig3", "fig4", "fig6", "fig7", "grid"])
def test_every_preset_can_be_relative(preset):
    for page in figures(_compared(), preset, relative=True):
        assert all(what.relative for what in drawn(page))
        page.draw_without_rendering()


def test_a_row_draws_itself_relative():
    (what,) = drawn(_compared().plot(relative=True).figure)
    assert (what.relative, what.vmin, what.vmax) == (True, 0.1, 100.0)
    (what,) = drawn(_compared().modules[0].plot(relative=True, vmax=10).figure)
    assert (what.relative, what.vmin, what.vmax) == (True, 0.1, 10)
