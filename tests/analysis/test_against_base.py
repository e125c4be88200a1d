"""Which modules of an adapter a question about base weights is asked of."""

import numpy as np
import pytest

from subspace.analysis.amplify import amplify
from subspace.errors import ValueRangeError


def _files():
    rng = np.random.default_rng(0)
    base, adapter = {}, {}
    for layer in (0, 1, 10):
        for name in ("q_proj", "v_proj"):
            module = f"layers.{layer}.{name}"
            base[f"{module}.weight"] = rng.standard_normal((12, 10))
            adapter[f"{module}.lora_A.weight"] = rng.standard_normal((2, 10))
            adapter[f"{module}.lora_B.weight"] = rng.standard_normal((12, 2))
    return base, adapter


def _measured(**scope):
    base, adapter = _files()
    return [row.module for row in amplify(base, adapter, scale=1.0, **scope)]


def test_modules_and_layers_choose_what_is_measured():
    assert _measured(modules=["*.q_proj"]) == ["layers.0.q_proj", "layers.1.q_proj", "layers.10.q_proj"]
    assert _measured(layers=[1]) == ["layers.1.q_proj", "layers.1.v_proj"]
    assert _measured(modules=["*.v_proj"], layers=[0, 10]) == ["layers.0.v_proj", "layers.10.v_proj"]


def test_a_module_out_of_scope_is_never_read():
    base, adapter = _files()
    base["layers.0.q_proj.weight"][:] = np.nan
    assert (
        amplify(base, adapter, scale=1.0, layers=[1]).notes
        == amplify(base, adapter, scale=1.0, layers=[10]).notes
    )


def test_progress_counts_the_modules_in_scope():
    base, adapter = _files()
    seen = []
    amplify(base, adapter, scale=1.0, layers=[1], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize("scope", [{"modules": ["*.k_proj"]}, {"layers": [2]}])
def test_a_scope_without_a_module_is_an_error_that_says_what_there_is(scope):
    with pytest.raises(ValueRangeError, match=r"No module matches .*; there are layers\.0\.q_proj"):
        _measured(**scope)
