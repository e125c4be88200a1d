"""One unnamed matrix is the base of one module, never of whichever asks first."""

from __future__ import annotations

import numpy as np
import pytest

import subspace
from subspace.errors import FormatError

_RNG = np.random.default_rng(0)


def _pair(name):
    return {f"{name}.lora_A": _RNG.standard_normal((2, 6)), f"{name}.lora_B": _RNG.standard_normal((6, 2))}


def test_it_serves_a_single_module():
    W = _RNG.standard_normal((6, 6))
    result = subspace.amplify(W, _pair("q"), scale=1.0)
    assert result.modules[0].norm_W == pytest.approx(np.linalg.norm(W), rel=1e-12)


@pytest.mark.parametrize("question", [subspace.amplify, subspace.compare])
def test_several_modules_are_refused(question):
    W = subspace.load_base(_RNG.standard_normal((6, 6)))
    with pytest.raises(FormatError, match="a single matrix and the adapter has 2 modules"):
        question(W, {**_pair("q"), **_pair("v")})


def test_float64_weights_stay_float64():
    W = np.eye(6) + 1e-12 * _RNG.standard_normal((6, 6))
    weight = subspace.load_base(W).weight(subspace.load_adapter(_pair("q"))["q"])
    assert np.array_equal(weight.matrix(), W)
