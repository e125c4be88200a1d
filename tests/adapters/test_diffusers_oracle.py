"""diffusers' own conversion to PEFT's keys names and pairs the same modules as our reading of its layouts."""

from __future__ import annotations

import numpy as np
import pytest

import subspace

_BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


def _pair(torch, key, down, up, r=4, d_in=8, d_out=6):
    generator = torch.Generator().manual_seed(len(key))
    return {
        f"{key}.{down}.weight": torch.randn(r, d_in, generator=generator),
        f"{key}.{up}.weight": torch.randn(d_out, r, generator=generator),
    }


@pytest.mark.parametrize(
    ("keys", "down", "up"),
    [
        ([f"{_BLOCK}.processor.to_{x}_lora" for x in ("q", "k", "v", "out")], "down", "up"),
        ([f"unet.{_BLOCK}.to_{x}.lora" for x in ("q", "k", "v", "out.0")], "down", "up"),
    ],
    ids=["attention processors", "unet.*.lora"],
)
def test_names_and_factors_are_those_of_its_conversion(keys, down, up):
    torch = pytest.importorskip("torch")
    conversion = pytest.importorskip("diffusers.utils.state_dict_utils")
    stored = {}
    for key in keys:
        stored.update(_pair(torch, key, down, up))
    converted = conversion.convert_unet_state_dict_to_peft(
        {key.removeprefix("unet."): value for key, value in stored.items()}
    )
    ours = subspace.load_adapter(stored)
    assert len(ours) == len(keys) == len(converted) // 2
    result = subspace.compare(ours, dict(converted), side="all")
    assert not result.only_first and not result.only_second
    assert {row.module.removeprefix("unet.") for row in result.modules} == {
        key.rpartition(".lora_")[0].removesuffix(".lora_A").removesuffix(".lora_B") for key in converted
    }
    for module, update in ours.items():
        name = module.removeprefix("unet.")
        np.testing.assert_array_equal(update.A, converted[f"{name}.lora_A.weight"].numpy())
        np.testing.assert_array_equal(update.B, converted[f"{name}.lora_B.weight"].numpy())
