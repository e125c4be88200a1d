"""minLoRA files, laid out as its parametrizations are."""

from __future__ import annotations

import numpy as np
import pytest

from subspace.adapters import load_adapter
from subspace.errors import ShapeError

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def minlora(module="fc", *, swapped=False, place=0, mask=False, r=4, fan_in=6, fan_out=5):
    """LoRAParametrization of cccntu/minLoRA: swap() turns the shapes of A, B and the mask."""
    turn = (lambda shape: shape[::-1]) if swapped else (lambda shape: shape)
    path = f"{module}.parametrizations.weight.{place}"
    tensors = {
        f"{path}.lora_A": normal(*turn((r, fan_in))),
        f"{path}.lora_B": normal(*turn((fan_out, r))),
    }
    return tensors | ({f"{path}.lora_dropout_mask": np.ones(turn((1, fan_in)), "f4")} if mask else {})


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("square", [False, True])
def test_minlora_gives_back_what_its_forward_adds(swapped, mask, square):
    tensors = minlora(swapped=swapped, mask=mask, fan_out=6 if square else 5)
    A, B = list(tensors.values())[:2]
    adapter = load_adapter(tensors, scale=0.5)
    # lora_forward: X + mm(*swap((B, A))) * scaling, X being (fan_in, fan_out) where swapped
    added = (A @ B).T if swapped else B @ A
    assert (adapter.format, list(adapter)) == ("minlora", ["fc"])
    assert adapter["fc"].fan_in_fan_out is swapped
    assert adapter["fc"].delta_W() == pytest.approx(0.5 * added, rel=1e-5, abs=1e-6)
    assert [entry.why for entry in adapter.ignored] == ["a dropout mask"] * mask
    assert adapter.unknown == ()


def test_minlora_mask_tells_where_the_rank_does_not():
    tensors = minlora(swapped=True, mask=True, r=6, fan_in=6, fan_out=6)
    A, B = list(tensors.values())[:2]
    assert load_adapter(tensors, scale=1.0)["fc"].delta_W() == pytest.approx((A @ B).T, rel=1e-5, abs=1e-6)


def test_minlora_several_on_one_weight_and_the_whole_state_dict():
    tensors = (
        minlora()
        | minlora(place=1)
        | {"fc.parametrizations.weight.original": normal(5, 6), "fc.bias": normal(5)}
    )
    adapter = load_adapter(tensors)
    assert list(adapter) == ["fc[0]", "fc[1]"]
    assert {entry.key for entry in adapter.ignored} == {"fc.parametrizations.weight.original", "fc.bias"}
    assert any("add up" in note for note in adapter.notes)
    assert adapter.unknown == ()


def test_minlora_half_a_pair_is_an_error():
    tensors = minlora() | minlora("other")
    del tensors["fc.parametrizations.weight.0.lora_B"]
    with pytest.raises(ShapeError, match=r"lora_B is missing for module .*, which has lora_A"):
        load_adapter(tensors)
