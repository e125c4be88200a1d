"""loralib, LyCORIS and our own readers load what is written; round trips between all four formats."""

from __future__ import annotations

import sys

import loralib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from written_files import SHAPES, assert_alike, deltas, peft_folder, put, there

from subspace.adapters import formats, load_adapter
from subspace.adapters.formats import kohya
from subspace.adapters.writers import every, named
from subspace.analysis.convert import convert
from subspace.checkpoints import open_tensors
from subspace.errors import FormatError

_SUFFIX = {"peft": "", "loralib": ".pt", "kohya": ".safetensors", "diffusers": ".safetensors"}


def test_every_written_format_is_read_too():
    read = {known.name for known in formats.every()}
    assert set(every()) == set(_SUFFIX) <= read
    assert kohya.FORMAT.name == named("kohya").name
    with pytest.raises(FormatError, match="choose one of diffusers, kohya, loralib, peft"):
        named("mine")


# of a model that all four formats know
_BLOCK = "mid_block.attentions.0.transformer_blocks.0"
UNET_SHAPES = {
    f"{_BLOCK}.attn{n}.to_{x}": shape for n in (1, 2) for x, shape in (("q", (8, 8)), ("v", (6, 8)))
}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ranks=st.lists(st.integers(1, 4), min_size=4, max_size=4),
    alphas=st.lists(st.sampled_from([0.5, 1, 3, 7.25, 16]), min_size=4, max_size=4),
    dtype=st.sampled_from(["float64", "float32", "float16", "bfloat16"]),
    route=st.lists(st.sampled_from(sorted(_SUFFIX)), min_size=1, max_size=3),
)
def test_round_trips_keep_delta_w(ranks, alphas, dtype, route, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("route")
    source = peft_folder(
        tmp_path / "in",
        dict(zip(UNET_SHAPES, ranks, strict=True)),
        dict(zip(UNET_SHAPES, alphas, strict=True)),
        dtype=dtype,
        shapes=UNET_SHAPES,
    )
    adapter = load_adapter(source)
    expected = list(deltas(adapter).values())
    for n, to in enumerate(route):
        made, adapter = there(
            adapter, to, tmp_path / f"{n}{_SUFFIX[to]}", dtype="keep" if dtype == "float64" else "float32"
        )
        if to == "loralib":  # whose file does not say the scale: the conversion does
            adapter = load_adapter(adapter, scale=made.modules[0].scale)
        assert max(row.error for row in made.modules) < 1e-6
    assert_alike(expected, list(deltas(adapter).values()), rtol=1e-6)
    if route[-1] in {"peft", "loralib"}:
        assert set(adapter) == set(UNET_SHAPES)


@pytest.mark.parametrize("to", ["peft", "kohya"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_factors_keep_their_type_and_every_bit(to, dtype, tmp_path):
    source = peft_folder(tmp_path / "in", dict.fromkeys(SHAPES, 3), dict.fromkeys(SHAPES, 5), dtype=dtype)
    made, read = there(source, to, tmp_path / f"out{_SUFFIX[to]}")
    for before, after in zip(load_adapter(source).values(), read.values(), strict=True):
        assert after.A_factor.dtype == after.B_factor.dtype == dtype
        np.testing.assert_array_equal(before.A, after.A)
        np.testing.assert_array_equal(before.B, after.B)
        assert before.scale.value == after.scale.value
    assert made.headline().endswith("with the same delta_W.")


def test_loralib_loads_it(tmp_path):
    """One scale for all modules: the factors stay, and lora_alpha is what the note says."""
    source = peft_folder(tmp_path / "in", dict.fromkeys(SHAPES, 3), dict.fromkeys(SHAPES, 6))
    made, _ = there(source, "loralib", tmp_path / "out.pt")
    assert "lora_alpha = 2 * r (6)" in made.notes[0]
    layers = {m: loralib.Linear(d_in, d_out, r=3, lora_alpha=6) for m, (d_out, d_in) in SHAPES.items()}
    model = torch.nn.Module()
    for module, layer in layers.items():
        parent = model
        for part in module.split(".")[:-1]:
            if not hasattr(parent, part):
                parent.add_module(part, torch.nn.Module())
            parent = getattr(parent, part)
        parent.add_module(module.rpartition(".")[2], layer)
    state = torch.load(tmp_path / "out.pt", weights_only=True)
    assert model.load_state_dict(state, strict=False).unexpected_keys == []
    for module, delta in deltas(load_adapter(source)).items():
        layer = layers[module]
        got = (layer.lora_B @ layer.lora_A * layer.scaling).detach().double().numpy()
        assert_alike([delta], [got], rtol=1e-6)


@pytest.mark.parametrize("enabled", [(True, False, True), (True, True, True), (False, True, False)])
def test_loralib_gets_its_merged_linear_back(enabled, tmp_path):
    torch.manual_seed(0)
    layer = loralib.MergedLinear(8, 18, r=2, lora_alpha=4, enable_lora=list(enabled))
    torch.nn.init.normal_(layer.lora_B)
    state = {"attn.c_attn.lora_A": layer.lora_A, "attn.c_attn.lora_B": layer.lora_B}
    for told in (enabled, None):
        if told is None and sum(enabled) == 1:
            continue  # one group by itself looks like any pair
        made = convert(load_adapter(state, enable_lora=told), to="loralib")
        back = torch.load(put(made, tmp_path / f"{told}.pt"), weights_only=True)
        assert back.keys() == state.keys()
        assert all(torch.equal(back[key], state[key]) for key in state)


@pytest.mark.parametrize("kind", [torch.nn.Linear, torch.nn.Conv2d])
def test_lycoris_loads_kohya(kind, tmp_path, monkeypatch):
    pytest.importorskip("lycoris")
    from lycoris import create_lycoris_from_weights

    linear = kind is torch.nn.Linear
    model = torch.nn.Sequential(kind(6, 5) if linear else kind(6, 5, (3, 2)))
    shape = (2, 6) if linear else (2, 6, 3, 2)
    end = () if linear else (1, 1)
    rng = np.random.default_rng(0)
    A = rng.standard_normal(shape).astype(np.float32)
    B = rng.standard_normal((5, 2, *end)).astype(np.float32)
    source = load_adapter(
        {"base_model.model.0.lora_A.weight": A, "base_model.model.0.lora_B.weight": B}, scale=1.5
    )
    path = put(convert(source, to="kohya"), tmp_path / "out.safetensors")
    network, _ = create_lycoris_from_weights(1.0, str(path), model)
    (lora,) = network.loras
    got = lora.get_diff_weight()[0] if hasattr(lora, "get_diff_weight") else lora.get_weight(None)
    got = got.detach().double().numpy().reshape(5, -1)
    assert_alike([source["0"].delta_W()], [got], rtol=1e-6)
    sys.stdout.flush()


def test_kohya_names_and_metadata(tmp_path):
    shapes = {
        "unet.mid_block.attentions.0.proj_in": (4, 4),
        "text_encoder.text_model.encoder.layers.0.mlp.fc1": (4, 4),
        "zz_block.0.q": (4, 4),
    }
    source = peft_folder(tmp_path / "in", dict.fromkeys(shapes, 2), dict.fromkeys(shapes, 2), shapes=shapes)
    made, read = there(source, "kohya", tmp_path / "a.safetensors")
    assert set(read) == {
        "lora_unet_mid_block_attentions_0_proj_in",
        "lora_te_text_model_encoder_layers_0_mlp_fc1",
        "lycoris_zz_block_0_q",
    }
    assert any(
        "lycoris_zz_block_0_q for zz_block.0.q; the names cannot be recovered" in n for n in made.notes
    )
    assert any(
        r"1 module behind lycoris_ (lycoris_zz_block_0_q) can be loaded by LyCORIS" in n for n in made.notes
    )
    metadata = open_tensors(tmp_path / "a.safetensors").metadata
    assert metadata == {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "2",
        "ss_network_alpha": "2.0",
    }
    again, same = there(tmp_path / "a.safetensors", "kohya", tmp_path / "b.safetensors")
    assert set(same) == set(read) and not any("recovered" in note for note in again.notes)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_tucker_convolution_becomes_a_plain_one(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"lora_down": (3, 4, 1, 1), "lora_mid": (3, 3, 3, 2), "lora_up": (5, 3, 1, 1)}
    tensors = {f"lora_unet_c.{key}.weight": rng.standard_normal(shape) for key, shape in shapes.items()}
    made, read = there(tensors, "kohya", tmp_path / "a.safetensors")
    down, mid, up = (tensors[f"lora_unet_c.{key}.weight"] for key in shapes)
    whole = np.einsum("om,mnhw,ni->oihw", up[..., 0, 0], mid, down[..., 0, 0])
    assert_alike([whole.reshape(5, -1)], [read["lora_unet_c"].delta_W()])
    layout = open_tensors(tmp_path / "a.safetensors").layout
    assert layout["lora_unet_c.lora_down.weight"].shape == (3, 4, 3, 2)
    assert made.modules[0].error < 1e-12


def test_names_that_would_be_one_without_dots_are_refused(tmp_path):
    pair = {"A": np.eye(2, 3), "B": np.eye(4, 2)}
    tensors = {f"{m}.lora_{x}": pair[x] for m in ("a.b_c", "a_b.c") for x in "AB"}
    with pytest.raises(
        FormatError, match=r"would have the name lycoris_a_b_c in this format: a\.b_c and a_b\.c"
    ):
        convert(tensors, to="kohya", scale=1.0, layout="BA")


def test_diffusers_names(tmp_path):
    shapes = {
        "mid_block.attentions.0.attn1.to_out.0": (4, 4),
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (4, 4),
        "transformer.transformer_blocks.0.attn.to_q": (4, 4),
    }
    source = peft_folder(tmp_path / "in", dict.fromkeys(shapes, 2), dict.fromkeys(shapes, 2), shapes=shapes)
    made, read = there(source, "diffusers", tmp_path / "a.safetensors")
    assert made.notes == ()
    keys = set(open_tensors(tmp_path / "a.safetensors").layout)
    assert "unet.mid_block.attentions.0.attn1.to_out.0.lora.down.weight" in keys
    assert "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight" in keys
    assert "transformer.transformer_blocks.0.attn.to_q.lora.up.weight" in keys
    assert len(read) == 3
