import numpy as np
import pytest

from subspace.errors import ShapeError, ValueRangeError
from subspace.plots import Panel
from subspace.plots.drawn_panels import isotropic_range


def test_the_grid_reaches_to_the_declared_ranks_with_nan() -> None:
    panel = Panel(np.full((2, 3), 0.5), d=10, r_first=4, r_second=3)
    assert panel.grid().shape == (4, 3)
    assert np.isnan(panel.grid()[2:]).all()
    assert (panel.grid()[:2] == 0.5).all()


def test_the_isotropic_level_is_of_the_cells_that_exist_and_are_not_masked() -> None:
    assert isotropic_range(Panel(np.zeros((2, 3)), d=10, r_first=8)) == (0.1, 0.3)
    assert isotropic_range(Panel(np.zeros((2, 3)), d=10, i_start=5)) == (0.5, 0.6)
    assert isotropic_range(Panel(np.zeros((2, 3)), d=10), "upper") == (0.1, 0.2)
    assert isotropic_range(Panel(np.zeros((2, 3)), d=10, j_start=2), "lower") == (0.2, 0.4)
    assert isotropic_range(Panel(np.zeros((2, 2)), d=10, j_start=5), "upper") == (0.5, 0.6)
    np.testing.assert_allclose(
        Panel(np.zeros((2, 3)), d=4).isotropic(), [[0.25, 0.5, 0.75], [0.5, 0.5, 0.75]]
    )


def test_an_adapter_without_directions_is_all_undefined() -> None:
    panel = Panel(np.zeros((0, 3)), d=10, r_first=4, r_second=3)
    assert np.isnan(panel.grid()).all()
    assert isotropic_range(panel) == (0.1, 0.4)


def test_a_panel_keeps_its_own_copy() -> None:
    phi = np.full((2, 2), 0.5)
    panel = Panel(phi, d=4)
    phi[:] = 0.0
    assert (panel.phi == 0.5).all()
    with pytest.raises(ValueError, match="read-only"):
        panel.phi[0, 0] = 0.0


def test_transposing_twice_changes_nothing_and_once_exchanges_the_axes() -> None:
    panel = Panel(np.linspace(0, 1, 6).reshape(2, 3), d=9, i_label="i", j_label="j", i_start=4, r_first=6)
    once = panel.transposed()
    assert (once.i_label, once.j_start, once.r_second, once.last_j) == ("j", 4, 6, 6)
    np.testing.assert_array_equal(once.grid(), panel.grid().T)
    np.testing.assert_array_equal(once.transposed().grid(), panel.grid())


def test_a_crop_keeps_the_cells_and_their_indices() -> None:
    panel = Panel(np.arange(12).reshape(3, 4) / 12, d=9, r_first=5)
    cut = panel.cropped(i=(2, 4), j=(3, 99))
    assert (cut.i_start, cut.last_i, cut.j_start, cut.last_j) == (2, 4, 3, 4)
    np.testing.assert_array_equal(cut.grid(), panel.grid()[1:4, 2:])
    assert np.isnan(panel.cropped(i=(4, 5)).grid()).all()
    with pytest.raises(ValueRangeError, match=r"Crop \(9, 12\) lies outside the panel's range 1\.\.5"):
        panel.cropped(i=(9, 12))


@pytest.mark.parametrize("phi", [np.zeros(3), np.zeros((0, 3)), np.zeros((0, 0))])
def test_what_cannot_be_drawn_is_refused(phi: np.ndarray) -> None:
    with pytest.raises(ShapeError, match=r"is not a matrix over|Nothing to draw"):
        Panel(phi, d=10)


@pytest.mark.parametrize("value", [1.1, -0.1, np.inf, -np.inf])
def test_phi_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(ValueRangeError, match=r"phi has the value .* outside \[0, 1\], in panel 'q'"):
        Panel(np.array([[0.5, value]]), d=10, title="q")


@pytest.mark.parametrize(("d", "start"), [(2, 1), (0, 1), (10, 0), (10, 9)])
def test_indices_outside_the_space_are_refused(d: int, start: int) -> None:
    with pytest.raises(ValueRangeError, match=r"Indices lie outside 1\.\.d"):
        Panel(np.zeros((3, 1)), d=d, i_start=start)
