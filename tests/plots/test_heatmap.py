import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from subspace.errors import ValueRangeError
from subspace.plots import Panel, drawn, heatmap, random_panel
from subspace.plots import style as plot_style


def _cells(ax):
    return ax.images[0]


def _hatches(ax):
    return [p for p in ax.patches if isinstance(p, Rectangle) and p.get_hatch()]


def _bar(ax):
    return next(other for other in ax.figure.axes if other is not ax)


def _labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def _marks(bar):
    return [line.get_ydata()[0] for line in bar.lines if line.get_label() == "isotropic random spans"]


def _dotted(ax):
    return [patch for patch in ax.patches if patch.get_label() == "below isotropic random spans"]


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


def test_isotropic_random_spans_are_a_line_on_the_bar_at_the_largest_index_over_d(make_panel) -> None:
    ax = heatmap(make_panel(8, 64, d=768))
    assert _marks(_bar(ax)) == [64 / 768]
    assert "isotropic random spans 0.083" in _labels(_bar(ax).yaxis)
    assert [text.get_text() for text in ax.texts] == ["isotropic random spans: 0.0013 to 0.083"]


@pytest.mark.parametrize(
    ("limits", "label"),
    [((0.0, 0.5), "0.5 < isotropic random spans 0.8"), ((0.9, 1.0), "0.9 > isotropic random spans 0.8")],
)
def test_a_level_beyond_the_scale_is_said(make_panel, limits, label) -> None:
    bar = _bar(heatmap(make_panel(8, 8, d=10), vmin=limits[0], vmax=limits[1]))
    assert label in _labels(bar.yaxis)
    assert not _marks(bar)


def test_cells_below_isotropic_random_spans_have_dots_that_differ_in_lightness_from_them() -> None:
    phi = np.array([[0.9, 0.05, 0.9], [0.9, 0.9, 0.4]])
    ax = heatmap(Panel(phi, d=4), vmax=0.4)
    dark, light = _dotted(ax)
    assert (to_rgba(plot_style.ON_DARK), to_rgba(plot_style.ON_LIGHT)) == (
        dark.get_edgecolor(),
        light.get_edgecolor(),
    )
    boxes = [patch.get_path().get_extents().extents.tolist() for patch in (dark, light)]
    assert boxes == [[1.5, 0.5, 2.5, 1.5], [2.5, 1.5, 3.5, 2.5]]
    assert all(patch.get_hatch() == plot_style.BELOW for patch in (dark, light))


@pytest.mark.parametrize("relative", [False, True])
def test_dots_are_on_exactly_the_cells_below(relative) -> None:
    panel = random_panel(8, 16, 32, seed=1)
    ax = heatmap(panel, relative=relative, mask="lower")
    (what,) = drawn(ax.figure)
    i, j = panel.indices()
    wanted = (panel.phi < np.maximum(i, j) / 32) & (j >= i)
    paths = [patch.get_path() for patch in _dotted(ax)]
    inside = [[any(path.contains_point((b, a)) for path in paths) for b in j[0]] for a in i[:, 0]]
    np.testing.assert_array_equal(inside, wanted)
    np.testing.assert_array_equal(what.below(), wanted)
    assert wanted.any() and not wanted.all()


def test_nothing_is_dotted_at_the_level_itself() -> None:
    ax = heatmap(Panel(np.ones((2, 2)), d=2, i_start=1))
    assert not _dotted(heatmap(Panel(np.array([[0.25]]), d=4))) and not _dotted(ax)


def test_a_heatmap_of_its_own_says_what_its_marks_mean(make_panel) -> None:
    def note(panel, **options):
        figure = heatmap(panel, **options).figure
        with plot_style.paper_style():
            figure.draw_without_rendering()
        box = figure._supxlabel.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        return figure.get_supxlabel().replace("\n", " ")

    assert note(make_panel()) == "isotropic: mean φ of isotropic random spans, max(i, j)/d"
    for options in ({}, {"colorbar": False}):
        assert "dotted: below isotropic random spans" in note(random_panel(4, 4, 16), **options)


def test_a_ratio_has_a_logarithmic_scale_around_1_with_its_darkest_colour(make_panel) -> None:
    panel = make_panel(8, 8, d=256)
    ax = heatmap(panel, relative=True)
    image = _cells(ax)
    np.testing.assert_allclose(image.get_array(), panel.phi / panel.isotropic())
    assert image.get_clim() == (0.1, 100.0)
    colours = image.get_cmap()(image.norm(np.array([0.1, 0.3, 0.99, 1.01, 10.0, 100.0])))
    lightness = colours[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness[:3]) < 0).all() and (np.diff(lightness[3:]) > 0).all()
    assert colours[0][2] > colours[0][0] and colours[-1][0] > colours[-1][2]  # blue below, warm above
    bar = _bar(ax)
    assert _marks(bar) == [1.0]
    assert _labels(bar.yaxis) == ["0.1", "1, isotropic random spans", "10", "100"]


def test_a_ratio_of_zero_is_drawn_and_limits_need_not_hold_1() -> None:
    panel = Panel(np.array([[0.0, 0.5]]), d=8)
    for vmin, vmax in ((0.1, 100.0), (2.0, 4.0), (0.1, 0.5)):
        ax = heatmap(panel, relative=True, vmin=vmin, vmax=vmax)
        ax.figure.draw_without_rendering()
        assert not np.ma.getmaskarray(_cells(ax).get_array()).any()


@pytest.mark.parametrize("vmin", [0.0, -1.0])
def test_a_ratio_needs_positive_limits(make_panel, vmin) -> None:
    with pytest.raises(ValueRangeError, match=r"Colour limit .* is not positive.*give `vmin` > 0"):
        heatmap(make_panel(), relative=True, vmin=vmin)


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
