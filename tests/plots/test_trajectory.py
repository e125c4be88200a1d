"""The charts of `track` by their artists."""

from __future__ import annotations

import numpy as np
import pytest
from step_runs import MODULES, run

import subspace
from subspace.plots import births, trajectory, trajectory_map


def _steps(states):
    return {
        10 * n: {f"{key[:-2]}.lora_{key[-1]}": value for key, value in state.items()}
        for n, state in enumerate(states)
    }


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(0)
    base = {f"{module}.weight": rng.standard_normal((32, 40)) for module in MODULES}
    return subspace.track(_steps(run(0)), base=base, scale=1.0)


def _lines(axes):
    return {line.get_label(): line for line in axes.lines}


def _values(values):
    return [np.nan if value is None else value for value in values]


def test_lines_are_the_totals_against_the_step(found):
    axes = trajectory(found)
    lines, total = _lines(axes), found.runs[0].side("b")
    assert set(lines) >= {"A", "A, control", "A, start removed", "B", "B, control", "cosine of ΔW"}
    for label, values in (
        ("B", total.to_final),
        ("B, control", total.to_final_control),
        ("cosine of ΔW", total.cosine),
    ):
        np.testing.assert_array_equal(lines[label].get_ydata(), _values(values))
    assert list(lines["A"].get_xdata()) == [0, 10, 20, 30]
    (band,) = axes.collections
    assert band.get_label() == "isotropic, ± 2 sd"
    low, high = band.get_paths()[0].get_extents().intervaly
    mean, sd = (getattr(found.runs[0].side("left"), f"to_final_isotropic{more}")[1] for more in ("", "_sd"))
    assert low <= mean <= high and high >= found.runs[0].side("a").to_final_isotropic[0] + 2 * sd - 0.1
    assert "mean of 6 modules" in axes.get_legend().get_title().get_text()
    assert set(_lines(trajectory(found, side="b"))) == {"B", "B, control", "cosine of ΔW"}
    assert found.plot(side="b").get_xlabel() == "step"


def test_the_map_has_a_row_per_module(found):
    axes = trajectory_map(found, side="b")
    grid = np.ma.filled(axes.images[0].get_array(), np.nan)
    own = [each.to_final for each in found.runs[0].modules if (each.side, each.init) == ("b", "kept")]
    np.testing.assert_array_equal(grid, [_values(each) for each in own])
    assert next(text.get_text() for text in axes.get_yticklabels()).endswith("0.self_attn.q_proj")
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "10", "20", "30"]


def test_births_are_counted_and_intruders_beside_them(found):
    axes = births(found)
    total, lines = found.runs[0].side("b"), _lines(axes)
    (name,) = (label for label in lines if label.startswith("B:"))
    np.testing.assert_allclose(lines[name].get_ydata(), np.array(total.born) / total.directions)
    (other,) = (each for each in axes.figure.axes if each is not axes)
    assert list(other.lines[0].get_ydata()) == list(total.intruders)


def test_what_cannot_be_drawn_says_why(found):
    one = subspace.track(dict([list(_steps(run(0)).items())[-1]]))
    for chart in (trajectory, births):
        with pytest.raises(subspace.InconclusiveError, match="one checkpoint"):
            chart(one)
    with pytest.raises(subspace.SubspaceError, match="No run 3: there are runs 0 to 0"):
        trajectory(found, run=3)
    with pytest.raises(subspace.SubspaceError, match="Unknown measure 'cosine'"):
        trajectory_map(found, measure="cosine")
    with pytest.raises(subspace.SubspaceError, match="Side 'c' was not measured"):
        trajectory(found, side="c")


def test_many_checkpoints_are_named_without_touching():
    from subspace.plots.canvas import new_figure
    from subspace.plots.step_axis import name_steps, step_positions
    from subspace.results.trajectory import Run, Saved

    steps = [0, 1, 2, 5, 10, 20, 50, 60, 70, 80, 90, 100]
    many = Run("x", "step", tuple(Saved("", step, "name") for step in steps), "step_0")
    x = step_positions(many)
    axes = new_figure(4, 3).add_subplot()
    axes.plot(x, x)
    name_steps(axes, many, x)
    places = axes.get_xticks()
    assert places[-1] == 100 and np.diff(places).min() >= 11
    last = Run("x", "step", (Saved("", 5, "name"), Saved("", None, "")), "step_0")
    assert list(step_positions(last)) == [0, 1]
