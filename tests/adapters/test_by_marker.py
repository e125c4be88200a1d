"""Names that people invent: paired by their markers, with B @ A as the oracle, and nothing else read as an adapter."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from subspace import Flag, compare, convert
from subspace.adapters import load_adapter
from subspace.adapters.format import Role
from subspace.errors import FormatError, ShapeError, SubspaceError, UnrecognisedError

RNG = np.random.default_rng(5)
A, B = RNG.standard_normal((2, 6)).astype("f4"), RNG.standard_normal((5, 2)).astype("f4")
W = np.ones((5, 6), "f4")

# name of A, name of B, the module that they are of
SPELLINGS = [
    ("h.0.q_proj.w_lora_A", "h.0.q_proj.w_lora_B", "h.0.q_proj"),
    ("h.0.q_proj.w_lora_A.weight", "h.0.q_proj.w_lora_B.weight", "h.0.q_proj"),
    ("h.0.q_proj.lora_A_q", "h.0.q_proj.lora_B_q", "h.0.q_proj.q"),
    ("h.0.attn.lora_a_q.weight", "h.0.attn.lora_b_q.weight", "h.0.attn.q"),
    ("h.0.attn.lora_q_A.weight", "h.0.attn.lora_q_B.weight", "h.0.attn.q"),
    ("h.0.attn.lora_down_q.weight", "h.0.attn.lora_up_q.weight", "h.0.attn.q"),
    ("h.0.attn.to_k_lora_down", "h.0.attn.to_k_lora_up", "h.0.attn.to_k"),
    ("h.0.attn.to_k_lora_down.weight", "h.0.attn.to_k_lora_up.weight", "h.0.attn.to_k"),
    ("h.0.attn.to_k_lora.A.weight", "h.0.attn.to_k_lora.B.weight", "h.0.attn.to_k"),
    ("h.0.q.lora.A.weight", "h.0.q.lora.B.weight", "h.0.q"),
    ("h.0.q.lora.A.default.weight", "h.0.q.lora.B.default.weight", "h.0.q"),
    ("h.0.q.w_lora_A.my_task.weight", "h.0.q.w_lora_B.my_task.weight", "h.0.q"),
    ("h.0.q.lora_right", "h.0.q.lora_left", "h.0.q"),
    ("h.0.q.lora_right_weight", "h.0.q.lora_left_weight", "h.0.q"),
    ("h.0.q.lora_in", "h.0.q.lora_out", "h.0.q"),
    ("h.0.q_lora.in_proj.weight", "h.0.q_lora.out_proj.weight", "h.0.q"),
    ("h.0.q.lora_first.weight", "h.0.q.lora_second.weight", "h.0.q"),
    ("h.0.q.lora1.weight", "h.0.q.lora2.weight", "h.0.q"),
    ("h.0.q.lora_1", "h.0.q.lora_2", "h.0.q"),
    ("h.0.q.lora.0.weight", "h.0.q.lora.1.weight", "h.0.q"),
    ("h.0.q.loraA.weight", "h.0.q.loraB.weight", "h.0.q"),
    ("h.0.q.loraDown.weight", "h.0.q.loraUp.weight", "h.0.q"),
    ("h.0.q.loradown", "h.0.q.loraup", "h.0.q"),
    ("h.0.q.LoRA_A", "h.0.q.LoRA_B", "h.0.q"),
    ("h.0.q.LORA_DOWN", "h.0.q.LORA_UP", "h.0.q"),
    ("h.0.q.A_lora", "h.0.q.B_lora", "h.0.q"),
    ("h.0.q.lora-a", "h.0.q.lora-b", "h.0.q"),
    ("h/0/q/lora/down", "h/0/q/lora/up", "h.0.q"),
    ("lora_layers.h.0.q.A.weight", "lora_layers.h.0.q.B.weight", "h.0.q"),
    ("loras.h.0.q.mat_A.weight", "loras.h.0.q.mat_B.weight", "h.0.q"),
    ("h.0.q.lora_in.A.weight", "h.0.q.lora_in.B.weight", "h.0.q.in"),
    ("lora_unet_down_blocks_0_to_q_A.weight", "lora_unet_down_blocks_0_to_q_B.weight", "lora_unet_down_blocks_0_to_q"),
]  # fmt: skip


def nested(tensors):
    """Names as dicts in dicts."""
    tree = {}
    for key, value in tensors.items():
        place = tree
        *parents, last = key.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return tree


def saved(kind, tensors, folder):
    """A source of the tensors of one container."""
    if kind == "memory":
        return dict(tensors)
    if kind == "nested":
        return {"weights": nested(tensors)}
    if kind == "safetensors":
        save_file(tensors, folder / "a.safetensors")
        return folder / "a.safetensors"
    torch_tensors = {key: torch.from_numpy(value) for key, value in tensors.items()}
    torch.save(
        {"state_dict": torch_tensors, "epoch": 3} if kind == "wrapped" else torch_tensors, folder / "a.pt"
    )
    return folder / "a.pt"


@pytest.mark.parametrize("kind", ["memory", "safetensors", "torch", "wrapped", "nested"])
@pytest.mark.parametrize(("a", "b", "module"), SPELLINGS)
def test_a_pair_is_what_differs_in_its_marker_alone(a, b, module, kind, tmp_path):
    tensors = {a: A, b: B, a.replace("0", "7"): A, b.replace("0", "7"): B}
    if a == "h.0.q.lora.0.weight":
        tensors = {a: A, b: B}
    for order in (tensors, dict(reversed(tensors.items()))):
        adapter = load_adapter(saved(kind, order, tmp_path), scale=1)
        assert next(iter(adapter)) == module
        assert len(adapter) == len(tensors) // 2
        assert (adapter.unknown, [i for i in adapter.ignored if i.key in tensors]) == ((), [])
        for update in adapter.values():
            np.testing.assert_allclose(update.delta_W(), B.astype(float) @ A, rtol=1e-6)
            assert adapter.format == "by_marker" and update.flags == (Flag.GUESSED,)


def test_what_was_guessed_is_said_with_the_markers():
    adapter = load_adapter({"q.w_lora_A": A, "q.w_lora_B": B, "v.lora.down": A, "v.lora.up": B})
    (note,) = (note for note in adapter.notes if note.flag is Flag.GUESSED)
    assert "w_lora_A as A and w_lora_B as B" in note and "lora.down as A and lora.up as B" in note
    assert any(note.flag is Flag.SCALE_UNKNOWN for note in adapter.notes)


@pytest.mark.parametrize(
    ("turned_A", "turned_B"), [(False, False), (True, True), (True, False), (False, True)]
)
def test_factors_are_turned_to_where_they_multiply(turned_A, turned_B):
    tensors = {"q.w_lora_A": A.T if turned_A else A, "q.w_lora_B": B.T if turned_B else B}
    np.testing.assert_allclose(load_adapter(tensors, scale=1)["q"].delta_W(), B.astype(float) @ A, rtol=1e-6)


@pytest.mark.parametrize("kernel", [(3,), (3, 3)])
def test_a_convolution_is_flattened(kernel):
    down = RNG.standard_normal((2, 4, *kernel)).astype("f4")
    up = RNG.standard_normal((5, 2, *(1 for _ in kernel))).astype("f4")
    (update,) = load_adapter(
        {"conv.my_lora_down.weight": down, "conv.my_lora_up.weight": up}, scale=1
    ).values()
    assert update.kind == "conv"
    np.testing.assert_allclose(
        update.delta_W(), up.reshape(5, 2).astype(float) @ down.reshape(2, -1), rtol=1e-6
    )


def test_two_pairs_never_become_one_module():
    tensors = {f"q.{x}lora_{y}": M for x in ("", "w_", "v_") for y, M in (("A_x", A), ("B_x", B))}
    assert len(load_adapter(tensors)) == 3
    with pytest.raises(FormatError, match=r"^Two pairs with the names of one module: q\.my_lora_\*"):
        load_adapter({"q.my_lora_A": A, "q.my_lora_B": B, "q.my_lora_down": A, "q.my_lora_up": B})


def test_the_frozen_weights_beside_it_are_those_of_the_base():
    tensors = {"l.0.lora.A": A, "l.0.lora.B": B, "l.0.linear.weight": W, "l.1.weight": W, "l.1.w_lora_A": A,
               "l.1.w_lora_B": B, "head.weight": W, "thing": W}  # fmt: skip
    adapter = load_adapter(tensors)
    assert list(adapter) == ["l.0", "l.1"]
    roles = {item.key: item.role for item in adapter.ignored}
    assert roles == {"l.0.linear.weight": Role.BASE, "l.1.weight": Role.BASE, "head.weight": Role.TRAINED}
    assert adapter.unknown == ("thing",)


@pytest.mark.parametrize(
    ("beside", "scale"),
    [
        ({"q.w_lora_alpha": np.float32(8)}, 4), ({"q.alpha": np.array([8], "f4")}, 4),
        ({"q.scaling": np.float32(3)}, 3), ({"q.w_lora_scale": np.float32(0.5)}, 0.5),
        ({"v.alpha": np.float32(8)}, None), ({"q.alpha": W}, None),
    ],
)  # fmt: skip
def test_an_alpha_or_scale_of_the_module(beside, scale):
    adapter = load_adapter({"q.w_lora_A": A, "q.w_lora_B": B, **beside})
    assert adapter["q"].scale.value == scale
    assert set(beside) == {key for key in beside if key in adapter.unknown} or scale is not None
    assert any("taken to be alpha / r" in note for note in adapter.notes) == (scale == 4)


def clip_lora(r=2, alpha=1, layers=3):
    """What CLIP-LoRA's ``save_lora`` writes, as MaxZanella/CLIP-LoRA has it."""
    pair = {"w_lora_A": torch.from_numpy(A), "w_lora_B": torch.from_numpy(B)}
    weights = {f"layer_{n}": {f"{x}_proj": dict(pair) for x in "qkv"} for n in range(layers)}
    metadata = {"r": r, "alpha": alpha, "encoder": "both", "params": ["q", "k", "v"], "position": "all"}
    return {"weights": weights, "metadata": metadata}


