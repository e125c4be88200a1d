"""cloneofsimo/lora files, laid out as lora_diffusion/lora.py writes them (save_safeloras, save_lora_weight)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from subspace.adapters import load_adapter
from subspace.errors import FormatError, ShapeError
from subspace.geometry import factored

RNG = np.random.default_rng(0)


def up_and_down(r=2, d_in=6, d_out=5):
    return (RNG.standard_normal((d_out, r)).astype("f4"), RNG.standard_normal((r, d_in)).astype("f4"))


def safeloras(path, layers, **metadata):
    tensors, told = {}, {"unet": json.dumps(["CrossAttention"])}
    for name, (up, down) in layers.items():
        tensors |= {f"{name}:up": up, f"{name}:down": down}
        told[f"{name}:rank"] = str(down.shape[0])
    save_file(tensors, path, metadata=told | {"<s1>": "<embed>"} | metadata)
    return path


def test_safetensors_give_back_what_the_loader_applies(tmp_path):
    layers = {f"unet:{n}": up_and_down(r=1 + n % 3) for n in range(12)} | {"text_encoder:3": up_and_down()}
    adapter = load_adapter(safeloras(tmp_path / "lora.safetensors", layers))
    assert adapter.format == "cloneofsimo"
    assert list(adapter) == ["text_encoder:3", *(f"unet:{n}" for n in range(12))]
    for name, (up, down) in layers.items():
        # LoraInjectedLinear.forward: linear(x) + lora_up(lora_down(x)) * scale, and scale is 1.0
        assert adapter[name].delta_W() == pytest.approx(up @ down, rel=1e-5)
        assert (adapter[name].r, adapter[name].scale.value) == (down.shape[0], 1)
    assert (adapter.ignored, adapter.unknown) == ((), ())
    assert len(adapter.notes) == 1


def test_embeddings_beside_are_ignored_with_why():
    up, down = up_and_down()
    tensors = {"unet:0:up": up, "unet:0:down": down, "<s1>": np.ones(8, "f4"), "odd": np.ones(8, "f4")}
    adapter = load_adapter(tensors)
    assert [(entry.key, "textual inversion" in entry.why) for entry in adapter.ignored] == [("<s1>", True)]
    assert adapter.unknown == ("odd",)


def test_ranks_of_the_metadata_that_are_wrong_are_said(tmp_path):
    path = safeloras(tmp_path / "lora.safetensors", {"unet:0": up_and_down()}, **{"unet:0:rank": "4"})
    assert "another rank than the factors have for 1 module (" in load_adapter(path).notes[-1]


def test_a_list_is_told_by_its_shapes(tmp_path):
    pairs = [up_and_down() for _ in range(11)]
    torch.save([torch.from_numpy(each) for pair in pairs for each in pair], tmp_path / "lora.pt")
    adapter = load_adapter(tmp_path / "lora.pt")
    assert list(adapter) == [str(n) for n in range(11)]
    for n, (up, down) in enumerate(pairs):
        assert adapter[str(n)].delta_W() == pytest.approx(up @ down, rel=1e-5)


@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 6), (5, 2)],  # down before up: the rank would be 6 of 5
        [(5, 2), (2, 6), (5, 2)],
        [(5, 2), (3, 6)],
        [(5,), (5,)],
    ],
)
def test_another_list_is_not_taken_for_one(shapes):
    tensors = {str(n): np.ones(shape, "f4") for n, shape in enumerate(shapes)}
    with pytest.raises(FormatError, match="a list without names"):
        load_adapter(tensors)


@pytest.mark.parametrize(("has", "lacks"), [("up", "down"), ("down", "up")])
def test_half_a_pair_is_an_error(has, lacks):
    with pytest.raises(ShapeError, match=f"{lacks} is missing for module .*, which has {has}"):
        load_adapter({f"unet:0:{has}": np.ones((2, 3), "f4"), "<s1>": np.ones(3, "f4")})


@pytest.mark.parametrize(
    ("name", "file", "modules"),
    [
        ("cloneofsimo-disney-r1-ti", "lora_disney.safetensors", 192),
        ("cloneofsimo-kiriko2-te-list-pt", "lora_kiriko2.text_encoder.pt", 48),
    ],
)
def test_published_files(real_adapters, name, file, modules):
    manifest = json.loads((real_adapters / "MANIFEST.json").read_text())
    (entry,) = (entry for entry in manifest if entry["name"] == name)
    adapter = load_adapter(real_adapters / name / file)
    norms = [factored.norm(update.B, update.A) for update in adapter.values()]
    assert (len(adapter), adapter.unknown) == (modules, ())
    assert sorted({update.r for update in adapter.values()}) == entry["ranks"]
    assert [min(norms), max(norms)] == pytest.approx(entry["dW_fro_minmax_unscaled"], rel=1e-6)


def test_an_embedding_alone_is_no_adapter(real_adapters):
    with pytest.raises(FormatError, match="a textual inversion embedding, not an adapter"):
        load_adapter(real_adapters / "cloneofsimo-kiriko2-ti-pt" / "lora_kiriko2.ti.pt")
