import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from subspace.errors import ValueRangeError
from subspace.plots import Panel, drawn, heatmap
from subspace.plots import style as plot_style


def _cells(ax):
    return ax.images[0]


def _hatches(ax):
    return [p for p in ax.patches if isinstance(p, Rectangle) and p.get_hatch()]


def _bar(ax):
    return next(other for other in ax.figure.axes if other is not ax)


def _labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def _chance_lines(bar):
    return {
        line.get_label(): line.get_ydata()[0]
        for line in bar.lines
        if line.get_label().startswith("random spans")
    }


def test_the_image_is_phi_on_a_fixed_scale(make_panel) -> None:
    panel = make_panel()
    image = _cells(heatmap(panel))
    np.testing.assert_array_equal(image.get_array(), panel.phi)
    assert not np.ma.getmaskarray(image.get_array()).any()
    assert image.get_clim() == (0.0, 1.0)
    assert _cells(heatmap(panel, vmin=0.1, vmax=0.2)).get_clim() == (0.1, 0.2)


def test_i_grows_downwards_and_cells_are_centred_on_their_indices(make_panel) -> None:
    ax = heatmap(make_panel(i_start=451, d=4096))
    assert ax.get_ylim() == (458.5, 450.5)
    assert ax.get_xlim() == (0.5, 64.5)


@pytest.mark.parametrize(
    ("shape", "x", "y"),
    [
        ((8, 64), "1 6 12 18 23 29 35 40 46 52 58", "1 2 3 4 5 6 7 8"),
        ((64, 8), "1 2 3 4 5 6 7 8", "1 8 16 24 32 40 48 56"),
        ((1, 1), "1", "1"),
    ],
)
def test_ticks_are_the_papers(make_panel, shape, x, y) -> None:
    ax = heatmap(make_panel(*shape))
    assert (_labels(ax.xaxis), _labels(ax.yaxis)) == (x.split(), y.split())


def test_ticks_are_integers_inside_the_axis_and_not_too_many() -> None:
    for last in range(1, 300):
        ticks = plot_style.ticks(1, last, at_most=7)
        assert len(ticks) <= 7
        assert ticks == sorted(set(ticks))
        assert ticks[0] == 1
        assert ticks[-1] <= last


@pytest.mark.parametrize(("mask", "hidden"), [("upper", lambda i, j: i < j), ("lower", lambda i, j: j < i)])
def test_a_mask_hides_its_triangle_in_plain_grey(make_panel, mask, hidden) -> None:
    ax = heatmap(make_panel(8, 8), mask=mask)
    i, j = np.indices((8, 8))
    np.testing.assert_array_equal(_cells(ax).get_array().mask, hidden(i, j))
    grey = ax.images[1]
    np.testing.assert_array_equal(~np.ma.getmaskarray(grey.get_array()), hidden(i, j))
    assert grey.get_cmap()(0) == to_rgba(plot_style.MASKED)
    assert not _hatches(ax)


def test_undefined_cells_are_transparent_over_a_hatched_ground(make_panel) -> None:
    ax = heatmap(make_panel(6, 8, r_first=8))
    assert np.ma.getmaskarray(_cells(ax).get_array())[6:].all()
    assert _cells(ax).get_cmap().get_bad()[3] == 0.0
    (ground,) = _hatches(ax)
    assert ground.get_zorder() < _cells(ax).get_zorder()
    assert not _hatches(heatmap(make_panel(8, 8)))


def test_nan_inside_phi_is_hatched_too() -> None:
    ax = heatmap(Panel(np.array([[0.5, np.nan], [0.5, 0.5]]), d=9))
    assert _cells(ax).get_array().mask.tolist() == [[False, True], [False, False]]
    assert len(_hatches(ax)) == 1


def test_chance_is_a_line_on_the_bar_at_the_largest_index_over_d(make_panel) -> None:
    bar = _bar(heatmap(make_panel(8, 64, d=768)))
    assert _chance_lines(bar) == {"random spans": 64 / 768, "random spans, first cell": 1 / 768}
    assert "random spans 0.083" in _labels(bar.yaxis)


def test_one_line_where_the_two_ends_of_chance_cannot_be_told_apart(make_panel) -> None:
    assert _chance_lines(_bar(heatmap(make_panel(8, 8, d=768)))) == {"random spans": 8 / 768}


def test_both_ends_are_named_where_there_is_room(make_panel) -> None:
    bar = _bar(heatmap(make_panel(8, 8, d=20, i_start=8)))
    assert {"random spans 0.75", "random spans from 0.4"} <= set(_labels(bar.yaxis))


@pytest.mark.parametrize(
    ("limits", "label"), [((0.0, 0.5), "0.5 < random spans 0.8"), ((0.9, 1.0), "0.9 > random spans 0.8")]
)
def test_chance_beyond_the_scale_is_said(make_panel, limits, label) -> None:
    bar = _bar(heatmap(make_panel(8, 8, d=10), vmin=limits[0], vmax=limits[1]))
    assert label in _labels(bar.yaxis)
    assert not _chance_lines(bar)


def test_the_bar_has_a_tip_where_values_lie_beyond_the_limits(make_panel) -> None:
    panel = make_panel(8, 8)
    assert heatmap(panel).images[0].colorbar.extend == "neither"
    assert heatmap(panel, vmax=0.5).images[0].colorbar.extend == "max"
    assert heatmap(panel, vmin=0.3).images[0].colorbar.extend == "min"


def test_it_draws_on_the_axes_it_is_given(make_panel) -> None:
    figure = Figure()
    ax = figure.add_subplot()
    assert heatmap(make_panel(), ax=ax, colorbar=False) is ax
    assert figure.axes == [ax]
    (what,) = drawn(figure)
    assert (what.vmin, what.vmax, what.mask) == (0.0, 1.0, None)


def test_a_notebook_displays_the_axes_and_the_figure(make_panel) -> None:
    ax = heatmap(make_panel())
    assert ax._repr_png_().startswith(b"\x89PNG")
    assert ax.figure._repr_png_() == ax._repr_png_()


def test_lightness_of_the_colours_only_grows() -> None:
    colours = np.unique(plot_style.colours()(np.arange(0, 256, 2)), axis=0)
    lightness = plot_style.colours()(np.arange(0, 256, 2))[:, :3] ** 2.2 @ [0.2126, 0.7152, 0.0722]
    assert len(colours) == 128
    assert (np.diff(lightness) > 0).all()


@pytest.mark.parametrize("limits", [(1.0, 0.0), (0.0, 0.0), (0.0, np.nan), (0.0, np.inf)])
def test_limits_that_do_not_ascend_are_refused(make_panel, limits) -> None:
    with pytest.raises(ValueRangeError, match=r"Colour limits .* do not ascend"):
        heatmap(make_panel(), vmin=limits[0], vmax=limits[1])


def test_an_unknown_mask_is_refused(make_panel) -> None:
    with pytest.raises(ValueRangeError, match=r"Unknown mask 'left'"):
        heatmap(make_panel(), mask="left")
