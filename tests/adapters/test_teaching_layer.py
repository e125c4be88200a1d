"""Whole state dicts that hold the base weights of the layers that they adapt, as small layers written by hand do."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from subspace.adapters import load_adapter, load_base
from subspace.adapters.base.own import own_base
from subspace.adapters.format import Role
from subspace.analysis.amplify import amplify
from subspace.analysis.convert import convert
from subspace.checkpoints import TensorInfo
from subspace.errors import FormatError

CONTAINERS = ("linear", "base", "base_layer", "original", "original_layer", "orig", "wrapped", "layer")
SHAPES = {"layers.0.q": (6, 10), "layers.0.fc": (40, 10), "layers.0.proj": (10, 40), "layers.1.q": (8, 8)}


def layer(name, container="linear", holder="lora.", turned=False, r=2):
    """The tensors of one layer, its base weight, and the update that it applies."""
    rng = np.random.default_rng([*map(ord, name)])
    d_out, d_in = SHAPES[name]
    W, A, B = (rng.standard_normal(size).astype("f4") for size in ((d_out, d_in), (r, d_in), (d_out, r)))
    tensors = {
        f"{name}.{container}.weight" if container else f"{name}.weight": W,
        f"{name}.{container}.bias" if container else f"{name}.bias": np.ones(d_out, "f4"),
        f"{name}.{holder}lora_A": np.ascontiguousarray(A.T) if turned else A,
        f"{name}.{holder}lora_B": np.ascontiguousarray(B.T) if turned else B,
    }
    return tensors, W, B @ A


def network(**options):
    layers = {name: layer(name, **options) for name in SHAPES}
    tensors = {key: value for found, _, _ in layers.values() for key, value in found.items()}
    other = {"embedding.weight": np.ones((3, 4), "f4"), "norm.weight": np.ones(4, "f4")}
    return tensors | other, {name: (W, delta) for name, (_, W, delta) in layers.items()}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("holder", ["lora.", ""])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_frozen_layer_inside_the_adapted_one(container, holder, turned, tmp_path):
    tensors, expected = network(container=container, holder=holder, turned=turned)
    save_file(tensors, tmp_path / "whole.safetensors")
    read, base = (
        load_adapter(tmp_path / "whole.safetensors", scale=2.0),
        load_base(tmp_path / "whole.safetensors"),
    )
    assert sorted(read) == sorted(expected)
    for name, (W, delta) in expected.items():
        assert np.allclose(read[name].delta_W(), 2 * delta, rtol=1e-6)
        assert np.array_equal(base.weight(read[name]).stored.full(), W)
    roles = {item.key: item.role for item in read.ignored}
    assert {roles[f"{name}.{container}.weight"] for name in SHAPES} == {Role.BASE}
    bias = Role.TRAINED if container == "base_layer" else Role.BASE  # which PEFT trains and saves
    assert {roles[f"{name}.{container}.bias"] for name in SHAPES} == {bias}
    assert roles["embedding.weight"] is roles["norm.weight"] is Role.TRAINED
    assert any(note.startswith("The file also holds the base weights of 4 modules") for note in read.notes)
    assert read.unknown == ()


def test_amplify_with_the_whole_file_as_both(tmp_path):
    tensors, expected = network(turned=True)
    path = tmp_path / "whole.safetensors"
    save_file(tensors, path)
    found = amplify(path, path, scale=3.0)
    for row in found.modules:
        W, delta = expected[row.module]
        U, _, Vh = np.linalg.svd(delta.astype(float))
        norm = np.linalg.norm(U[:, :2].T @ W @ Vh[:2].T)
        assert [rank.r for rank in row.ranks] == [2]
        assert np.isclose(row.ranks[0].amplification, np.linalg.norm(3 * delta) / norm, rtol=1e-5)
        assert row.base_key == f"{row.module}.linear.weight"
    assert len(found.modules) == len(SHAPES)


def test_the_weights_of_the_file_decide_how_factors_are_stored():
    """A (4, 6) and B (6, 4) are of rank 4 and a weight (6, 6), or of rank 6 and a weight (4, 4)."""
    A, B, square = np.ones((4, 6), "f4"), np.ones((6, 4), "f4"), np.ones((4, 4), "f4")
    with pytest.raises(FormatError, match="Cannot tell how the factors are stored"):
        load_adapter({"q.lora_A": square, "q.lora_B": square, "q.linear.weight": square})
    assert load_adapter({"q.lora_A": A, "q.lora_B": B, "q.weight": np.ones((6, 6), "f4")})["q"].d_out == 6
    assert (
        load_adapter({"q.lora_A": A, "q.lora_B": B, "q.linear.weight": np.ones((4, 4), "f4")})["q"].d_out == 4
    )


def test_a_turned_pair_that_could_be_a_fused_layer():
    """A (d_in, r), B (r, d_out) of a layer with four times as many inputs has the shapes of four groups."""
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((48, 4)), rng.standard_normal((4, 12))
    for tensors in ({}, {"proj.weight": np.ones((12, 48))}, {"proj.linear.weight": np.ones((12, 48))}):
        read = load_adapter({"proj.lora_A": A, "proj.lora_B": B, **tensors}, scale=1.0)
        assert list(read) == ["proj"]
        assert np.allclose(read["proj"].delta_W(), (A @ B).T)
    # two groups of rank 4 from 12 inputs, whose B has 16 outputs
    groups = {"qkv.lora_A": rng.standard_normal((8, 12)), "qkv.lora_B": rng.standard_normal((16, 4))}
    assert list(load_adapter(groups)) == ["qkv[0]", "qkv[1]"]
    assert list(load_adapter({**groups, "qkv.weight": np.ones((24, 12))})) == ["qkv[0]", "qkv[1]"]


def test_the_adapter_alone_has_the_same_names():
    tensors, expected = network()
    alone = {key: value for key, value in tensors.items() if "lora" in key}
    read = load_adapter(alone)
    assert sorted(read) == sorted(expected)
    assert not any("base weights" in note for note in read.notes)
    base = load_base({f"{name}.weight": W for name, (W, _) in expected.items()})
    assert all(base.weight(update) is not None for update in read.values())


def test_a_layer_of_loralib_is_its_own_base():
    tensors, expected = network(container="", holder="")
    read, base = load_adapter(tensors), load_base(tensors)
    for name, (W, _) in expected.items():
        assert np.array_equal(base.weight(read[name]).stored.full(), W)
    roles = {item.key: item.role for item in read.ignored}
    assert roles["layers.0.q.weight"] is Role.BASE
    assert roles["layers.0.q.bias"] is Role.TRAINED  # which loralib trains where it is told to


def test_minlora_keeps_the_original_weight(tmp_path):
    rng = np.random.default_rng(0)
    W, A, B = (rng.standard_normal(size).astype("f4") for size in ((6, 10), (2, 10), (6, 2)))
    tensors = {
        "h.0.q.parametrizations.weight.original": W,
        "h.0.q.parametrizations.weight.0.lora_A": A,
        "h.0.q.parametrizations.weight.0.lora_B": B,
        "h.0.q.bias": np.ones(6, "f4"),
    }
    read, base = load_adapter(tensors), load_base(tensors)
    assert np.array_equal(base.weight(read["h.0.q"]).stored.full(), W)
    assert {item.key: item.role for item in read.ignored}[
        "h.0.q.parametrizations.weight.original"
    ] is Role.BASE
    assert any("base weights of 1 module" in note for note in read.notes)


def test_layers_of_mlx_and_of_cloneofsimo():
    rng = np.random.default_rng(0)
    W, A, B = (rng.standard_normal(size).astype("f4") for size in ((6, 10), (2, 10), (6, 2)))
    mlx = {"h.0.q.linear.weight": W, "h.0.q.lora_a": A.T, "h.0.q.lora_b": B.T}
    injected = {"h.0.q.linear.weight": W, "h.0.q.lora_down.weight": A, "h.0.q.lora_up.weight": B}
    for tensors in (mlx, injected):
        read = load_adapter(tensors, scale=1.0)
        assert np.allclose(read["h.0.q"].delta_W(), B @ A, rtol=1e-6)
        assert np.array_equal(load_base(tensors).weight(read["h.0.q"]).stored.full(), W)
        assert [item.role for item in read.ignored] == [Role.BASE]


@pytest.mark.parametrize(
    "names", [("lora.A", "lora.B"), ("lora.down.weight", "lora.up.weight"), ("loraA", "loraB")]
)
def test_the_base_side_of_other_names(names):
    """Whoever reads the factors, the weight beside them is found under the name of the layer."""
    layout = {
        "layers.0.q.linear.weight": TensorInfo("float32", (6, 10)),
        f"layers.0.q.{names[0]}": TensorInfo("float32", (10, 2)),
        f"layers.0.q.{names[1]}": TensorInfo("float32", (2, 6)),
    }
    assert own_base(layout).weights == {"layers.0.q": "layers.0.q.linear.weight"}
    base = load_base({key: np.ones(info.shape, "f4") for key, info in layout.items()})
    assert base.find("layers.0.q") == "layers.0.q.linear.weight"


@pytest.mark.parametrize(
    "layout",
    [
        {"q.linear.weight": (6, 9), "q.lora_A": (2, 10), "q.lora_B": (6, 2)},
        {"q.head.weight": (6, 10), "q.lora_A": (2, 10), "q.lora_B": (6, 2)},
        {"q.linear.weight": (6,), "q.lora_A": (2, 10), "q.lora_B": (6, 2)},
        {"q.linear.weight": (6, 0), "q.lora_A": (2, 10), "q.lora_B": (6, 2)},
        {"k.linear.weight": (6, 10), "q.lora_A": (2, 10), "q.lora_B": (6, 2)},
        {"q.linear.weight": (6, 10), "q.flora.A": (2, 10), "q.flora.B": (6, 2)},
        {"q.linear.weight": (6, 10), "q.lora_A": (2, 10)},
    ],
)
def test_a_weight_that_is_not_of_the_layer(layout):
    assert not own_base({key: TensorInfo("float32", shape) for key, shape in layout.items()}).weights


def test_convolutions_and_embeddings():
    layout = {
        "conv.linear.weight": (6, 4, 3, 3), "conv.lora_A": (2, 4, 3, 3), "conv.lora_B": (6, 2, 1, 1),
        "flat.weight": (6, 4, 3, 3), "flat.lora_A": (6, 12), "flat.lora_B": (18, 6),
        "wte.weight": (50, 8), "wte.lora_A": (2, 50), "wte.lora_B": (8, 2),
        "qkv.weight": (24, 12), "qkv.lora_A": (8, 12), "qkv.lora_B": (16, 4),
    }  # fmt: skip
    own = own_base({key: TensorInfo("float32", shape) for key, shape in layout.items()})
    assert list(own.weights) == ["conv", "flat", "wte", "qkv"]


def test_a_wrapped_whole_file_is_its_own_base():
    tensors, expected = network(turned=True)
    wrapped = {f"module._orig_mod.{key}": value for key, value in tensors.items()}
    read, base = load_adapter(wrapped, scale=1.0), load_base(wrapped)
    for name, (W, delta) in expected.items():
        assert np.allclose(read[name].delta_W(), delta, rtol=1e-6)
        assert np.array_equal(base.weight(read[name]).stored.full(), W)


def test_base_weights_are_not_written_into_an_adapter(tmp_path):
    tensors, _ = network()
    converted = convert(tensors, to="loralib", scale=1.0)
    assert any("NOT carried over" in note and "linear.weight" in note for note in converted.notes)
    converted.save(tmp_path / "written.pt")
    written = load_adapter(tmp_path / "written.pt")
    assert not any("linear" in item.key for item in written.ignored)


def test_a_model_in_memory_is_not_said_to_hold_its_base():
    torch = pytest.importorskip("torch")

    class LoRALayer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lora_A = torch.nn.Parameter(torch.randn(10, 2))
            self.lora_B = torch.nn.Parameter(torch.randn(2, 6))
            self.scaling = 4.0

    class LinearWithLoRA(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.lora = torch.nn.Linear(10, 6), LoRALayer()

    model = torch.nn.Sequential(LinearWithLoRA())
    read = load_adapter(model)
    assert {name: update.scale.value for name, update in read.items()} == {"0": 4.0}
    assert load_base(model).weight(read["0"]).shape == (6, 10)
    assert not any("base weights" in note for note in read.notes)


def test_twenty_thousand_layers_take_seconds():
    layout = {}
    for n in range(20_000):
        layout |= {f"{n}.lora.A": (2, 4), f"{n}.lora.B": (3, 2), f"{n}.linear.weight": (3, 4)} if n % 2 else {
            f"{n}.lora_A": (2, 4), f"{n}.lora_B": (3, 2)}  # fmt: skip
    layout |= {f"lora.{n}": (n % 7 + 1, 4) for n in range(20_000)}
    own = own_base({key: TensorInfo("float32", shape) for key, shape in layout.items()})
    assert len(own.weights) == 10_000