def test_clip_lora_multiplies_by_alpha_over_the_root_of_r(tmp_path):
    torch.save(clip_lora(), tmp_path / "lora_weights.pt")
    adapter = load_adapter(tmp_path / "lora_weights.pt")
    assert len(adapter) == 9 and next(iter(adapter)) == "layer_0.k_proj"
    for update in adapter.values():
        np.testing.assert_allclose(update.delta_W(), B.astype(float) @ A / np.sqrt(2), rtol=1e-6)
        assert update.scale.source == "metadata.alpha / sqrt(r)"
    assert any("CLIP-LoRA" in note for note in adapter.notes)
    assert compare(tmp_path / "lora_weights.pt", clip_lora()).modules


def test_other_settings_of_the_same_tensors_are_over_r():
    tree = clip_lora()
    tree["config"] = {"lora": tree.pop("metadata")}
    assert next(iter(load_adapter(tree).values())).scale.value == 0.5


def test_a_rank_that_the_factors_do_not_have():
    with pytest.raises(
        FormatError, match=r"^The settings and the factors have different ranks: metadata.r = 4 .* and 2"
    ):
        load_adapter(clip_lora(r=4))


def test_the_rank_of_the_settings_decides_how_square_factors_are_stored():
    square = {"q": {"w_lora_A": RNG.standard_normal((8, 3)), "w_lora_B": RNG.standard_normal((3, 8))}}
    tree = {"weights": {"layer_0": square}, "metadata": {"r": 8, "alpha": 8}}
    assert next(iter(load_adapter(tree).values())).r == 8
    tree["metadata"]["r"] = 3
    assert next(iter(load_adapter(tree).values())).r == 3


