"""loralib's own layers as the oracle: what they merge into their weights is what is read from their files."""

from __future__ import annotations

import itertools
import zipfile

import loralib as lora
import numpy as np
import pytest
import torch

from subspace.adapters import load_adapter, load_base
from subspace.errors import FormatError, InconclusiveError, ShapeError

SUBSETS = [on for on in itertools.product((True, False), repeat=3) if any(on)]


def randomised(layer, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    return layer


def merged_delta(layer, weight):
    """What eval() adds to a layer's weight."""
    before = weight().detach().clone().double()
    layer.train(False)
    return (weight().detach().double() - before).numpy()


class Model(torch.nn.Module):
    def __init__(self, enable=(True, False, True), fan=False):
        super().__init__()
        self.attn = lora.MergedLinear(
            8, 12, r=2, lora_alpha=6, enable_lora=list(enable), fan_in_fan_out=fan, bias=False
        )
        self.fc = lora.Linear(8, 5, r=3, lora_alpha=4)
        self.emb = lora.Embedding(11, 8, r=2, lora_alpha=4)
        self.conv = lora.Conv2d(4, 6, kernel_size=3, r=2, lora_alpha=4)
        self.plain = torch.nn.Linear(5, 5)


def saved(model, path, bias="none"):
    torch.save(lora.lora_state_dict(model, bias=bias), path)
    return path


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
def test_file_of_every_layer(bias, tmp_path):
    model = randomised(Model())
    read = load_adapter(saved(model, tmp_path / "lora.pt", bias), enable_lora=(1, 0, 1), scale=2.0)
    assert read.format == "loralib"
    assert read.unknown == ()
    assert set(read) == {"attn[q]", "attn[v]", "fc", "emb", "conv"}
    delta = {name: read[name].delta_W() / 2 for name in read}
    np.testing.assert_allclose(
        delta["fc"] * model.fc.scaling, merged_delta(model.fc, lambda: model.fc.weight), atol=1e-5
    )
    np.testing.assert_allclose(
        delta["emb"].T * model.emb.scaling, merged_delta(model.emb, lambda: model.emb.weight), atol=1e-5
    )
    merged = merged_delta(model.conv, lambda: model.conv.conv.weight)
    np.testing.assert_allclose(delta["conv"].reshape(6, 4, 3, 3) * model.conv.scaling, merged, atol=1e-5)


@pytest.mark.parametrize("fan", [False, True])
@pytest.mark.parametrize("enable", SUBSETS, ids=str)
def test_merged_linear_is_split_into_its_groups(enable, fan, tmp_path):
    model = randomised(Model(enable, fan))
    torch.save({k: v for k, v in lora.lora_state_dict(model).items() if "attn" in k}, tmp_path / "lora.pt")
    read = load_adapter(tmp_path / "lora.pt", enable_lora=enable, scale=model.attn.scaling)
    base = {"attn.weight": model.attn.weight.detach().clone()}
    whole = merged_delta(model.attn, lambda: model.attn.weight)
    whole = whole.T if fan else whole
    assert {name[-2] for name in read} == {part for part, on in zip("qkv", enable, strict=True) if on}
    covered = np.zeros_like(whole)
    for name, update in read.items():
        start, stop = update.rows
        assert update.r == 2
        assert (start, stop) == ("qkv".index(name[-2]) * 4, "qkv".index(name[-2]) * 4 + 4)
        np.testing.assert_allclose(update.delta_W(), whole[start:stop], atol=1e-5)
        covered[start:stop] = whole[start:stop]
        weight = load_base(base).weight(update)
        expected = (base["attn.weight"].T if fan else base["attn.weight"])[start:stop].numpy()
        np.testing.assert_array_equal(weight.matrix().T if weight.transposed else weight.matrix(), expected)
        assert weight.transposed == fan
    np.testing.assert_array_equal(covered, whole)


def test_groups_that_the_file_does_not_name(tmp_path):
    read = load_adapter(saved(randomised(Model()), tmp_path / "lora.pt"))
    assert {"attn[0]", "attn[1]"} <= set(read)
    assert read["attn[0]"].flags == ("fused", "group_unknown")
    with pytest.raises(InconclusiveError, match="`enable_lora`"):
        load_base({"attn.weight": np.zeros((12, 8))}).weight(read["attn[0]"])


def test_groups_of_another_number(tmp_path):
    with pytest.raises(
        FormatError, match=r"adapted groups in `enable_lora` than in the factors: 3 and .*attn"
    ):
        load_adapter(saved(randomised(Model()), tmp_path / "lora.pt"), enable_lora=(1, 1, 1))


def test_live_model_knows_scale_and_groups_of_each_layer():
    model = torch.nn.ModuleDict(
        {"a": Model((True, False, True)), "b": Model((False, False, True)), "c": Model((True, True, True))}
    )
    randomised(model)
    read = load_adapter(model)
    assert read.unknown == ()
    assert {name for name in read if "attn" in name} == {
        *("a.attn[q]", "a.attn[v]", "b.attn[v]", "c.attn[q]", "c.attn[k]", "c.attn[v]")
    }
    for name, part in model.items():
        whole = merged_delta(part.attn, lambda part=part: part.attn.weight)
        got = np.zeros_like(whole)
        for letter, start in zip("qkv", (0, 4, 8), strict=True):
            if f"{name}.attn[{letter}]" in read:
                got[start : start + 4] = read[f"{name}.attn[{letter}]"].delta_W()
        np.testing.assert_allclose(got, whole, atol=1e-5)
        np.testing.assert_allclose(
            read[f"{name}.fc"].delta_W(), merged_delta(part.fc, lambda part=part: part.fc.weight), atol=1e-5
        )
        assert read[f"{name}.fc"].scale.source == "module"


def test_a_live_model_is_its_own_base():
    model = randomised(Model())
    read, base = load_adapter(model), load_base(model)
    for update in read.values():
        assert base.weight(update) is not None
    weight = base.weight(read["conv"])
    np.testing.assert_array_equal(
        weight.matrix().reshape(6, 4, 3, 3), model.conv.conv.weight.detach().numpy()
    )
    assert base.weight(read["emb"]).transposed


def test_saved_on_a_cuda_device(tmp_path):
    """The location of every storage is rewritten as a GPU's would be."""
    path = saved(randomised(Model()), tmp_path / "cpu.pt")
    with zipfile.ZipFile(path) as there, zipfile.ZipFile(tmp_path / "cuda.pt", "w") as here:
        for member in there.infolist():
            data = there.read(member)
            if member.filename.endswith("data.pkl"):
                assert data.count(b"X\x03\x00\x00\x00cpu") == 1
                data = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            here.writestr(member, data)
    one, other = load_adapter(path, scale=1.0), load_adapter(tmp_path / "cuda.pt", scale=1.0)
    for name in one:
        np.testing.assert_array_equal(one[name].delta_W(), other[name].delta_W())


@pytest.mark.parametrize("key", ["attn.lora_A", "fc.lora_B"])
def test_half_a_pair(key, tmp_path):
    state = lora.lora_state_dict(Model())
    del state[key]
    torch.save(state, tmp_path / "lora.pt")
    with pytest.raises(ShapeError, match=f"module {key.partition('.')[0]} of .*lora.pt"):
        load_adapter(tmp_path / "lora.pt")
