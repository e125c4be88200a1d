"""torchtune files, laid out as its checkpointers write them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from subspace.adapters import load_adapter
from subspace.errors import ShapeError

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def torchtune(module="layers.0.attn.q_proj"):
    return {f"{module}.lora_a.weight": normal(4, 6), f"{module}.lora_b.weight": normal(5, 4)}


def test_torchtune_gives_back_what_it_adds(tmp_path):
    tensors = torchtune() | torchtune("layers.10.attn.q_proj") | torchtune("layers.2.attn.q_proj")
    torch.save({key: torch.from_numpy(value) for key, value in tensors.items()}, tmp_path / "adapter_0.pt")
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"r": 4, "lora_alpha": 8, "peft_type": "LORA", "target_modules": ["q_proj"]})
    )
    adapter = load_adapter(tmp_path)
    update = adapter["layers.0.attn.q_proj"]
    a, b = list(tensors.values())[:2]
    assert adapter.format == "torchtune"
    assert list(adapter) == [f"layers.{n}.attn.q_proj" for n in (0, 2, 10)]
    # LoRALinear.forward: (alpha / rank) * lora_b(lora_a(x))
    assert update.delta_W() == pytest.approx((8 / 4) * b @ a, rel=1e-5, abs=1e-6)
    assert (adapter.ignored, adapter.unknown) == ((), ())


def test_torchtune_dora_and_a_scale_that_is_unknown():
    adapter = load_adapter(torchtune() | {"layers.0.attn.q_proj.magnitude": np.ones(5, "f4")})
    assert adapter["layers.0.attn.q_proj"].flags == ("dora",)
    assert adapter["layers.0.attn.q_proj"].scale.value is None
    assert adapter.unknown == ()


@pytest.mark.parametrize(("has", "lacks"), [("a", "b"), ("b", "a")])
def test_torchtune_half_a_pair_is_an_error(has, lacks):
    tensors = torchtune()
    del tensors[f"layers.0.attn.q_proj.lora_{lacks}.weight"]
    with pytest.raises(
        ShapeError, match=f"^Incomplete pair: lora_{lacks} is missing .*, which has lora_{has};"
    ):
        load_adapter(tensors)
