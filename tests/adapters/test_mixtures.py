"""Files that mix formats: the sum of their parts where these are apart, refused where a tensor or module is in two."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from subspace import Flag, compare, convert, inspect, truncate
from subspace.adapters import load_adapter
from subspace.adapters.format import Role
from subspace.errors import FormatError

RNG = np.random.default_rng(3)


def pair(a, b, r=2, d_in=6, d_out=5):
    return {a: RNG.standard_normal((r, d_in)).astype("f4"), b: RNG.standard_normal((d_out, r)).astype("f4")}


TE = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
KOHYA = pair(f"{TE}.lora_down.weight", f"{TE}.lora_up.weight") | {f"{TE}.alpha": np.float32(4)}
DIT = "model.layers.0.attn.q_proj"
PEFT = pair(f"{DIT}.lora_A.weight", f"{DIT}.lora_B.weight")
COMFY = "diffusion_model.blocks.0.attn.to_q"
PIPELINE = pair(f"{COMFY}.lora_A.weight", f"{COMFY}.lora_B.weight")
DIFFUSERS = pair("unet.down.0.to_q.lora.down.weight", "unet.down.0.to_q.lora.up.weight")
LORALIB = pair("h.0.q.lora_A", "h.0.q.lora_B")
MLX = {key: M.T for key, M in pair("layers.3.o.lora_a", "layers.3.o.lora_b").items()}
PARTS = {
    "kohya": KOHYA,
    "peft": PEFT,
    "pipeline": PIPELINE,
    "diffusers": DIFFUSERS,
    "loralib": LORALIB,
    "mlx": MLX,
}


@pytest.mark.parametrize(
    "names",
    [("kohya", "peft"), ("kohya", "pipeline"), ("diffusers", "kohya"), ("loralib", "mlx"), ("kohya", "loralib"),
     ("kohya", "loralib", "mlx")],
)  # fmt: skip
def test_the_parts_are_what_each_would_be_alone(names, tmp_path):
    other = {"score.weight": np.ones((2, 3), "f4"), "thing": np.ones(3, "f4")}
    whole = {key: M for name in names for key, M in PARTS[name].items()} | other
    save_file({key: np.ascontiguousarray(M) for key, M in whole.items()}, tmp_path / "a.safetensors")
    for source in (whole, dict(reversed(whole.items())), tmp_path / "a.safetensors"):
        adapter = load_adapter(source)
        assert (adapter.format, adapter.formats) == (" + ".join(names), names)
        assert [item.key for item in adapter.ignored] == ["score.weight"]
        assert adapter.unknown == ("thing",)
        assert "1 module as kohya" in adapter.notes[0] or "kohya" not in names
        for name in names:
            for module, alone in load_adapter(PARTS[name]).items():
                assert adapter[module].scale == alone.scale
                np.testing.assert_array_equal(adapter[module].B @ adapter[module].A, alone.B @ alone.A)


def test_which_part_has_no_scale_is_said():
    adapter = load_adapter(KOHYA | PEFT)
    (note,) = (note for note in adapter.notes if note.flag is Flag.SCALE_UNKNOWN)
    assert note.startswith("In the modules of peft, the scale is unknown: there is no adapter_config.json")
    assert adapter[TE].scale.value == 2
    assert load_adapter(KOHYA | PEFT, scale=3)[DIT].scale.value == 3


def kohya(name):
    return pair(f"{name}.lora_down.weight", f"{name}.lora_up.weight")


CLASHES = {
    "one name": pair("x.q.lora_A", "x.q.lora_B") | pair("x.q.lora.down.weight", "x.q.lora.up.weight"),
    "peft and kohya": pair("x.q.lora_A.weight", "x.q.lora_B.weight") | kohya("x.q"),
    "flattened": PEFT | kohya("lora_te_model_layers_0_attn_q_proj"),
    "flattened of a unet": DIFFUSERS | kohya("lora_unet_down_0_to_q"),
}  # fmt: skip


@pytest.mark.parametrize("case", CLASHES)
def test_a_module_in_two_formats_is_refused(case):
    for tensors in (CLASHES[case], dict(reversed(CLASHES[case].items()))):
        with pytest.raises(FormatError, match=r"^Cannot tell the format of .*: it could be \w+ or \w+;"):
            load_adapter(tensors)


def test_two_conventions_of_one_pipeline_are_one_format():
    adapter = load_adapter(DIFFUSERS | KOHYA | PIPELINE)
    assert adapter.format == "kohya + pipeline"
    assert set(adapter) == {TE, COMFY, "unet.down.0.to_q"}


def test_one_tensor_that_two_formats_read_is_refused():
    with pytest.raises(FormatError, match="it could be loralib or peft"):
        load_adapter({"q.lora_A": np.ones((2, 6), "f4"), "q.lora_B.weight": np.ones((5, 2), "f4")})


def test_a_part_that_cannot_be_read_is_refused():
    broken = {f"{TE}.lora_down.weight": KOHYA[f"{TE}.lora_down.weight"]}
    with pytest.raises(FormatError, match="it could be kohya or peft"):
        load_adapter(broken | PEFT)


def test_a_mixture_is_inspected_compared_cut_and_converted(tmp_path):
    tensors = {**KOHYA, **PIPELINE}
    assert inspect(tensors).format == "kohya + pipeline"
    assert [row.phi_full for row in compare(tensors, dict(tensors)).modules] == [pytest.approx(1)] * 2
    assert len(truncate(tensors, rank=1).modules) == 2
    read = load_adapter(tensors)
    for to, name in (("kohya", "a.safetensors"),):
        convert(tensors, to=to).save(tmp_path / name)
        back = load_adapter(tmp_path / name)
        norms = sorted(np.linalg.norm(update.delta_W()) for update in back.values())
        assert norms == pytest.approx(sorted(np.linalg.norm(u.delta_W()) for u in read.values()), rel=1e-6)


def test_what_belongs_to_the_base_or_another_adapter_keeps_its_role():
    tensors = KOHYA | PEFT | {f"{DIT}.base_layer.weight": np.ones((5, 6), "f4")}
    assert {item.key: item.role for item in load_adapter(tensors).ignored} == {
        f"{DIT}.base_layer.weight": Role.BASE
    }


SWALLOWED = "lora_unet_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1"


def test_a_swallowed_separator_is_kohyas(tmp_path):
    twins = {"to_q": "to_q", "to_out": "to_out.0", "to_k": "to_k"}
    flat, dotted = {}, {}
    for n, (word, layer) in enumerate(twins.items()):
        module = f"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.{layer}"
        factors = pair(f"{module}.lora.down.weight", f"{module}.lora.up.weight")
        dotted |= factors
        middle = "_processor" if n == 2 else ""
        for part, M in zip(("down", "up"), factors.values(), strict=True):
            flat[f"{SWALLOWED}{middle}_{word}_lora_{part}.weight"] = torch.from_numpy(M)
    torch.save(flat, tmp_path / "flat.bin")
    adapter = load_adapter(tmp_path / "flat.bin")
    assert (adapter.format, set(adapter)) == (
        "kohya",
        {f"{SWALLOWED}_to_q", f"{SWALLOWED}_to_out_0", f"{SWALLOWED}_to_k"},
    )
    assert {update.scale.value for update in adapter.values()} == {1.0}
    rows = compare(tmp_path / "flat.bin", dotted).modules
    assert [row.phi_full for row in rows] == [pytest.approx(1)] * 3


def test_a_swallowed_separator_with_alphas():
    tensors = pair(f"{SWALLOWED}_to_q_lora_down.weight", f"{SWALLOWED}_to_q_lora_up.weight")
    for name in (f"{SWALLOWED}_to_q.alpha", f"{SWALLOWED}_to_q_lora.alpha", f"{SWALLOWED}_to_q_lora_alpha"):
        (update,) = load_adapter(tensors | {name: np.float32(8)}).values()
        assert update.scale.value == 4
