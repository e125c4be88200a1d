"""What a run says of merging: the very numbers that `merge` leaves in a model of the base's type."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from subspace.training import inject, merge
from subspace.training.merged_update import merged_line, merged_update, warn_of_loss
from subspace.training.methods.dora import DoRA
from subspace.training.methods.ia3 import IA3
from subspace.training.methods.lora import LoRA


def _model(dtype=torch.bfloat16):
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("q", nn.Linear(24, 20))
    model.add_module("emb", nn.Embedding(30, 24))
    model.add_module("conv", nn.Conv2d(4, 6, 3))
    return model.to(dtype)


def _adapted(model, method=None, size=1e-3):
    inject(model, method or LoRA(r=3, alpha=3), ["q", "emb", "conv"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter.add_(size * torch.randn_like(parameter))
    return model


def _left_by_merge(model):
    """D and delta_W of every layer, by `merge` and in float64."""
    found = {}
    for name in ("q", "emb", "conv"):
        layer = model.get_submodule(name)
        delta_W = layer.delta_weight("default").double().numpy()
        before = layer.weight.detach().double().numpy()
        found[name] = before, delta_W
    merge(model)
    return {
        name: (model.get_submodule(name).weight.detach().double().numpy() - before, delta_W)
        for name, (before, delta_W) in found.items()
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", [LoRA(r=3, alpha=3), DoRA(r=3, alpha=3)])
def test_the_numbers_are_those_of_a_merge_into_a_model_of_that_type(dtype, method):
    model = _adapted(_model(dtype), method)
    found = merged_update(model)
    layers = _left_by_merge(model)
    assert found["dtype"] == str(dtype).removeprefix("torch.") and set(found["modules"]) == set(layers)
    for name, (D, delta_W) in layers.items():
        numbers = found["modules"][name]
        assert numbers["changed"] == np.count_nonzero(D) / D.size
        assert numbers["norm_left"] == pytest.approx(np.linalg.norm(D) / np.linalg.norm(delta_W), rel=1e-6)
    D, delta_W = (
        np.concatenate([each.ravel() for each in side]) for side in zip(*layers.values(), strict=True)
    )
    assert found["changed"] == np.count_nonzero(D) / D.size
    assert found["norm_left"] == pytest.approx(np.linalg.norm(D) / np.linalg.norm(delta_W), rel=1e-6)
    assert found["cosine"] == pytest.approx(
        D @ delta_W / np.linalg.norm(D) / np.linalg.norm(delta_W), rel=1e-6
    )
    json.dumps(found, allow_nan=False)


def test_a_base_of_16_bits_that_was_widened_has_the_type_of_its_numbers():
    narrow = _adapted(_model(), size=1e-2)
    wide = copy.deepcopy(narrow).float()
    assert merged_update(wide) == merged_update(narrow)
    half = _adapted(_model(torch.float16).float())
    assert merged_update(half)["dtype"] == "float16"


def test_a_base_of_float32_has_no_entry():
    assert merged_update(_adapted(_model(torch.float32))) is None
    assert merged_update(_model()) is None


def test_ia3_is_the_change_that_it_merges():
    model = _model()
    inject(model, IA3(), ["q"])
    with torch.no_grad():
        model.q.ia3_l.mul_(1.004)
    found = merged_update(model)["modules"]["q"]
    before = model.q.weight.detach().double().numpy()
    merge(model)
    D = model.q.weight.detach().double().numpy() - before
    assert found["changed"] == np.count_nonzero(D) / D.size


def test_little_left_is_warned_of_and_all_of_it_is_not():
    told = []
    small = merged_update(_adapted(_model(), size=2e-5))
    warn_of_loss(small, told.append)
    assert small["norm_left"] < 0.5 and len(told) == 1
    assert "in bfloat16" in told[0] and "% of the norm" in told[0] and "float32" in told[0]
    large = merged_update(_adapted(_model(), size=0.1))
    warn_of_loss(large, told.append)
    assert large["norm_left"] == pytest.approx(1, abs=0.01) and len(told) == 1
    one = copy.deepcopy(large)
    one["modules"]["q"]["norm_left"] = 0.2
    warn_of_loss(one, told.append)
    assert len(told) == 2 and "in 1 of 3 modules (q)" in told[1]
    warn_of_loss(None, told.append)
    assert len(told) == 2


def test_a_layer_with_nan_is_left_out():
    model = _adapted(_model())
    with torch.no_grad():
        model.q.weight[0, 0] = torch.nan
    assert set(merged_update(model)["modules"]) == {"emb", "conv"}


def test_an_adapter_that_was_not_trained_has_no_norm():
    model = _model()
    inject(model, LoRA(r=3, alpha=3), ["q"])
    found = merged_update(model)
    assert (found["changed"], found["norm_left"], found["cosine"]) == (0, None, None)
    assert merged_line({"merged": found}) is None and merged_line({}) is None
