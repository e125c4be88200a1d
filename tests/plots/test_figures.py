import numpy as np
import pytest

from subspace.errors import ValueRangeError
from subspace.plots import (
    drawn,
    figure_3,
    figure_4,
    figure_6,
    figure_7,
    figure_8,
    grid,
    page_count,
    random_panel,
)


def _limits(figure):
    return {(what.vmin, what.vmax) for what in drawn(figure)}


def _heatmaps(figure):
    return [ax for ax in figure.axes if ax.images]


def _notes(figure):
    return [text.get_text() for text in figure.texts]


def test_figure_3_is_wide_then_zoomed_with_the_triangles_split(make_panel) -> None:
    q, v = make_panel(title="q"), make_panel(title="v")
    figure = figure_3([q, v])
    shown = drawn(figure)
    assert [what.panel.title for what in shown] == ["q", "v", "q (zoom)", "v (zoom)"]
    assert [what.mask for what in shown] == ["lower", "lower", "upper", "upper"]
    assert [what.panel.phi.shape for what in shown] == [(8, 64), (8, 64), (8, 8), (8, 8)]
    assert _limits(figure) == {(0.0, 1.0)}
    np.testing.assert_array_equal(shown[2].panel.phi, q.phi[:, :8])


def test_figure_3_puts_the_lower_rank_on_the_i_axis(make_panel) -> None:
    panel = make_panel(64, 8)
    shown = drawn(figure_3([panel]))
    np.testing.assert_array_equal(shown[0].panel.phi, panel.phi.T)


def test_figure_3_zooms_to_the_declared_rank_where_the_numerical_one_is_lower(make_panel) -> None:
    panel = make_panel(6, 50, r_first=8, r_second=64)
    figure = figure_3([panel])
    wide, zoomed = drawn(figure)
    assert wide.panel.grid().shape == (8, 64)
    assert zoomed.panel.grid().shape == (8, 8)
    assert np.isnan(zoomed.panel.grid()[6:]).all()
    (note,) = _notes(figure)
    assert note.replace("\n", " ").endswith("; hatched: undefined, beyond the numerical rank")


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (8, 8), (64, 64), (0, 4)])
def test_every_preset_takes_a_single_pair_of_any_ranks(make_panel, shape) -> None:
    panel = make_panel(*shape, r_first=max(1, shape[0]))
    for figure in (
        figure_3([panel]),
        figure_4([panel]),
        figure_6([[panel]]),
        figure_7([[panel]]),
        figure_8([panel]),
        grid([panel]),
    ):
        figure.draw_without_rendering()
        assert drawn(figure)


def test_figure_4_is_one_row_up_to_a_half(make_panel) -> None:
    figure = figure_4([make_panel(64, 64), make_panel(64, 64), random_panel(64, 64, 768)])
    assert _limits(figure) == {(0.0, 0.5)}
    assert len({ax.get_position().y0 for ax in _heatmaps(figure)[:3]}) == 1
    assert all(what.mask is None for what in drawn(figure))


def test_figure_6_has_a_row_per_layer(make_panel) -> None:
    layers = [[make_panel(title=f"{layer} q"), make_panel(title=f"{layer} v")] for layer in (1, 32, 64, 96)]
    figure = figure_6(layers)
    titles = [what.panel.title for what in drawn(figure)]
    assert titles[4:8] == ["32 q", "32 v", "32 q (zoom)", "32 v (zoom)"]
    assert len(titles) == 16
    assert _limits(figure) == {(0.0, 1.0)}
    assert _notes(figure) == ["isotropic: mean φ of isotropic random spans, max(i, j)/d"]


def test_figure_6_leaves_a_hole_where_a_layer_lacks_a_module(make_panel) -> None:
    figure = figure_6([[make_panel(title="q"), make_panel(title="v")], [make_panel(title="only q")]])
    full, lone = _heatmaps(figure)[2], _heatmaps(figure)[5]
    assert lone.get_title() == "only q (zoom)"
    assert lone.get_position().x0 == pytest.approx(full.get_position().x0)


def test_figure_7_has_a_column_per_layer_and_a_row_per_module(make_panel) -> None:
    layers = [[make_panel(8, 8, title=f"{k} q"), make_panel(8, 8, title=f"{k} v")] for k in range(4)]
    figure = figure_7(layers)
    titles = [what.panel.title for what in drawn(figure)]
    assert titles == ["0 q", "1 q", "2 q", "3 q", "0 v", "1 v", "2 v", "3 v"]
    assert _limits(figure) == {(0.0, 0.8)}


