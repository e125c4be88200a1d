"""diffusers before its PEFT keys, laid out by hand.

Layouts after huggingface/diffusers: loaders/unet.py (save_attn_procs, format_to_lora_compatible), models/lora.py
(LoRALinearLayer, LoRAConv2dLayer, PatchedLoraProjection) and utils/state_dict_utils.py (the tables between layouts).
"""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from subspace import compare
from subspace.adapters import load_adapter
from subspace.errors import FormatError, ShapeError, ValueRangeError

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
PARTS = ("to_q", "to_k", "to_v", "to_out")
RNG = np.random.default_rng(0)
FACTORS = {
    part: (
        RNG.standard_normal((4, 6)).astype(np.float32),
        RNG.standard_normal((5, 4)).astype(np.float32),
    )
    for part in PARTS
}


def laid_out(pattern, down="down", up="up", out="to_out"):
    tensors = {}
    for part, (A, B) in FACTORS.items():
        name = pattern.format(block=BLOCK, part=out if part == "to_out" else part)
        tensors |= {f"{name}.{down}.weight": A, f"{name}.{up}.weight": B}
    return tensors


OLDEST = laid_out("{block}.processor.{part}_lora")
OLDEST_PREFIXED = laid_out("unet.{block}.processor.{part}_lora")
OLDER = laid_out("unet.{block}.{part}.lora", out="to_out.0")
PEFT = laid_out("unet.{block}.{part}", "lora_A", "lora_B", out="to_out.0")
PEFT_BARE = laid_out("base_model.model.{block}.{part}", "lora_A", "lora_B", out="to_out.0")


@pytest.mark.parametrize("tensors", [OLDEST, OLDEST_PREFIXED, OLDER])
def test_a_file_gives_back_what_the_layer_adds(tmp_path, tensors):
    save_file(tensors, tmp_path / "pytorch_lora_weights.safetensors")
    adapter = load_adapter(tmp_path)
    assert adapter.format == "diffusers"
    assert (len(adapter), adapter.ignored, adapter.unknown) == (4, (), ())
    for name, update in adapter.items():
        A, B = FACTORS["to_out" if name.endswith("to_out.0") else name.rpartition(".")[2]]
        assert update.delta_W() == pytest.approx(B @ A, rel=1e-5)
        assert (update.scale.value, update.scale.source) == (1.0, "no alpha: 1 in diffusers")


@pytest.mark.parametrize("first", [OLDEST, OLDEST_PREFIXED, OLDER, PEFT, PEFT_BARE])
@pytest.mark.parametrize("second", [OLDEST, OLDER, PEFT, PEFT_BARE])
def test_the_same_weights_in_any_two_layouts_match(first, second):
    result = compare(first, second, side=("a", "b"))
    assert (len(result.modules), result.only_first, result.only_second) == (8, (), ())
    assert [row.phi_full for row in result.modules] == pytest.approx([1.0] * 8)


@pytest.mark.parametrize(
    ("key", "module"),
    [
        ("text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora", "self_attn.out_proj"),
        ("text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora", "self_attn.q_proj"),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer", "mlp.fc1"),
        ("unet.mid_block.attentions.0.proj_in.lora", "proj_in"),
        ("unet.mid_block.attn1.processor.add_k_proj_lora", "attn1.add_k_proj"),
    ],
)
def test_a_module_has_its_name_of_today(key, module):
    A, B = FACTORS["to_q"]
    (name,) = load_adapter({f"{key}.down.weight": A, f"{key}.up.weight": B})
    assert name.endswith(f".{module}")
    assert name.split(".")[0] == key.split(".")[0]


@pytest.mark.parametrize(
    "alpha", ["q.lora.down.weight.alpha", "q.lora.alpha", "q.alpha", "q.lora.network_alpha"]
)
def test_an_alpha_is_over_r(alpha):
    A, B = FACTORS["to_q"]
    tensors = {"q.lora.down.weight": A, "q.lora.up.weight": B, alpha: np.array(2.0, np.float32)}
    adapter = load_adapter(tensors)
    assert adapter["q"].scale.value == 0.5
    assert (adapter["q"].scale.source, adapter.unknown) == ("tensor", ())


def test_an_alpha_that_is_not_a_number_is_an_error():
    A, B = FACTORS["to_q"]
    with pytest.raises(ValueRangeError, match="finite"):
        load_adapter(
            {"q.lora.down.weight": A, "q.lora.up.weight": B, "q.alpha": np.array(np.nan, np.float32)}
        )


def test_a_convolution_is_the_matrix_of_its_kernel():
    # diffusers models/lora.py, LoRACompatibleConv._fuse_lora: flatten(start_dim=1) of both factors
    A = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    B = RNG.standard_normal((5, 4, 1, 1)).astype(np.float32)
    update = load_adapter({"unet.conv1.lora.down.weight": A, "unet.conv1.lora.up.weight": B})["unet.conv1"]
    assert update.kind == "conv"
    assert update.delta_W() == pytest.approx(B.reshape(5, 4) @ A.reshape(4, 27), rel=1e-5)


def test_a_zero_up_is_a_zero_update():
    A, B = FACTORS["to_q"]
    assert not load_adapter({"q.lora.down.weight": A, "q.lora.up.weight": 0 * B})["q"].delta_W().any()


def test_dora_is_flagged():
    A, B = FACTORS["to_q"]
    magnitude = {"q.lora_magnitude_vector": np.ones(5, np.float32)}
    adapter = load_adapter({"q.lora.down.weight": A, "q.lora.up.weight": B} | magnitude)
    assert (adapter["q"].flags, adapter.unknown) == (("dora",), ())


def test_every_tensor_is_used_ignored_or_unknown():
    others = {
        "unet.conv_in.weight": np.ones((2, 2), np.float32),
        "<new-token>": np.ones(3, np.float32),
        "lost.alpha": np.ones((), np.float32),
    }
    adapter = load_adapter(OLDER | others)
    assert [entry.key for entry in adapter.ignored] == ["unet.conv_in.weight"]
    assert adapter.unknown == ("<new-token>", "lost.alpha")


@pytest.mark.parametrize("missing", ["up", "down"])
def test_half_a_pair_is_an_error(missing):
    tensors = {key: value for key, value in OLDER.items() if not key.endswith(f"to_q.lora.{missing}.weight")}
    with pytest.raises(ShapeError, match=rf"^Incomplete pair: lora\.{missing} is missing"):
        load_adapter(tensors)


def test_one_module_in_two_layouts_is_an_error_that_names_both_keys():
    with pytest.raises(FormatError, match=r"to_q\.lora\.down\.weight and .*to_q_lora\.down\.weight"):
        load_adapter(OLDER | OLDEST_PREFIXED)


def test_a_style_beside_another_is_read_with_it():
    kohya = {
        "lora_te_q.lora_down.weight": np.ones((2, 3), np.float32),
        "lora_te_q.lora_up.weight": np.ones((3, 2), np.float32),
    }
    for tensors in (OLDER | kohya, kohya | OLDER):
        adapter = load_adapter(tensors)
        assert adapter.format == "diffusers + kohya"
        assert set(adapter) == {"lora_te_q", *load_adapter(OLDER)}