SETTINGS = [
    ({"lora_alpha": 16}, 8.0, "lora_alpha / r"),
    ({"alpha": 16}, 8.0, "alpha / r"),
    ({"metadata": {"r": 2, "alpha": 16}}, 8.0, "metadata.alpha / r"),
    ({"hyper_parameters": {"lora_alpha": 16, "lr": 1e-3}}, 8.0, "hyper_parameters.lora_alpha / r"),
    (
        {"hyper_parameters": {"model": {"lora": {"r": 2, "alpha": 16}}}},
        8.0,
        "hyper_parameters.model.lora.alpha / r",
    ),
    ({"args": {"rank": 2, "alpha": 16}}, 8.0, "args.alpha / r"),
    ({"lora_config": {"rank": 2, "scaling": 0.25}}, 0.25, "lora_config.scaling"),
    (
        {"config": {"lora_r": 2, "lora_alpha": 16, "use_rslora": True}},
        16 / np.sqrt(2),
        "config.lora_alpha / sqrt(r)",
    ),
    ({"args": {"alpha": 0.4}}, None, "unknown"),  # of mixup, as likely as not
    ({"args": {"rank": 7, "lora_alpha": 16}}, 8.0, "args.lora_alpha / r"),
    ({"rank": 7}, None, "unknown"),  # of a process
    ({"config": {"lora_alpha": 16}, "args": {"lora_alpha": 32}}, None, "unknown"),
    ({"alpha": 0}, None, "unknown"),
    ({"alpha": True, "lora_alpha": "much"}, None, "unknown"),
    ({"lora_alpha": 10**400}, None, "unknown"),
]


