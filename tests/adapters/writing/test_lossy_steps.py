"""A step that would change delta_W is refused in one line, and done where it is asked for."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from safetensors.numpy import load, save_file
from written_files import SHAPES, peft_folder, put

from subspace.adapters import load_adapter
from subspace.analysis.convert import convert
from subspace.checkpoints.tensor_bytes import StoredTensor, safetensors_bytes
from subspace.errors import FormatError, InconclusiveError, SubspaceError, ValueRangeError

EYE = np.eye(3, dtype=np.float32)
WIDE, TALL = (
    np.eye(3, 4, dtype=np.float32),
    np.eye(5, 3, dtype=np.float32),
)  # an A and a B that can be nothing else
IN_UNET = "unet.mid_block.attentions.0.proj_in"
PAIR = {f"{IN_UNET}.lora_A": WIDE, f"{IN_UNET}.lora_B": TALL}
EQUAL = dict.fromkeys(SHAPES, 2)
UNET_SHAPES = {f"unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_{x}": (8, 8) for x in "qkv"}


@pytest.mark.parametrize("to", ["peft", "kohya", "diffusers"])
def test_an_unknown_scale(to):
    with pytest.raises(InconclusiveError, match=r"unknown, in module .*proj_in.*give `scale`"):
        convert(PAIR, to=to)
    assert convert(PAIR, to=to, scale=2.0).modules[0].error == 0
    assert convert(PAIR, to="loralib").modules[0].scale is None


def test_a_scale_of_zero_or_below(tmp_path):
    tensors = {"q.lora_down.weight": EYE, "q.lora_up.weight": EYE, "q.alpha": np.array(-6.0, np.float32)}
    made = convert(tensors, to="peft")
    assert json.loads(made.files["adapter_config.json"])["lora_alpha"] == 6
    np.testing.assert_array_equal(load_adapter(put(made, tmp_path / "out"))["q"].delta_W(), -2 * EYE)


def test_magnitudes_of_dora(tmp_path):
    folder = peft_folder(tmp_path / "in", {"layers.0.q": 2}, {"layers.0.q": 2}, use_dora=True)
    tensors = load((folder / "adapter_model.safetensors").read_bytes())
    tensors["base_model.model.layers.0.q.lora_magnitude_vector"] = np.ones(8, np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(FormatError, match=r"has no place for DoRA's magnitudes.*`allow` dora"):
        convert(folder, to="kohya")
    assert convert(folder, to="kohya", allow=["dora"]).modules[0].error == 0
    assert "base_model.model.layers.0.q.lora_magnitude_vector" in load(
        convert(folder, to="peft").files["adapter_model.safetensors"]
    )


def test_layers_that_a_format_has_no_place_for(tmp_path):
    conv = {
        "base_model.model.c.lora_A.weight": np.ones((2, 4, 3, 3), np.float32),
        "base_model.model.c.lora_B.weight": np.ones((5, 2, 1, 1), np.float32),
    }
    with pytest.raises(
        FormatError, match="The format loralib cannot hold a module of kind conv, in module c"
    ):
        convert(conv, to="loralib", scale=1.0)
    embedding = {
        "base_model.model.e.lora_embedding_A": np.ones((2, 9), np.float32),
        "base_model.model.e.lora_embedding_B": np.ones((5, 2), np.float32),
    }
    for to in ("kohya", "diffusers"):
        with pytest.raises(
            FormatError, match=f"The format {to} cannot hold a module of kind embedding, in module e"
        ):
            convert(embedding, to=to, scale=1.0)


def test_groups_whose_place_is_not_known():
    fused = {"c.lora_A": np.ones((4, 8), np.float32), "c.lora_B": np.ones((12, 2), np.float32)}
    for to in ("peft", "kohya", "diffusers"):
        with pytest.raises(FormatError, match="`enable_lora`, or choose the format loralib"):
            convert(fused, to=to, scale=1.0)


def test_a_dense_delta_is_no_adapter():
    with pytest.raises(FormatError, match=r"Cannot write a dense delta_W, in module .*subspace truncate"):
        convert({"q.delta_W": EYE}, to="peft")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_scale_that_16_bits_would_round(dtype, tmp_path):
    ranks, shapes = dict.fromkeys(UNET_SHAPES, 2), UNET_SHAPES
    exact = peft_folder(tmp_path / "a", ranks, dict.fromkeys(ranks, 4), dtype=dtype, shapes=shapes)
    assert convert(exact, to="diffusers").headline().endswith("with the same delta_W.")  # a power of two
    rounded = peft_folder(tmp_path / "b", ranks, dict.fromkeys(ranks, 3), dtype=dtype, shapes=shapes)
    with pytest.raises(FormatError, match=f"Rounding to {dtype}.*give `dtype` float32, or `allow` rounding"):
        convert(rounded, to="diffusers")
    allowed = convert(rounded, to="diffusers", allow=["rounding"])
    assert 0 < max(row.error for row in allowed.modules) < 0.01
    assert max(row.error for row in convert(rounded, to="diffusers", dtype="float32").modules) < 1e-7


def test_numbers_that_a_type_has_not():
    large = {"q.lora_A": WIDE, "q.lora_B": np.float32(70000) * TALL}
    with pytest.raises(ValueRangeError, match=r"too large for float16: 70000.*in module q"):
        convert(large, to="loralib", dtype="float16", layout="BA")
    assert convert(large, to="loralib", dtype="bfloat16", layout="BA").modules[0].error < 0.004
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueRangeError, match=r"Not a finite number.*in module q"):
            convert({"q.lora_A": WIDE, "q.lora_B": bad * np.ones((5, 3), np.float32)}, to="loralib")


def test_8_bit_factors_are_written_exactly_as_float16(tmp_path):
    codes = np.arange(126, dtype=np.uint8).reshape(6, 21)  # every finite positive e4m3
    tensors = {
        "q.lora_A": StoredTensor(codes, "float8_e4m3fn"),
        "q.lora_B": StoredTensor(codes.reshape(21, 6), "float8_e4m3fn"),
    }
    (tmp_path / "f8.safetensors").write_bytes(safetensors_bytes(tensors, {}))
    made = convert(tmp_path / "f8.safetensors", to="loralib")
    assert (made.modules[0].dtype, made.modules[0].error) == ("float16", 0)


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora"])
def test_a_start_that_changed_the_base(init, tmp_path):
    folder = peft_folder(tmp_path / "in", EQUAL, EQUAL, init_lora_weights=init)
    with pytest.raises(
        FormatError, match=r"relative to base weights that init_lora_weights .* changed.*`allow` init"
    ):
        convert(folder, to="loralib")
    assert convert(folder, to="loralib", allow=["init"]).modules
    config = json.loads(convert(folder, to="peft").files["adapter_config.json"])
    assert config["init_lora_weights"] == init


@pytest.mark.parametrize("module", ["x.lora_A", "x.alpha", "x.lora_down.weight", "modules_to_save.q", ""])
@pytest.mark.parametrize("to", ["peft", "loralib", "kohya", "diffusers"])
def test_names_that_would_mislead_are_refused_or_come_back(module, to, tmp_path):
    """Whatever a module is called, what is written is read back as it was, or nothing is written."""
    prefix = f"{module}." if module else ""
    try:
        adapter = load_adapter({f"{prefix}lora_A": WIDE, f"{prefix}lora_B": TALL}, scale=2.0)
        made = convert(adapter, to=to)
    except SubspaceError as error:
        assert "\n" not in str(error)
        return
    back = load_adapter(put(made, tmp_path / ("out" if to == "peft" else "out.pt")))
    assert set(back) == {made.modules[0].module}


def test_a_name_for_one_matrix():
    with pytest.raises(FormatError, match=r"PEFT cannot hold .*`module`"):
        convert({"A": WIDE, "B": TALL}, to="peft", scale=1.0)
    assert convert({"A": WIDE, "B": TALL}, to="peft", scale=1.0, module="q").modules[0].module == "q"


def test_what_is_left_behind_is_said_and_the_same_format_keeps_it(tmp_path):
    folder = peft_folder(tmp_path / "in", {"layers.0.q": 2}, {"layers.0.q": 2})
    tensors = load((folder / "adapter_model.safetensors").read_bytes())
    tensors["base_model.model.classifier.weight"] = np.arange(4, dtype=np.float32)
    tensors["strange"] = EYE
    save_file(tensors, folder / "adapter_model.safetensors")
    made = convert(folder, to="kohya")
    assert "1 tensor NOT carried over: base_model.model.classifier.weight" in " ".join(made.notes)
    assert "1 unknown tensor NOT carried over: strange" in " ".join(made.notes)
    same = load(convert(folder, to="peft").files["adapter_model.safetensors"])
    np.testing.assert_array_equal(same["base_model.model.classifier.weight"], np.arange(4))
    assert "strange" not in same


@pytest.mark.parametrize(
    ("dtype", "size", "cure"),
    [("float16", 1e-7, "bfloat16 or float32"), ("float16", 1e-9, "bfloat16 or float32"),
     ("bfloat16", 1e-40, "keep, or float32"), ("float32", 1e-44, "keep")],
)  # fmt: skip
def test_numbers_that_are_too_small_for_a_type(dtype, size, cure):
    """The share that is lost is that of a dense product of the rounded factors."""
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((4, 30)), size * rng.standard_normal((20, 4))
    with pytest.raises(FormatError) as raised:
        convert({"q.lora_A": A, "q.lora_B": B}, to="loralib", dtype=dtype)
    message = str(raised.value)
    made = convert({"q.lora_A": A, "q.lora_B": B}, to="loralib", dtype=dtype, allow=["underflow"])
    lost = made.modules[0].error
    assert message == (
        f"Numbers too small for {dtype}: storing them would change delta_W by {lost:.2g} (relative), in module q, "
        f"in the state dict in memory; give `dtype` {cure}, or `allow` underflow"
    )
    assert lost > 0.01
    if dtype == "float16":
        stored = [M.astype(np.float16).astype(float) for M in (B, A)]
        assert lost == pytest.approx(np.linalg.norm(B @ A - stored[0] @ stored[1]) / np.linalg.norm(B @ A))
    wide = convert({"q.lora_A": A, "q.lora_B": B}, to="loralib")
    assert wide.modules[0].error == 0


def test_a_few_small_numbers_that_do_not_matter_are_no_reason():
    A = np.eye(3, 8)
    A[0, 7] = 1e-9
    made = convert({"q.lora_A": A, "q.lora_B": np.eye(3)}, to="loralib", dtype="float16")
    assert 0 < made.modules[0].error < 1e-6


def test_a_scale_that_makes_factors_too_small():
    """Multiplied into B for diffusers: asked for as rounding, and once more where most of it is lost."""
    rng = np.random.default_rng(0)
    A, B = (rng.standard_normal(shape).astype(np.float16) for shape in ((4, 30), (20, 4)))
    pair = {f"{IN_UNET}.lora_A": A, f"{IN_UNET}.lora_B": B}
    with pytest.raises(FormatError, match=r"Numbers too small for float16.*`allow` underflow"):
        convert(pair, to="diffusers", scale=3e-7, allow=["rounding"])
    both = convert(pair, to="diffusers", scale=3e-7, allow=["rounding", "underflow"])
    assert both.modules[0].error > 0.01
