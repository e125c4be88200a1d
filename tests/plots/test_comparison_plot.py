"""What `Comparison.plot` draws, and what it says to a keyword that leads nowhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import subspace
from subspace.plots import drawn

D = 24


@pytest.fixture(scope="module")
def comparison():
    rng = np.random.default_rng(0)
    one, other, start = (
        {f"{m}.lora_{x}": rng.standard_normal((3, D) if x == "A" else (D, 3)) for m in ("l.0.q", "l.1.q") for x in "AB"}
        for _ in range(3)
    )  # fmt: skip
    for name in start:
        start[name] *= "lora_A" in name
    return subspace.compare(one, other, init=start, side=("a", "left"))


def _panel(axes):
    (what,) = drawn(axes.figure)
    return what.panel


def test_the_first_with_a_score_is_drawn(comparison):
    panel = _panel(comparison.plot())
    assert (panel.i_module, panel.side, panel.init) == ("l.0.q", "a", "kept")
    np.testing.assert_array_equal(panel.phi, comparison.modules[0].phi)


@pytest.mark.parametrize("side", ["a", "left"])
@pytest.mark.parametrize("module", ["l.0.q", "l.1.q"])
def test_module_and_side_choose_the_row(comparison, module, side):
    panel = _panel(comparison.plot(module=module, side=side))
    (row,) = [r for r in comparison.modules if (r.module, r.side, r.init) == (module, side, "kept")]
    assert panel.i_module == module and panel.side == side
    np.testing.assert_array_equal(panel.phi, row.phi)


def test_init_chooses_the_row(comparison):
    (row,) = [r for r in comparison.modules if (r.module, r.side, r.init) == ("l.1.q", "a", "removed")]
    panel = _panel(comparison.plot(module="l.1.q", init="removed"))
    assert panel.init == "removed"
    np.testing.assert_array_equal(panel.phi, row.phi)


def test_the_keywords_of_a_heatmap_reach_it(comparison):
    axes = comparison.plot(vmin=0.1, vmax=0.6, mask="lower", colorbar=False)
    (what,) = drawn(axes.figure)
    assert (what.vmin, what.vmax, what.mask, len(axes.figure.axes)) == (0.1, 0.6, "lower", 1)
    assert comparison.modules[0].plot(vmax=0.5).images[0].get_clim() == (0.0, 0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"side": "b"}, "Side 'b' was not compared; this comparison has a, left"),
        ({"side": "x\x1b"}, r"Side 'x\\x1b' was not compared"),
        ({"module": "l.7.q"}, r"No module is called 'l\.7\.q'; this comparison has l\.0\.q, l\.1\.q"),
        ({"init": "gone"}, "Init 'gone' was not compared; this comparison has kept, removed"),
        ({"mask": "left"}, "Unknown mask 'left'"),
        ({"vmin": 2.0}, "Colour limits 2.0 and 1.0 do not ascend"),
    ],
)
def test_a_choice_that_is_not_there_is_named_with_those_that_are(comparison, wrong, message):
    with pytest.raises(subspace.SubspaceError, match=message):
        comparison.plot(**wrong)


@pytest.mark.parametrize("which", ["comparison", "row"])
def test_an_unknown_keyword_is_an_error_of_this_method_and_not_of_matplotlib(comparison, which):
    one = comparison if which == "comparison" else comparison.modules[0]
    with pytest.raises(TypeError, match=r"plot\(\) got an unexpected keyword argument 'sides'"):
        one.plot(sides="a")


def test_axes_are_labelled_with_the_adapters(comparison):
    assert comparison.plot().get_xlabel() == "j, of the state dict in memory"


def test_no_score_is_inconclusive_and_says_why(comparison):
    rows = [replace(row, phi=np.zeros((0, 0)), flags=("untrained_first",)) for row in comparison.modules]
    nothing = replace(comparison, modules=tuple(rows))
    with pytest.raises(
        subspace.InconclusiveError, match="No module has a score to draw; flags: untrained_first"
    ):
        nothing.plot()
    with pytest.raises(
        subspace.InconclusiveError, match=r"Module 'l\.1\.q' has no score to draw; flags: unt"
    ):
        nothing.plot(module="l.1.q", side="left")