@pytest.mark.parametrize("names", [("q.lora_A", "q.lora_B"), ("q.A", "q.B"), ("q.w_lora_A", "q.w_lora_B")])
@pytest.mark.parametrize(("settings", "scale", "source"), SETTINGS)
def test_settings_beside_the_tensors(settings, scale, source, names):
    if settings == {"args": {"rank": 7, "lora_alpha": 16}}:
        with pytest.raises(FormatError, match=r"args\.rank = 7"):
            load_adapter({"state_dict": dict(zip(names, (A, B), strict=True)), **settings})
        return
    adapter = load_adapter({"state_dict": dict(zip(names, (A, B), strict=True)), **settings})
    assert adapter["q"].scale.value == (None if scale is None else pytest.approx(scale))
    assert adapter["q"].scale.source == source
    assert any(note.flag is Flag.SCALE_UNKNOWN for note in adapter.notes) == (scale is None)
    assert any("several values of alpha" in note for note in adapter.notes) == (
        len(settings) == 2 and "args" in settings
    )


def test_settings_of_a_torch_file_and_in_the_metadata_of_safetensors(tmp_path):
    torch.save({"state_dict": {"q.lora_A": torch.from_numpy(A), "q.lora_B": torch.from_numpy(B)},
                "pytorch-lightning_version": "2.4.0", "hyper_parameters": {"lora_r": 2, "lora_alpha": 16}},
               tmp_path / "a.ckpt")  # fmt: skip
    assert load_adapter(tmp_path / "a.ckpt")["q"].scale.value == 8
    save_file({"q.lora_A": A, "q.lora_B": B}, tmp_path / "a.safetensors", {"lora_alpha": "16", "rank": "2"})
    assert load_adapter(tmp_path / "a.safetensors")["q"].scale.value == 8
    save_file({"q.lora_A": A, "q.lora_B": B}, tmp_path / "a.safetensors", {"alpha": "16", "rank": "3"})
    with pytest.raises(FormatError, match=r"metadata\.rank = 3"):
        load_adapter(tmp_path / "a.safetensors")


def test_a_number_beside_the_pair_in_a_tree_is_of_its_module():
    tree = {"weights": {"h": {n: {"w_lora_A": A, "w_lora_B": B, "alpha": 2 + 2 * n} for n in range(2)}}}
    assert [update.scale.value for update in load_adapter(tree).values()] == [1, 2]
    assert load_adapter(tree)["h.1"].scale.source == "h.1.alpha / r"
    tree["weights"]["h"][1]["rank"] = 3
    with pytest.raises(
        FormatError, match=r"different ranks: h\.1\.r = 3 .* and 2 in the factors of module h\.1"
    ):
        load_adapter(tree)


