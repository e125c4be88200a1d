"""Real models of PEFT and loralib in the wrappers of torch: read in memory, saved, and written for PEFT to load."""

from __future__ import annotations

from collections import OrderedDict

import loralib as lora
import numpy as np
import peft
import pytest
import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from subspace.adapters import load_adapter, load_base
from subspace.analysis.convert import convert


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.fc = torch.nn.Linear(8, 8), torch.nn.Linear(8, 6)


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.h = torch.nn.ModuleList([Block(), Block()])


class Parallel(torch.nn.Module):
    """A module that holds a model as DistributedDataParallel and DeepSpeed do, which need processes."""

    def __init__(self, model):
        super().__init__()
        self.module = model


def compiled(model):
    return torch.compile(model, backend="eager")  # nothing is run, so no compiler is needed


def with_base_model(model, wrap):
    model.base_model = wrap(model.base_model)
    return model


def with_block(model, wrap):
    model.base_model.model.h[1] = wrap(model.base_model.model.h[1])
    return model


def with_factor(model, wrap):
    layer = model.base_model.model.h[0].q.lora_A
    layer["default"] = wrap(layer["default"])
    return model


WRAPPED = {
    "compiled": compiled,
    "in parallel": Parallel,
    "both": lambda model: Parallel(compiled(model)),
    "base_model compiled": lambda model: with_base_model(model, compiled),
    "block compiled": lambda model: with_block(model, compiled),
    "block checkpointed": lambda model: with_block(model, checkpoint_wrapper),
    "factor checkpointed and compiled": lambda model: with_factor(compiled(model), checkpoint_wrapper),
}


def adapted(model=None):
    """A model of PEFT with a pattern for one layer and another scale set in a second one."""
    torch.manual_seed(3)
    pattern = (
        "^h.0.q" if model is None else "h.0.q"
    )  # PEFT sees the words of a wrapper that was there before it
    config = peft.LoraConfig(target_modules=["q", "fc"], r=2, lora_alpha=4, alpha_pattern={pattern: 10})
    model = peft.get_peft_model(Network() if model is None else model, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    next(layer for name, layer in model.named_modules() if name.endswith("1.fc")).scaling["default"] = 7.0
    return model


def same(read, plain):
    assert list(read) == list(plain) == ["h.0.fc", "h.0.q", "h.1.fc", "h.1.q"]
    assert read.format == plain.format == "peft"
    assert read.unknown == plain.unknown == ()
    for module, update in plain.items():
        assert read[module].scale.value == update.scale.value
        assert np.array_equal(read[module].A, update.A)
        assert np.array_equal(read[module].B, update.B)


@pytest.mark.parametrize("how", WRAPPED)
def test_a_wrapped_model_of_peft(how):
    plain, model = adapted(), WRAPPED[how](adapted())
    read = load_adapter(model)
    same(read, load_adapter(plain))
    assert read["h.1.fc"].scale.value == 7.0  # as its layer has it, not as the configuration
    assert read["h.0.q"].scale.value == 5.0
    base, weights = load_base(model), load_base(plain)
    assert set(base.modules) == set(weights.modules)
    for update in read.values():
        assert np.array_equal(base.weight(update).stored.full(), weights.weight(update).stored.full())


@pytest.mark.parametrize("how", ["compiled", "in parallel", "both"])
def test_peft_over_a_wrapped_model(how):
    read = load_adapter(adapted(WRAPPED[how](Network())))
    assert list(read) == ["h.0.fc", "h.0.q", "h.1.fc", "h.1.q"]
    assert read["h.1.fc"].scale.value == 7.0


@pytest.mark.parametrize("how", WRAPPED)
def test_a_saved_state_dict_is_written_so_that_peft_loads_it(how, tmp_path):
    plain, model = adapted(), WRAPPED[how](adapted())
    plain.save_pretrained(tmp_path / "stored")
    (tmp_path / "stored" / "adapter_model.safetensors").unlink()
    state = OrderedDict((key, value) for key, value in model.state_dict().items() if "lora_" in key)
    torch.save(state, tmp_path / "stored" / "adapter_model.bin")
    convert(tmp_path / "stored", to="peft").save(tmp_path / "written")
    loaded = peft.PeftModel.from_pretrained(Network(), tmp_path / "written")
    expected, found = plain.state_dict(), loaded.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected if "lora_" in key)
    assert loaded.base_model.model.h[0].q.scaling == {"default": 5.0}


@pytest.mark.parametrize("wrap", [lambda model: model, Parallel, compiled])
def test_a_wrapped_model_of_loralib(wrap):
    qkv = lora.MergedLinear(6, 15, r=2, lora_alpha=6, enable_lora=[True, False, True])
    layers = torch.nn.Sequential(OrderedDict(q=lora.Linear(6, 5, r=2, lora_alpha=8), qkv=qkv))
    read = load_adapter(wrap(layers))
    assert {name: update.scale.value for name, update in read.items()} == {
        "q": 4.0,
        "qkv[q]": 3.0,
        "qkv[v]": 3.0,
    }


def test_one_wrapped_layer_of_loralib():
    model = Parallel(lora.Linear(6, 5, r=2, lora_alpha=8))
    read = load_adapter(model)
    assert {name: update.scale.value for name, update in read.items()} == {"": 4.0}
    assert load_base(model).weight(read[""]).shape == (5, 6)
