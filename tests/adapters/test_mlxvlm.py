"""mlx-vlm files, laid out as its trainer writes them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from subspace.adapters import load_adapter
from subspace.errors import FormatError

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def mlx_vlm(folder, keys, config):
    tensors = dict(zip(keys, (normal(6, 4), normal(4, 5)), strict=True))
    save_file(tensors, folder / "adapters.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return tensors


@pytest.mark.parametrize(
    "keys", [("m.q_proj.A", "m.q_proj.B"), ("m.q_proj.lora_A.x.weight", "m.q_proj.lora_B.x.weight")]
)
def test_mlx_vlm_multiplies_by_alpha(tmp_path, keys):
    A, B = mlx_vlm(tmp_path, keys, {"rank": 4, "alpha": 0.1, "dropout": 0.1}).values()
    adapter = load_adapter(tmp_path)
    assert (adapter.format, list(adapter)) == ("mlxvlm", ["m.q_proj"])
    # LoRaLayer.__call__: alpha * (x @ A) @ B
    assert adapter["m.q_proj"].delta_W() == pytest.approx(0.1 * (A @ B).T, rel=1e-5, abs=1e-7)


def test_mlx_vlm_keys_without_its_configuration_are_a_pair():
    adapter = load_adapter({"m.q_proj.A": normal(6, 4), "m.q_proj.B": normal(4, 5)})
    assert (adapter.format, adapter["m.q_proj"].scale.value) == ("pair", None)


@pytest.mark.parametrize(
    ("config", "said"),
    [({"rank": 8, "alpha": 0.1}, "different ranks"), ({"rank": 4, "alpha": "x"}, "a positive number")],
)
def test_mlx_vlm_configuration_that_does_not_fit_is_an_error(tmp_path, config, said):
    mlx_vlm(tmp_path, ("q.A", "q.B"), config)
    with pytest.raises(FormatError, match=said):
        load_adapter(tmp_path)