def test_figure_7_wraps_many_layers_into_blocks(make_panel) -> None:
    layers = [[make_panel(4, 4, title=f"{k} q"), make_panel(4, 4, title=f"{k} v")] for k in range(6)]
    titles = [what.panel.title for what in drawn(figure_7(layers))]
    assert titles == [f"{k} {m}" for block in ((0, 1, 2, 3), (4, 5)) for m in "qv" for k in block]


def test_figure_8_has_the_papers_limits_where_i_ends_at_a_tenth_of_d(make_panel) -> None:
    panels = [make_panel(1200, r, d=12000) for r in (4, 8, 64)]
    figure = figure_8(panels)
    assert _limits(figure) == {(0.1, 0.2)}
    assert {what.panel.i_start for what in drawn(figure)} == {451}
    np.testing.assert_array_equal(drawn(figure)[0].panel.phi, panels[0].phi[450:])


def test_figure_8_of_ratios_has_a_narrower_scale(make_panel) -> None:
    figure = figure_8([make_panel(76, 8, d=768)], relative=True)
    assert _limits(figure) == {(0.25, 4.0)}
    labels = [label.get_text() for label in figure.axes[-1].get_yticklabels()]
    assert labels == ["0.5", "1, isotropic random spans", "2"]


def test_figure_8_draws_a_small_matrix_from_its_first_direction(make_panel) -> None:
    (what,) = drawn(figure_8([make_panel(76, 8, d=768)]))
    assert what.panel.i_start == 1
    assert (what.vmin, what.vmax) == pytest.approx((76 / 768, 152 / 768))


def test_figure_8_stays_within_0_and_1_where_the_isotropic_level_is_large(make_panel) -> None:
    assert _limits(figure_8([make_panel(8, 8, d=8)])) == {(0.5, 1.0)}


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 12, 48])
def test_grid_draws_every_module_inside_the_figure(make_panel, n) -> None:
    figure = grid([make_panel(4, 4, title=f"m{k}") for k in range(n)])
    assert [what.panel.title for what in drawn(figure)] == [f"m{k}" for k in range(n)]
    for ax in figure.axes:
        box = ax.get_position()
        assert 0 <= box.x0 < box.x1 <= 1
        assert 0 <= box.y0 < box.y1 <= 1


def test_grid_pages_many_modules_and_says_so(make_panel) -> None:
    panels = [make_panel(2, 2, title=f"m{k}") for k in range(100)]
    figure = grid(panels, page=3)
    assert page_count(100) == 3
    assert [what.panel.title for what in drawn(figure)] == ["m96", "m97", "m98", "m99"]
    assert _notes(figure)[0].startswith("modules 97–100 of 100 (page 3 of 3); isotropic: ")


@pytest.mark.parametrize("page", [0, 3, -1])
def test_a_page_that_does_not_exist_is_refused(make_panel, page) -> None:
    with pytest.raises(
        ValueRangeError, match=r"There is no page -?\d: 50 modules take 2; choose a page from 1 to 2"
    ):
        grid([make_panel(2, 2)] * 50, page=page)


@pytest.mark.parametrize("preset", [figure_3, figure_4, figure_6, figure_7, figure_8, grid])
def test_no_panels_is_an_error_and_not_an_empty_figure(preset) -> None:
    with pytest.raises(ValueRangeError, match="nothing to draw: a figure needs at least one panel"):
        preset([])


def _levels(figure):
    return [
        text.get_text() for ax in _heatmaps(figure) for text in ax.texts if text.get_label() == "isotropic"
    ]


def _marks(figure):
    return sorted(
        line.get_ydata()[0] for line in figure.axes[-1].lines if line.get_label() == "isotropic random spans"
    )


def test_every_panel_says_the_level_of_the_cells_that_it_shows(make_panel) -> None:
    figure = figure_3([make_panel(8, 64, d=256)])
    assert _levels(figure) == ["isotropic: 0.0039 to 0.25", "isotropic: 0.0039 to 0.031"]
    assert _levels(grid([make_panel(1, 1, d=4)])) == ["isotropic: 0.25"]


def test_one_bar_has_a_mark_for_each_level(make_panel) -> None:
    assert _marks(figure_3([make_panel(8, 64, d=256)])) == [8 / 256, 64 / 256]
    figure = figure_4([make_panel(8, 8, d=768), make_panel(64, 64, d=768), make_panel(8, 64, d=768)])
    assert _marks(figure) == [8 / 768, 64 / 768]
    labels = [label.get_text() for label in figure.axes[-1].get_yticklabels()]
    assert {"isotropic random spans 0.01", "isotropic random spans 0.083"} <= set(labels)


