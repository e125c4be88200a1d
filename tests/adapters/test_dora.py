"""The whole change of a DoRA against the weights that PEFT merges."""

from __future__ import annotations

import copy

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import save_file

from subspace.adapters import load_adapter, load_base
from subspace.adapters.dora import norm_whole, whole_change
from subspace.analysis.amplify import amplify
from subspace.analysis.inspect import inspect

pytestmark = pytest.mark.filterwarnings(r"ignore:::peft\..*")


class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = torch.nn.Linear(12, 9)
        self.square = torch.nn.Linear(8, 8)
        self.conv = torch.nn.Conv2d(4, 6, 3)
        self.emb = torch.nn.Embedding(11, 5)


TARGETS = ["lin", "square", "conv", "emb"]


@pytest.fixture
def saved(tmp_path):
    """A saved DoRA whose magnitudes were trained too, its base, and W' - W, (d_out, d_in)."""
    torch.manual_seed(0)
    model = Toy()
    before = copy.deepcopy(model)
    save_file(before.state_dict(), tmp_path / "base.safetensors")
    wrapped = peft.get_peft_model(
        model, peft.LoraConfig(r=3, lora_alpha=6, use_dora=True, target_modules=TARGETS)
    )
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "magnitude" in name:
                parameter.mul_(1.5)
            elif "lora_" in name:
                parameter.normal_()
    wrapped.save_pretrained(tmp_path / "dora")
    merged = wrapped.merge_and_unload()
    changes = {}
    for name in TARGETS:
        change = (getattr(merged, name).weight - getattr(before, name).weight).detach().double().numpy()
        changes[name] = change.T if name == "emb" else change.reshape(len(change), -1)
    return tmp_path / "dora", tmp_path / "base.safetensors", changes


def test_the_whole_change_is_what_peft_merges(saved):
    path, base, changes = saved
    read, weights = load_adapter(path), load_base(base)
    for name, change in changes.items():
        weight = weights.weight(read[name])
        m = read.tensors.read(f"base_model.model.{name}.lora_magnitude_vector").reshape(-1)
        got = whole_change(weight.factor().load(), read[name].delta_W(), m)
        np.testing.assert_allclose(got, change, rtol=0, atol=2e-6 * np.abs(change).max())
        assert norm_whole(read[name], read, weight) == pytest.approx(np.linalg.norm(change), rel=1e-6)


def test_inspect_and_amplify_report_it_beside_the_direction_part(saved):
    path, base, changes = saved
    for found in (inspect(path, base=base), amplify(base, path)):
        rows = {row.module: row for row in found.modules}
        for name, change in changes.items():
            assert rows[name].norm_whole == pytest.approx(np.linalg.norm(change), rel=1e-6)
            assert "dora" in rows[name].flags
        assert any("norm_whole" in note for note in found.notes)
    assert {row.norm_whole for row in inspect(path).modules} == {None}


def test_magnitudes_of_columns(tmp_path):
    # OneTrainer's dora_scale is (1, in)
    rng = np.random.default_rng(0)
    W, A, B, m = (rng.standard_normal(shape).astype("f4") for shape in [(5, 5), (2, 5), (5, 2), (1, 5)])
    tensors = {"q.lora_down.weight": A, "q.lora_up.weight": B, "q.dora_scale": m}
    (row,) = amplify(W, tensors).modules
    V = W.astype(float) + B.astype(float) @ A
    change = m * V / np.linalg.norm(V, axis=0) - W
    assert row.norm_whole == pytest.approx(np.linalg.norm(change), rel=1e-6)


def test_magnitudes_that_do_not_fit_give_no_number():
    tensors = {
        "q.lora_down.weight": np.ones((1, 4)),
        "q.lora_up.weight": np.ones((3, 1)),
        "q.dora_scale": np.ones((7, 1)),
    }
    (row,) = amplify(np.ones((3, 4)), tensors).modules
    assert row.norm_whole is None
