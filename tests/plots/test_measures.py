"""Spectra and projections are drawn from the numbers of their results."""

from __future__ import annotations

import numpy as np
import pytest

import subspace
from subspace.errors import InconclusiveError
from subspace.plots import projections, spectra

_RNG = np.random.default_rng(0)


def _factors(modules, *, zero=False):
    factors = {}
    for module in modules:
        factors[f"{module}.lora_A"] = _RNG.standard_normal((4, 16))
        factors[f"{module}.lora_B"] = _RNG.standard_normal((16, 4)) * (not zero)
    return factors


@pytest.fixture
def amplified():
    modules = ["m.$x_{", "m.b"]
    W = {f"{module}.weight": _RNG.standard_normal((16, 16)) for module in modules}
    return subspace.amplify(W, _factors(modules), ranks=[2, 4])


def test_spectra_are_those_of_the_result():
    found = subspace.inspect(_factors(["a", "b", "c"]), scale=2.0)
    axes = found.plot()
    assert axes.get_yscale() == "log"
    for line, row in zip(axes.lines, found.modules, strict=True):
        np.testing.assert_allclose(line.get_ydata(), row.S / row.S[0])


def test_projections_are_those_of_the_largest_rank(amplified):
    axes = amplified.plot()
    own, mine = (line.get_ydata() for line in axes.lines[:2])
    last = [module.ranks[-1] for module in amplified.modules]
    assert [rank.r for rank in last] == [4, 4]
    np.testing.assert_allclose(own, [rank.proj_W for rank in last])
    np.testing.assert_allclose(mine, [rank.proj_delta_W for rank in last])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["$x_{", "b"]


def test_they_can_be_rendered_and_drawn_on_given_axes(amplified):
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    assert projections(amplified, ax=ax) is ax
    assert amplified.plot().figure._repr_png_().startswith(b"\x89PNG")


def test_nothing_to_draw_is_said():
    with pytest.raises(InconclusiveError, match="trained module"):
        spectra(subspace.inspect(_factors(["a"], zero=True)))