def test_levels_whose_labels_would_overlap_share_one(make_panel) -> None:
    figure = grid([make_panel(2, 2, d=d) for d in (64, 72, 80)])
    assert _marks(figure) == [2 / 80, 2 / 72, 2 / 64]
    labels = [label.get_text() for label in figure.axes[-1].get_yticklabels()]
    assert [label for label in labels if "iso" in label] == ["isotropic random spans ≤ 0.031"]


@pytest.mark.parametrize("preset", [figure_3, figure_4, figure_8, grid])
def test_relative_figures_show_the_ratio_on_one_scale(make_panel, preset) -> None:
    panel = make_panel(8, 8, d=256)
    figure = preset([panel], relative=True)
    assert all(what.relative for what in drawn(figure)) and len(_limits(figure)) == 1
    what = drawn(figure)[0]
    np.testing.assert_allclose(what.values(), panel.phi / panel.isotropic())
    assert _marks(figure) == [1.0] and not _levels(figure)
    assert figure.axes[-1].get_title(loc="left") == "φ over isotropic\nrandom spans"


def _control(make_panel, n_i=8, n_j=8, **fields):
    return make_panel(n_i, n_j, control={"kind": "layers", "pairs": 6}, **fields)


def _rows_of(figure):
    rows = {}
    for what, ax in zip(drawn(figure), _heatmaps(figure), strict=True):
        rows.setdefault(round(ax.get_position().y0, 6), []).append((what.panel.title, ax.get_position().x0))
    return [rows[y] for y in sorted(rows, reverse=True)]


@pytest.mark.parametrize("preset", [figure_3, figure_4])
def test_controls_stand_under_their_modules(make_panel, preset) -> None:
    panels = [make_panel(8, 8, title="q"), make_panel(8, 8, title="v")]
    figure = preset(panels, controls=[None, _control(make_panel, title="control of v")])
    own, under = _rows_of(figure)
    places = dict(own)
    assert under[0] == ("control of v", places["v"]) and own[0][0] == "q"
    assert [what.vmax for what in drawn(figure)] == [drawn(figure)[0].vmax] * len(drawn(figure))
    assert "same kind, other layers: control" in _notes(figure)[0].replace("\n", " ")
    frames = [ax.spines["left"].get_linestyle() for ax in _heatmaps(figure)]
    assert [frame == "-" for frame in frames] == [what.panel.control is None for what in drawn(figure)]


def test_figure_6_has_the_controls_of_a_layer_under_it_and_half_as_many_layers(make_panel) -> None:
    layers = [[make_panel(8, 8, title=f"q{k}")] for k in range(8)]
    controls = [[_control(make_panel, title=f"c{k}")] for k in range(8)]
    figure = figure_6(layers, controls=controls, page=2)
    assert [[title for title, _ in row] for row in _rows_of(figure)] == [
        [f"{name}{k}", f"{name}{k} (zoom)"] for k in (6, 7) for name in "qc"
    ]
    assert _notes(figure)[0].startswith("layers 7–8 of 8 (page 2 of 2)")


def test_figure_7_has_the_controls_of_a_kind_under_it(make_panel) -> None:
    layers = [[make_panel(4, 4, title=f"{m}{k}") for m in "qv"] for k in range(3)]
    controls = [[_control(make_panel, 4, 4, title=f"c{k}"), None] for k in range(3)]
    titles = [[title for title, _ in row] for row in _rows_of(figure_7(layers, controls=controls))]
    assert titles == [["q0", "q1", "q2"], ["c0", "c1", "c2"], ["v0", "v1", "v2"]]


def test_axis_labels_are_written_once_where_all_are_equal(make_panel) -> None:
    same = figure_4([make_panel(4, 4, i_label="i"), make_panel(4, 4, i_label="i")])
    assert [ax.get_ylabel() for ax in _heatmaps(same)[:2]] == ["i", ""]
    other = figure_4([make_panel(4, 4, i_label="i"), make_panel(4, 4, i_label="i of W")])
    assert [ax.get_ylabel() for ax in _heatmaps(other)[:2]] == ["i", "i of W"]


def test_a_random_panel_lies_at_the_isotropic_level() -> None:
    panel = random_panel(8, 64, 768, seed=3)
    assert panel.phi.shape == (8, 64)
    assert panel.phi[-1, -1] == pytest.approx(64 / 768, abs=0.02)  # four standard deviations
    np.testing.assert_array_equal(panel.phi, random_panel(8, 64, 768, seed=3).phi)
    assert not np.array_equal(panel.phi, random_panel(8, 64, 768, seed=4).phi)
