"""The lines of the chart of `explain` are the numbers of its result."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

import subspace
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.plots import explained_shares


def _explained(base=True):
    rng = np.random.default_rng(0)
    factors, W = {}, {}
    for layer in range(3):
        for kind in ("q_proj", "v_proj"):
            module = f"layers.{layer}.self_attn.{kind}"
            factors[f"{module}.lora_A"] = rng.standard_normal((3, 16))
            factors[f"{module}.lora_B"] = rng.standard_normal((20, 3))
            W[f"{module}.weight"] = rng.standard_normal((20, 16))
    return subspace.explain(factors, base=W if base else None, leading=4)


def test_a_line_for_each_kind_of_module_with_its_shares_and_chance():
    result = _explained()
    axes = result.plot()
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) == {"self_attn.q_proj", "self_attn.v_proj", "isotropic random directions"}
    for kind in ("q_proj", "v_proj"):
        shares = [result[f"layers.{layer}.self_attn.{kind}", 1].W_share for layer in range(3)]
        line = lines[f"self_attn.{kind}"]
        assert list(line.get_xdata()) == [0, 1, 2]
        np.testing.assert_allclose(line.get_ydata(), shares)
    assert lines["isotropic random directions"].get_ydata()[0] == 4 / 16
    assert "leading 4 right singular vectors of W" in axes.get_ylabel()
    own = Figure().add_subplot()
    assert explained_shares(result, share="W", ax=own) is own


def test_a_share_that_is_not_known_or_not_there_is_an_error():
    with pytest.raises(ValueRangeError, match="Unknown share 'w'"):
        explained_shares(_explained(), share="w")
    for result, share in ((_explained(), "mean"), (_explained(base=False), None)):
        with pytest.raises(InconclusiveError, match="no share to draw"):
            explained_shares(result, share=share)
