"""The lines of the alignment curves are the numbers of their result."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

import subspace
from subspace.errors import InconclusiveError
from subspace.plots import alignment_curves


def _aligned(modules, shapes=((20, 16),), zero=()):
    rng = np.random.default_rng(0)
    factors, W = {}, {}
    for n, module in enumerate(modules):
        d_out, d_in = shapes[n % len(shapes)]
        factors[f"{module}.lora_A"] = rng.standard_normal((3, d_in))
        factors[f"{module}.lora_B"] = rng.standard_normal((d_out, 3)) * (module not in zero)
        W[f"{module}.weight"] = rng.standard_normal((d_out, d_in))
    return subspace.align(W, factors, k=4)


def _line(axes, label):
    (line,) = (line for line in axes.lines if line.get_label().startswith(label))
    return line


def test_the_lines_of_one_module_are_its_curves():
    result = _aligned(["a"])
    axes = result.plot()
    curves = result[0].curves
    for side, d in (("input", 16), ("output", 20)):
        line = _line(axes, side)
        np.testing.assert_allclose(line.get_xdata(), np.array(curves["i"]) / d)
        np.testing.assert_allclose(line.get_ydata(), curves[side])
    chance = _line(axes, "isotropic")
    np.testing.assert_array_equal(chance.get_xdata(), chance.get_ydata())
    assert len(axes.collections) == 1  # two standard deviations of chance


def test_the_lines_of_several_modules_are_their_medians():
    result = _aligned(["a", "b", "c"])
    axes = result.plot()
    line = _line(axes, "input")
    medians = np.median([row.curves["input"] for row in result], axis=0)
    own = np.array(result[0].curves["i"]) / 16
    # at the ends and at i = 4; between them lines are straight over log i
    for at in (0, 3, -1):
        assert np.interp(np.log(own[at]), np.log(line.get_xdata()), line.get_ydata()) == pytest.approx(
            medians[at], rel=0.05
        )
    assert len(axes.collections) == 3
    assert axes.get_legend().get_title().get_text() == "median and quartiles of 3 modules"


def test_modules_of_other_shapes_and_without_an_update_are_drawn_together():
    result = _aligned(["a", "b", "c", "d"], shapes=((20, 16), (12, 40)), zero=("d",))
    axes = alignment_curves(result, ax=Figure().add_subplot())
    assert axes.get_legend().get_title().get_text() == "median and quartiles of 3 modules"
    assert np.isfinite(_line(axes, "output").get_ydata()).all()
    assert result.plot().figure._repr_png_().startswith(b"\x89PNG")


def test_nothing_to_draw_is_an_error():
    nothing = subspace.Alignment(base="W", delta="x", modules=())
    with pytest.raises(InconclusiveError, match="no alignment to draw"):
        alignment_curves(nothing)
