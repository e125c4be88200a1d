"""LoHa and LoKr of PEFT against PEFT's own `get_delta_weight`, on files that it wrote."""

from __future__ import annotations

import numpy as np
import peft
import pytest
import torch

from subspace.adapters import DenseUpdate, load_adapter
from subspace.errors import FormatError

pytestmark = pytest.mark.filterwarnings(r"ignore:::peft\..*")

TARGETS = ["lin", "square", "conv1", "conv2", "point"]


class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.block = torch.nn.ModuleDict({"lin": torch.nn.Linear(24, 36), "square": torch.nn.Linear(16, 16)})
        self.conv1 = torch.nn.Conv1d(12, 16, 3)
        self.conv2 = torch.nn.Conv2d(12, 16, (3, 2))
        self.point = torch.nn.Conv2d(12, 16, 1)


CONFIGS = {
    "loha": peft.LoHaConfig(r=2, alpha=5, target_modules=TARGETS),
    "loha effective": peft.LoHaConfig(r=2, alpha=5, target_modules=TARGETS, use_effective_conv2d=True),
    "loha patterns": peft.LoHaConfig(
        r=2, alpha=5, target_modules=TARGETS, rank_pattern={"lin": 1}, alpha_pattern={"conv2": 3}
    ),
    "loha dense": peft.LoHaConfig(r=8, alpha=5, target_modules=TARGETS),
    "lokr": peft.LoKrConfig(r=1, alpha=5, target_modules=TARGETS),
    "lokr both": peft.LoKrConfig(r=1, alpha=5, target_modules=TARGETS, decompose_both=True),
    "lokr factor": peft.LoKrConfig(r=2, alpha=5, target_modules=TARGETS, decompose_factor=4),
    "lokr effective": peft.LoKrConfig(
        r=1, alpha=5, target_modules=["conv2", "lin"], use_effective_conv2d=True
    ),
    "lokr full": peft.LoKrConfig(r=8, alpha=5, target_modules=TARGETS),
    "lokr patterns": peft.LoKrConfig(
        r=8, alpha=5, target_modules=TARGETS, rank_pattern={"conv2": 1, "lin": 7}, alpha_pattern={"lin": 3}
    ),
}


def adapted(kind, adapter="default"):
    torch.manual_seed(0)
    model = peft.get_peft_model(Toy(), CONFIGS[kind], adapter_name=adapter)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "hada_" in name or "lokr_" in name:
                parameter.normal_()
    return model


def assert_as_peft(read, model, adapter="default"):
    layers = {
        name.removeprefix("base_model.model."): layer.get_delta_weight(adapter).detach()
        for name, layer in model.named_modules()
        if hasattr(layer, "get_delta_weight")
    }
    assert set(read) == set(layers)
    for name, delta in layers.items():
        wanted = delta.reshape(delta.shape[0], -1).double().numpy()
        np.testing.assert_allclose(read[name].delta_W(), wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_saved_adapter_equals_peft(kind, safe, tmp_path):
    model = adapted(kind)
    model.save_pretrained(tmp_path, safe_serialization=safe)
    read = load_adapter(tmp_path)
    assert (read.format, read.ignored, read.unknown) == ("peft_lycoris", (), ())
    assert_as_peft(read, model)


@pytest.mark.parametrize("kind", CONFIGS)
def test_live_model_equals_peft(kind):
    model = adapted(kind)
    read = load_adapter(model)
    assert read.unknown == ()
    assert_as_peft(read, model)


def test_a_scale_that_was_changed_on_the_model_is_used():
    model = adapted("loha")
    for layer in model.modules():
        if hasattr(layer, "set_scale"):
            layer.set_scale("default", 3.0)
    assert load_adapter(model)["block.lin"].scale.value == pytest.approx(7.5)
    assert_as_peft(load_adapter(model), model)


def test_the_scale_of_full_blocks_is_alpha_over_r(tmp_path):
    adapted("lokr full").save_pretrained(tmp_path)
    update = load_adapter(tmp_path)["block.square"]
    assert isinstance(update, DenseUpdate)
    assert (update.scale.value, update.scale.alpha, update.scale.source) == (5 / 8, 5, "config alpha/r")


def test_without_a_configuration_the_scale_is_unknown(tmp_path):
    adapted("loha").save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    read = load_adapter(tmp_path)
    assert {update.scale.value for update in read.values()} == {None}
    assert any("The scale is unknown" in note for note in read.notes)


def test_ranks_that_disagree_are_an_error(tmp_path):
    adapted("loha").save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(path.read_text().replace('"r": 2', '"r": 3'))
    with pytest.raises(FormatError, match=r"r = 3 in .* and 2 in the factors of module"):
        load_adapter(tmp_path)


def test_one_of_several_adapters_is_chosen():
    model = adapted("loha")
    model.add_adapter("other", peft.LoHaConfig(r=1, alpha=2, target_modules=["lin"]))
    with pytest.raises(FormatError, match="default, other"):
        load_adapter(dict(model.state_dict()))
    read = load_adapter(dict(model.state_dict()), adapter_name="other")
    assert list(read) == ["block.lin"]
    assert {entry.why for entry in read.ignored} >= {"part of the adapter default"}