def test_names_of_settings_are_escaped():
    (update,) = load_adapter(
        {"state_dict": {"q.lora_A": A, "q.lora_B": B}, "\x1b[31m_lora": {"alpha": 4, "r": 2}}
    ).values()
    assert update.scale.source == r"\x1b[31m_lora.alpha / r"


def hub(folder, config, names=("my_task",)):
    """A directory of the library adapters (AdapterHub)."""
    tensors = {}
    for name in names:
        stem = f"roberta.encoder.layer.0.attention.self.query.loras.{name}"
        tensors |= {f"{stem}.lora_A": torch.from_numpy(A), f"{stem}.lora_B": torch.from_numpy(B)}
    torch.save(tensors, folder / "pytorch_adapter.bin")
    torch.save({"heads.my_task.1.weight": torch.ones(2, 5)}, folder / "pytorch_model_head.bin")
    own = {"architecture": "lora", "composition_mode": "add", "use_gating": False, "alpha": 8, "r": 2}
    whole = {"config": own | config, "model_name": "roberta-base", "name": "my_task", "version": "0.2.2"}
    (folder / "adapter_config.json").write_text(json.dumps(whole))
    return folder


def test_the_library_adapters_has_its_scale_in_its_json(tmp_path):
    adapter = load_adapter(hub(tmp_path, {}))
    assert list(adapter) == ["roberta.encoder.layer.0.attention.self.query"]
    (update,) = adapter.values()
    assert (update.scale.value, update.scale.source) == (4, "config.alpha / r")
    assert not any("taken to be" in note for note in adapter.notes)


def test_the_library_adapters_with_a_gate_another_rank_or_another_method(tmp_path):
    gated = load_adapter(hub(tmp_path, {"use_gating": True}))
    assert [update.scale.value for update in gated.values()] == [None]
    assert any("use_gating is true" in note for note in gated.notes)
    with pytest.raises(FormatError, match=r"config\.r = 4 in .*adapter_config\.json and 2"):
        load_adapter(hub(tmp_path, {"r": 4}))
    with pytest.raises(FormatError, match=r"\(IA\)\^3"):
        load_adapter(hub(tmp_path, {"composition_mode": "scale"}))


def test_one_of_several_adapters_of_the_library_adapters(tmp_path):
    folder = hub(tmp_path, {}, names=("one", "two"))
    with pytest.raises(FormatError, match="choose one with `adapter_name`"):
        load_adapter(folder)
    chosen = load_adapter(folder, adapter_name="two")
    assert len(chosen) == 1
    assert {item.role for item in chosen.ignored} == {Role.OTHER_ADAPTER}


def test_a_plain_pair_beside_its_layer_has_the_name_of_the_layer():
    assert list(load_adapter({"h.0.lora.A": A, "h.0.lora.B": B})) == ["h.0"]
    assert len(load_adapter({"h.lora.A": A, "h.lora.B": B, "h.A": A, "h.B": B})) == 2


