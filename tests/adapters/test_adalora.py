"""AdaLoRA: delta_W against PEFT's own `get_delta_weight`, on files that PEFT wrote and on the models themselves."""

from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
import transformers

from subspace.adapters import load_adapter
from subspace.errors import FormatError, ShapeError

pytestmark = pytest.mark.filterwarnings(r"ignore:::peft\..*")


class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q = torch.nn.Linear(8, 6)
        self.v = torch.nn.Linear(8, 8)
        self.conv = torch.nn.Conv2d(3, 4, (2, 3))
        self.c_attn = transformers.pytorch_utils.Conv1D(9, 8)


def adapted(*targets, **options):
    torch.manual_seed(0)
    config = peft.AdaLoraConfig(
        target_modules=list(targets), init_r=4, target_r=2, total_step=10, lora_alpha=6, **options
    )
    model = peft.get_peft_model(Toy(), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    return model


def deltas(model):
    """Module -> PEFT's delta as (d_out, d_in)."""
    found = {}
    for name, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            delta = layer.get_delta_weight("default").detach().double().numpy()
            turned = getattr(layer, "fan_in_fan_out", False)
            found[name.removeprefix("base_model.model.")] = (
                delta.T if turned else delta.reshape(len(delta), -1)
            )
    return found


def assert_equal(adapter, expected):
    assert set(adapter) == set(expected)
    for name, delta in expected.items():
        assert np.abs(adapter[name].delta_W() - delta).max() <= 1e-6 * np.abs(delta).max()


@pytest.mark.parametrize("targets", [("q", "v"), ("conv",)])
def test_a_file_gives_back_what_peft_adds(tmp_path, targets):
    model = adapted(*targets)
    model.save_pretrained(tmp_path)
    adapter = load_adapter(tmp_path)
    assert (adapter.format, adapter.ignored, adapter.unknown) == ("adalora", (), ())
    assert_equal(adapter, deltas(model))
    assert_equal(load_adapter(model), deltas(model))


def test_conv1d_of_gpt2_keeps_linear_orientation(tmp_path):
    model = adapted("c_attn", fan_in_fan_out=True)
    model.save_pretrained(tmp_path)
    adapter = load_adapter(tmp_path)
    assert adapter["c_attn"].fan_in_fan_out is True
    assert_equal(adapter, deltas(model))


def test_a_rank_that_was_pruned_leaves_the_scale(tmp_path):
    model = adapted("q", "v")
    with torch.no_grad():
        model.base_model.model.q.lora_E["default"][[1, 3]] = 0
        model.base_model.model.v.lora_E["default"][:] = 0
    model.peft_config["default"].rank_pattern = {
        "q.lora_E": [True, False, True, False],
        "v.lora_E": [False] * 4,
    }
    expected = deltas(model)["q"]
    with pytest.warns(UserWarning, match="LoRA tensor"):
        model.save_pretrained(tmp_path)
    adapter = load_adapter(tmp_path)
    assert adapter["q"].r == 2
    assert adapter["q"].scale.value == pytest.approx(6 / (4 + 1e-5))
    assert_equal(adapter, {"q": expected})
    assert {entry.why for entry in adapter.ignored} == {"of a module that AdaLoRA pruned to rank 0"}
    assert len(adapter.ignored) == 3


def test_zeros_of_e_are_zero_directions():
    model = adapted("q")
    with torch.no_grad():
        model.base_model.model.q.lora_E["default"][1:] = 0
    assert np.linalg.matrix_rank(load_adapter(model)["q"].delta_W()) == 1


@pytest.mark.parametrize("alpha", [0, -1])
def test_no_alpha_stands_for_r(tmp_path, alpha):
    model = adapted("q")
    model.base_model.model.q.update_layer("default", 4, alpha, config=model.peft_config["default"])
    model.peft_config["default"].lora_alpha = alpha
    with torch.no_grad():
        model.base_model.model.q.lora_E["default"].normal_()
    model.save_pretrained(tmp_path)
    assert_equal(load_adapter(tmp_path), deltas(model))


def tensors():
    return {
        "base_model.model.q.lora_A": np.ones((2, 4), "f4"),
        "base_model.model.q.lora_B": np.ones((3, 2), "f4"),
        "base_model.model.q.lora_E": np.ones((2, 1), "f4"),
    }


def test_without_a_configuration_the_scale_is_unknown():
    adapter = load_adapter(tensors())
    assert adapter["q"].scale.value is None
    assert any("scale is unknown" in note for note in adapter.notes)


@pytest.mark.parametrize("part", ["A", "B", "E"])
def test_a_part_that_is_missing_is_an_error(part):
    left = tensors() | {key.replace(".q.", ".v."): value for key, value in tensors().items()}
    del left[f"base_model.model.q.lora_{part}"]
    with pytest.raises(ShapeError, match=f"^Incomplete pair: lora_{part} is missing for module q of"):
        load_adapter(left)


def test_an_e_of_another_rank_is_an_error():
    with pytest.raises(ShapeError, match="E does not have one number per row of A"):
        load_adapter(tensors() | {"base_model.model.q.lora_E": np.ones((3, 1), "f4")})


def test_two_adapters_are_asked_for():
    named = {
        f"{key}.{name}": value * (1 + n)
        for n, name in enumerate(("one", "two"))
        for key, value in tensors().items()
    }
    with pytest.raises(FormatError, match=r"2 adapters in .*: one, two; choose one with `adapter_name`"):
        load_adapter(named)
    assert load_adapter(named, adapter_name="two")["q"].A[0, 0] == 4


def test_a_published_file(real_adapters):
    (update,) = load_adapter(real_adapters / "peft-adalora-mlp-0.6.1").values()
    assert (update.module, update.r, update.d_in, update.d_out) == ("lin0", 12, 10, 20)
    assert update.scale.value == pytest.approx(8 / 12, rel=1e-5)
