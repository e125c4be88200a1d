"""kohya sd-scripts, LyCORIS LoCon and OneTrainer files, laid out by hand.

Layout after kohya-ss/sd-scripts networks/lora.py (LoRAModule: lora_down, lora_up, alpha) and
KohakuBlueleaf/LyCORIS lycoris/modules/locon.py (custom_state_dict: dora_scale, lora_mid).
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from subspace.adapters import load_adapter
from subspace.errors import InconclusiveError, ShapeError, ValueRangeError

NAME = "lora_unet_mid_block_attentions_0_proj_in"
RNG = np.random.default_rng(0)


def pair(name=NAME, *, r=4, d_in=6, d_out=5, alpha=None, kernel=()):
    ones = (1,) * len(kernel)
    tensors = {
        f"{name}.lora_down.weight": RNG.standard_normal((r, d_in, *kernel)).astype(np.float32),
        f"{name}.lora_up.weight": RNG.standard_normal((d_out, r, *ones)).astype(np.float32),
    }
    return tensors if alpha is None else tensors | {f"{name}.alpha": np.array(alpha, dtype=np.float16)}


def test_a_file_gives_back_what_the_writer_merges(tmp_path):
    tensors = pair(alpha=2.0) | pair("lora_te_text_model_encoder_layers_0_mlp_fc1", alpha=4.0)
    save_file(tensors, tmp_path / "kohya.safetensors", metadata={"ss_network_alpha": "9.0"})
    adapter = load_adapter(tmp_path / "kohya.safetensors")
    update = adapter[NAME]
    # sd-scripts networks/lora.py, merge_to: up @ down * (alpha / r)
    merged = tensors[f"{NAME}.lora_up.weight"] @ tensors[f"{NAME}.lora_down.weight"] * (2 / 4)
    assert adapter.format == "kohya"
    assert list(adapter) == ["lora_te_text_model_encoder_layers_0_mlp_fc1", NAME]
    assert (update.r, update.d_in, update.d_out, update.kind) == (4, 6, 5, "linear")
    assert (update.scale.value, update.scale.source, update.scale.alpha) == (0.5, "tensor", 2.0)
    assert update.delta_W() == pytest.approx(merged, rel=1e-5)
    assert (adapter.ignored, adapter.unknown) == ((), ())


@pytest.mark.parametrize(("alpha", "said"), [(None, "no alpha"), (0.0, "alpha 0")])
def test_no_alpha_stands_for_r(alpha, said):
    scale = load_adapter(pair(alpha=alpha))[NAME].scale
    assert scale.value == 1
    assert said in scale.source


def test_each_module_has_its_own_rank_and_alpha():
    adapter = load_adapter(pair("lora_unet_a", r=2, alpha=1.0) | pair("lora_unet_b", r=8, alpha=16.0))
    assert [(update.r, update.scale.value) for update in adapter.values()] == [(2, 0.5), (8, 2.0)]


def test_a_name_that_kept_its_dots_is_a_path():
    (module,) = load_adapter(pair("transformer_blocks.0.attn.to_k", alpha=4.0))
    assert module == "transformer_blocks.0.attn.to_k"


def test_an_alpha_of_one_element_is_a_scalar_too():
    tensors = pair() | {f"{NAME}.alpha": np.array([8.0], dtype=np.float32)}
    assert load_adapter(tensors)[NAME].scale.value == 2


@pytest.mark.parametrize(
    ("alpha", "error", "said"),
    [
        (np.array(np.nan, np.float16), ValueRangeError, "finite"),
        (np.array(np.inf, np.float32), ValueRangeError, "finite"),
        (np.ones(3, np.float32), ShapeError, "Not a single number"),
    ],
)
def test_an_alpha_that_is_no_number_is_an_error(alpha, error, said):
    with pytest.raises(error, match=rf"{said}.*alpha"):
        load_adapter(pair() | {f"{NAME}.alpha": alpha})


def test_a_convolution_is_the_matrix_of_its_kernel():
    tensors = pair(kernel=(3, 3), alpha=4.0)
    update = load_adapter(tensors)[NAME]
    down, up = tensors[f"{NAME}.lora_down.weight"], tensors[f"{NAME}.lora_up.weight"]
    # composition of the two convolutions: (out, in, kh, kw)
    composed = np.einsum("or,rihw->oihw", up[:, :, 0, 0], down)
    assert update.kind == "conv"
    assert update.delta_W() == pytest.approx(composed.reshape(5, 54), rel=1e-5)


def test_an_up_that_is_not_pointwise_is_refused():
    tensors = pair(kernel=(3, 3)) | {f"{NAME}.lora_up.weight": np.ones((5, 4, 3, 3), np.float32)}
    with pytest.raises(ShapeError, match="is not pointwise"):
        load_adapter(tensors)


def test_a_linear_down_with_a_convolution_up_is_refused():
    with pytest.raises(ShapeError, match="differ in their number of dimensions"):
        load_adapter(pair() | {f"{NAME}.lora_up.weight": np.ones((5, 4, 1, 1), np.float32)})


def tucker(*, kernel=(3, 2), alpha=2.0):
    return {
        f"{NAME}.lora_down.weight": RNG.standard_normal((4, 6, 1, 1)).astype(np.float32),
        f"{NAME}.lora_mid.weight": RNG.standard_normal((4, 4, *kernel)).astype(np.float32),
        f"{NAME}.lora_up.weight": RNG.standard_normal((5, 4, 1, 1)).astype(np.float32),
        f"{NAME}.alpha": np.array(alpha, np.float32),
    }


def test_a_tucker_core_is_multiplied_into_down():
    tensors = tucker()
    update = load_adapter(tensors)[NAME]
    down, mid, up = (tensors[f"{NAME}.lora_{part}.weight"] for part in ("down", "mid", "up"))
    # the three convolutions one after the other: (out, in, kh, kw)
    composed = np.einsum("om,mnhw,ni->oihw", up[:, :, 0, 0], mid, down[:, :, 0, 0]) * (2 / 4)
    assert (update.r, update.d_in, update.d_out, update.kind) == (4, 36, 5, "conv")
    assert update.flags == ("tucker",)
    assert update.delta_W() == pytest.approx(composed.reshape(5, 36), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("part", "shape"), [("mid", (4, 3, 3, 2)), ("mid", (4, 4)), ("down", (4, 6, 3, 3)), ("down", (4,))]
)
def test_a_tucker_core_that_does_not_multiply_is_an_error(part, shape):
    with pytest.raises(ShapeError, match=r"Tucker convolution do not fit together"):
        load_adapter(tucker() | {f"{NAME}.lora_{part}.weight": np.ones(shape, np.float32)})


def test_a_scalar_of_old_lycoris_multiplies():
    tensors = pair(alpha=2.0) | {f"{NAME}.scalar": np.array(0.25, np.float32)}
    adapter = load_adapter(tensors)
    assert adapter[NAME].scale.value == 0.25 * 2 / 4
    assert (adapter.ignored, adapter.unknown) == ((), ())


def test_a_whole_change_beside_pairs_is_a_dense_update():
    others = {
        "lora_unet_conv_in.diff": RNG.standard_normal((3, 2, 3, 3)).astype(np.float32),
        "lora_unet_conv_in.diff_b": np.ones(3, np.float32),
        "lora_unet_norm.diff": np.ones(3, np.float32),
    }
    for tensors in (pair(alpha=2.0) | others, others):
        adapter = load_adapter(tensors)
        update = adapter["lora_unet_conv_in"]
        assert (adapter.format, update.kind, update.flags) == ("kohya", "conv", ("dense",))
        assert update.delta_W() == pytest.approx(others["lora_unet_conv_in.diff"].reshape(3, 18))
        assert {entry.key for entry in adapter.ignored} == {"lora_unet_conv_in.diff_b", "lora_unet_norm.diff"}
        assert adapter.unknown == ()


def test_dora_is_flagged_and_its_magnitude_accounted_for():
    adapter = load_adapter(pair(alpha=1.0) | {f"{NAME}.dora_scale": np.ones((1, 6), np.float32)})
    assert adapter[NAME].flags == ("dora",)
    assert (adapter.ignored, adapter.unknown) == ((), ())


def test_a_zero_up_is_a_zero_update():
    update = load_adapter(pair(alpha=1.0) | {f"{NAME}.lora_up.weight": np.zeros((5, 4), np.float32)})[NAME]
    assert not update.delta_W().any()


@pytest.mark.parametrize(
    ("missing", "said"), [("up", "lora_up is missing .* has lora_down"), ("down", "lora_down is missing")]
)
def test_half_a_pair_is_an_error(missing, said):
    tensors = pair(alpha=1.0)
    del tensors[f"{NAME}.lora_{missing}.weight"]
    with pytest.raises(ShapeError, match=said):
        load_adapter(tensors)


def test_factors_that_do_not_multiply_are_an_error():
    with pytest.raises(ShapeError, match="different ranks"):
        load_adapter(pair() | {f"{NAME}.lora_up.weight": np.ones((5, 3), np.float32)})


def test_every_tensor_is_used_ignored_or_unknown():
    others = {
        "lora_unet_norm.w_norm": np.ones(3, np.float32),
        "lora_unet_norm.b_norm": np.ones(3, np.float32),
        "lora_unet_other.glora_x": np.ones((2, 2), np.float32),
        "lora_unet_other.alpha": np.array(1.0, np.float32),
    }
    adapter = load_adapter(pair(alpha=1.0) | others)
    assert [entry.key for entry in adapter.ignored] == ["lora_unet_norm.w_norm", "lora_unet_norm.b_norm"]
    assert adapter.unknown == ("lora_unet_other.glora_x", "lora_unet_other.alpha")


def test_a_style_beside_another_is_read_with_it():
    peft = {
        "base_model.model.q.lora_A.weight": np.ones((2, 3), np.float32),
        "base_model.model.q.lora_B.weight": np.ones((3, 2), np.float32),
    }
    for tensors in (pair() | peft, peft | pair()):
        adapter = load_adapter(tensors)
        assert (adapter.format, set(adapter)) == ("kohya + peft", {"q", NAME})


@pytest.mark.parametrize(
    "schema",
    ["anima_lora_kohya_format", "flux_lora_kohya_with_te1_format", "flux_dora_onetrainer_format"],
)
def test_published_key_lists_are_accounted_for(real_adapters, schema):
    text = (real_adapters / "_schemas" / f"{schema}.state_dict_keys.json").read_text()
    shapes = json.loads(text)["keys_to_shapes"]
    zero = np.zeros(1, np.float32)
    tensors = {
        key: np.ones((), np.float32) if not shape else np.broadcast_to(zero, shape)
        for key, shape in shapes.items()
    }
    adapter = load_adapter(tensors)
    pairs_there = sum(key.endswith("lora_down.weight") for key in shapes)
    assert (adapter.format, len(adapter)) == ("kohya", pairs_there)
    assert adapter.unknown == ()


def test_a_whole_weight_of_comfyui_is_its_difference_from_the_base():
    rng = np.random.default_rng(0)
    tensors = {
        "diffusion_model.img_in.set_weight": rng.standard_normal((6, 8)),
        "diffusion_model.img_in.diff_b": rng.standard_normal(6),
        "diffusion_model.norm.set_weight": rng.standard_normal(6),
        "diffusion_model.q.lora_down.weight": rng.standard_normal((2, 8)),
        "diffusion_model.q.lora_up.weight": rng.standard_normal((6, 2)),
        "diffusion_model.q.reshape_weight": np.array([6, 8]),
    }
    W = rng.standard_normal((6, 8))
    base = {"diffusion_model.img_in.weight": W, "diffusion_model.q.weight": W}
    read = load_adapter(tensors, base=base)
    assert (read.format, list(read), read.unknown) == (
        "kohya",
        ["diffusion_model.img_in", "diffusion_model.q"],
        (),
    )
    update = read["diffusion_model.img_in"]
    np.testing.assert_allclose(update.delta_W(), tensors["diffusion_model.img_in.set_weight"] - W)
    assert update.flags == ("dense", "fine_tune")
    assert "needs_base" in load_adapter(tensors)["diffusion_model.img_in"].flags
    with pytest.raises(InconclusiveError, match="a whole weight needs the base weight"):
        load_adapter(tensors)["diffusion_model.img_in"].delta_W()
    with pytest.raises(ShapeError, match=r"new weight does not have the shape"):
        load_adapter(tensors, base={"diffusion_model.img_in.weight": rng.standard_normal((6, 5))})
