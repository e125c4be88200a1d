"""The map of spectra shows the numbers of its result, the ranks advised, and what is above random factors."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

import subspace
from subspace.errors import InconclusiveError
from subspace.plots import rank_map, style
from subspace.results.spectrum import Spectrum

_RNG = np.random.default_rng(0)


def _found(modules, r=6, **given):
    factors = {}
    for module in modules:
        factors[f"{module}.lora_A"] = _RNG.standard_normal((r, 20))
        factors[f"{module}.lora_B"] = _RNG.standard_normal((20, r)) * 2.0 ** -np.arange(r)
    return subspace.spectrum(factors, scale=2.0, **given)


def test_colours_are_the_singular_values_over_the_largest():
    found = _found([f"layers.{n}.$q$" for n in range(3)])
    axes = found.plot()
    (image,) = axes.images
    expected = [np.log10(row.sigma / row.sigma[0]) for row in found]
    np.testing.assert_allclose(image.get_array(), expected)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.$q$", "1.$q$", "2.$q$"]


def test_the_step_is_behind_the_last_direction_that_is_kept():
    found = _found(["a", "b", "c"])
    axes = found.plot()
    (line,) = [line for line in axes.lines if line.get_label() == "rank advised"]
    np.testing.assert_array_equal(line.get_xdata()[::2], [row.advised_rank + 0.5 for row in found])
    (dots,) = [line for line in axes.lines if line.get_label() == "last above random factors, 5 %"]
    np.testing.assert_array_equal(dots.get_xdata(), [row.above_random + 0.5 for row in found])


def test_ranks_below_the_others_are_left_undefined():
    rows = [*_found(["a"]), *_found(["b"], r=3)]
    axes = rank_map(Spectrum("x", "energy 0.95", tuple(rows)))
    array = np.ma.filled(axes.images[0].get_array(), np.nan)
    assert np.isnan(array[1, 3:]).all() and np.isfinite(array[0]).all()


def test_many_modules_are_numbered_and_the_page_holds_all():
    axes = _found([f"layers.{n}.q" for n in range(70)]).plot()
    assert axes.get_ylabel() == "modules 0 to 69, in the order of the table"
    with style.paper_style():
        axes.figure.draw_without_rendering()
    box, page = axes.get_legend().get_window_extent(), axes.figure.bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and box.y1 <= page.y1


def test_it_is_drawn_on_given_axes_and_nothing_is_an_error():
    ax = Figure().add_subplot()
    assert rank_map(_found(["a", "b"]), ax=ax) is ax
    with pytest.raises(InconclusiveError, match="no spectrum to draw"):
        rank_map(Spectrum("x", "energy 0.95", ()))
