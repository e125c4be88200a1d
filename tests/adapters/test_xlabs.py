"""XLabs' Flux files, laid out as x-flux saves its attention processors."""

from __future__ import annotations

import numpy as np
import pytest

from subspace.adapters import load_adapter
from subspace.errors import ShapeError

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def xlabs(block, layer, stream, *, d_in=6, d_out=5):
    path = f"{block}.processor.{layer}_lora{stream}"
    return {f"{path}.down.weight": normal(2, d_in), f"{path}.up.weight": normal(d_out, 2)}


@pytest.mark.parametrize(
    ("block", "layer", "stream", "module", "rows"),
    [
        ("double_blocks.0", "qkv", "1", "double_blocks.0.img_attn.qkv", None),
        ("double_blocks.11", "proj", "1", "double_blocks.11.img_attn.proj", None),
        ("double_blocks.0", "qkv", "2", "double_blocks.0.txt_attn.qkv", None),
        ("double_blocks.0", "proj", "2", "double_blocks.0.txt_attn.proj", None),
        ("single_blocks.7", "qkv", "", "single_blocks.7.linear1[qkv]", (0, 5)),
        ("single_blocks.7", "proj", "", "single_blocks.7.linear2", None),
    ],
)
def test_xlabs_processors_are_flux_layers(block, layer, stream, module, rows):
    tensors = xlabs(block, layer, stream)
    adapter = load_adapter(tensors)
    down, up = tensors.values()
    assert (adapter.format, list(adapter)) == ("xlabs", [module])
    # LoRALinearLayer.forward without network_alpha: up(down(x))
    assert adapter[module].delta_W() == pytest.approx(up @ down, rel=1e-5, abs=1e-6)
    assert (adapter[module].rows, adapter[module].scale.value) == (rows, 1)


def test_xlabs_half_a_pair_is_an_error():
    tensors = xlabs("double_blocks.0", "qkv", "1") | xlabs("double_blocks.0", "proj", "1")
    del tensors["double_blocks.0.processor.qkv_lora1.up.weight"]
    with pytest.raises(ShapeError, match=r"up is missing for module .*, which has down"):
        load_adapter(tensors)