NO_ADAPTER = {
    "no word lora": {"q.down.weight": A, "q.up.weight": B, "q.in_proj.weight": A, "q.out_proj.weight": B},
    "a word in a word": {"flora.A.weight": A, "flora.B.weight": B, "explora_down": A, "explora_up": B},
    "an optimiser's state": {"exp_avg.q.w_lora_A": A, "exp_avg.q.w_lora_B": B},
    "FSDP's optimiser": {"q.w_lora_A.exp_avg": A, "q.w_lora_B.exp_avg": B},
    "gradients": {"grad.q.w_lora_A": A, "grad.q.w_lora_B": B},
    "scalars": {"q.w_lora_A": np.float32(1), "q.w_lora_B": np.float32(2)},
    "vectors": {"q.w_lora_A": A[0], "q.w_lora_B": B[0]},
    "integers": {"q.w_lora_A": A.astype("i4"), "q.w_lora_B": B.astype("i4")},
    "a textual inversion": {"emb_params": A, "lora_name": A[0]},
    "a classifier": {"lora_head.in.weight": np.ones((8, 6), "f4"), "lora_head.out.weight": np.ones((3, 8), "f4")},
    "an embedding": {"lora_embeddings.weight": A, "lora_head.weight": A},
    "whole weights": {"lora_model.down.weight": np.ones((6, 6), "f4"), "lora_model.up.weight": np.ones((6, 6), "f4")},
    "blocks": {"lora.down_blocks.0.weight": np.ones((6, 6), "f4"), "lora.up_blocks.0.weight": np.ones((6, 6), "f4")},
    "many numbers": {f"lora.{n}.weight": M for n, M in enumerate((A, B, A, B))},
    "a base of RWKV": {"att.w_lora_A.weight": A, "att.w_lora_B.weight": B, "att.x_w": A[:1], "att.key.weight": W},
    "a base of DeepSeek": {"q_a_proj.weight": A, "q_b_proj.weight": B, "kv_a_proj.weight": A, "kv_b_proj.weight": B},
}  # fmt: skip


@pytest.mark.parametrize("case", NO_ADAPTER)
def test_nothing_else_is_read_as_an_adapter(case):
    with pytest.raises(SubspaceError) as raised:
        load_adapter(NO_ADAPTER[case])
    assert isinstance(raised.value, UnrecognisedError | FormatError)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("tree", [
    {"state": {0: {"exp_avg": A, "exp_avg_sq": A}, 1: {"exp_avg": B}}, "param_groups": [{"lr": 1.0, "params": [0, 1]}]},
    {"state": {"q.w_lora_A": {"exp_avg": A}, "q.w_lora_B": {"exp_avg": B}}, "param_groups": []},
])  # fmt: skip
def test_an_optimiser_in_dicts_is_no_adapter(tree):
    with pytest.raises(SubspaceError):
        load_adapter(tree)


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({"q.w_lora_A": A, "v.w_lora_A": A}, r"^Incomplete pair: q\.w_lora_A, v\.w_lora_A have no other half"),
        ({"q.w_lora_A": A, "q.w_lora_B": B, "v.w_lora_A": A}, r"^Incomplete pair: v\.w_lora_A"),
        ({"q.w_lora_A": A, "q.w_lora_B": np.ones((5, 3), "f4")},
         r"^A and B have no product: q\.w_lora_A is \[2, 6\] and q\.w_lora_B is \[5, 3\], in module q of"),
        ({"q.w_lora_A": A, "q.w_lora_B": B, "v.w_lora_A": A, "v.w_lora_B": np.ones((5, 3, 1), "f4")},
         r"^A and B have no product: v\.w_lora_A"),
    ],
)  # fmt: skip
def test_halves_and_pairs_without_a_product_are_named(tensors, match):
    with pytest.raises(ShapeError, match=match):
        load_adapter(tensors)


def test_a_whole_state_dict_is_converted(tmp_path):
    convert({"l.0.lora.A": A, "l.0.lora.B": B, "l.0.linear.weight": W}, to="peft", scale=2).save(
        tmp_path / "out"
    )
    np.testing.assert_allclose(
        load_adapter(tmp_path / "out")["l.0"].delta_W(), 2.0 * B.astype(float) @ A, rtol=1e-6
    )


def test_many_and_long_names_take_no_time():
    one = np.ones((1, 1), "f4")
    hostile = {f"{'lora_A.' * 50}{n}": one for n in range(2_000)}
    hostile |= {f"{'lora_1_down_in_first_' * 40}{n}": one for n in range(1_000)}
    hostile |= {"lora" * 20_000: one, "lora_A." * 20_000: one, "A" * 100_000 + "lora": one}
    start = time.process_time()
    with pytest.raises(SubspaceError):
        load_adapter(hostile)
    assert time.process_time() - start < 30
