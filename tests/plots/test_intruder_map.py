"""The map of intruders has the numbers of its result, a mark on each intruder, and the scales next to it."""

from __future__ import annotations

import intruder_cases as cases
import numpy as np
import pytest
from matplotlib.figure import Figure

import subspace
from subspace.errors import InconclusiveError
from subspace.plots import intruder_map


def _found(strengths, **asked):
    rng = np.random.default_rng(0)
    W, adapter = {}, {}
    for n, strength in enumerate(strengths):
        W[f"h.{n}.q.weight"] = cases.base("bulk", (40, 40), rng)
        B, A = cases.update(W[f"h.{n}.q.weight"], strength, rng)
        adapter |= {f"h.{n}.q.lora_A": A, f"h.{n}.q.lora_B": B}
    return subspace.intruders(W, adapter, scale=1.0, **asked)


def test_colours_and_marks_are_those_of_the_result():
    result = _found([3.0, 0.01], epsilon=0.6, up_to=8.0)
    axes = result.plot()
    np.testing.assert_allclose(axes.images[0].get_array(), [row.max_cos for row in result])
    marks = {(x, y) for line in axes.lines for x, y in line.get_xydata()}
    below = {(x, y) for y, row in enumerate(result) for x, cos in enumerate(row.max_cos) if cos < 0.6}
    assert marks == below and below
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.q", "1.q"]


def test_the_scales_are_next_to_the_map():
    result = _found([3.0, 0.01], up_to=8.0)
    scales = next(axes for axes in result.plot().figure.axes if axes.get_xscale() == "log")
    lines = {line.get_label(): line for line in scales.lines}
    np.testing.assert_allclose(lines["by the law"].get_xdata(), [row.s_star_law for row in result])
    np.testing.assert_allclose(lines["measured"].get_xdata(), [result[0].s_star, np.nan])
    assert lines["none up to 8"].get_xydata().tolist() == [[8, 1]]
    assert not any(axes.get_xscale() == "log" for axes in _found([3.0], up_to=0).plot().figure.axes)


def test_axes_of_ones_own_take_the_map_alone():
    axes = Figure().add_subplot()
    assert intruder_map(_found([1.0], side="both"), ax=axes) is axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["q left", "q right"]


def test_many_modules_have_numbers_for_names():
    result = _found([0.5] * 120, k=3, up_to=0)
    assert "rows 0 to 119" in result.plot().get_ylabel()


def test_nothing_to_draw():
    result = _found([1.0], up_to=0)
    object.__setattr__(result.modules[0], "max_cos", ())
    with pytest.raises(InconclusiveError, match="no directions to draw"):
        result.plot()
