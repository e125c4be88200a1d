"""SAM-LoRA, SAMed and LoRA-ViT files, laid out by hand.

Layout after hitachinsk/SAMed sam_lora_image_encoder.py and MathieuNlp/Sam_LoRA src/lora.py (save_lora_parameters):
w_a_NNN and w_b_NNN are the weights of bias-free linear layers, q then v of each block; other weights are saved too.
"""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from subspace.adapters import load_adapter, load_base
from subspace.errors import FormatError, ShapeError

RNG = np.random.default_rng(0)


def pairs(blocks=2, *, r=2, d=6, d_out=None):
    tensors = {}
    for index in range(2 * blocks):
        tensors[f"w_a_{index:03d}"] = RNG.standard_normal((r, d)).astype(np.float32)
        tensors[f"w_b_{index:03d}"] = RNG.standard_normal((d_out or d, r)).astype(np.float32)
    return tensors


def test_q_and_v_of_each_block_are_the_rows_that_the_writer_adds_to(tmp_path):
    tensors = pairs()
    save_file(tensors, tmp_path / "lora.safetensors")
    adapter = load_adapter(tmp_path / "lora.safetensors")
    qkv, x = np.zeros((1, 18)), RNG.standard_normal((1, 6))
    # forward of the writer: qkv[..., :d] += B_q(A_q(x)) and qkv[..., -d:] += B_v(A_v(x))
    qkv[:, :6] += x @ tensors["w_a_002"].T @ tensors["w_b_002"].T
    qkv[:, -6:] += x @ tensors["w_a_003"].T @ tensors["w_b_003"].T
    whole = np.zeros((18, 6))
    for part in "qv":
        update = adapter[f"blocks.1.attn.qkv[{part}]"]
        whole[slice(*update.rows)] = update.delta_W()
        assert (update.scale.value, update.scale.source) == (1.0, "no multiplier in SAM-LoRA")
    assert adapter.format == "positional"
    assert (len(adapter), adapter.ignored, adapter.unknown) == (4, (), ())
    assert x @ whole.T == pytest.approx(qkv, rel=1e-5)


def test_an_update_finds_its_rows_in_the_fused_layer_of_the_base():
    W = RNG.standard_normal((18, 6)).astype(np.float32)
    base = load_base({"image_encoder.blocks.0.attn.qkv.weight": W})
    adapter = load_adapter(pairs())
    for part, rows in (("q", W[:6]), ("v", W[12:])):
        assert np.array_equal(base.weight(adapter[f"blocks.0.attn.qkv[{part}]"]).matrix(), rows)


def test_blocks_are_in_the_order_of_their_numbers():
    assert list(load_adapter(pairs(12)))[-2:] == ["blocks.11.attn.qkv[q]", "blocks.11.attn.qkv[v]"]


def test_a_zero_b_is_a_zero_update():
    tensors = pairs() | {"w_b_000": np.zeros((6, 2), np.float32)}
    assert not load_adapter(tensors)["blocks.0.attn.qkv[q]"].delta_W().any()


def test_weights_saved_beside_are_ignored_with_why():
    others = {
        "fc_768in_10out": np.ones((10, 6), np.float32),
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": np.ones((2, 6), np.float32),
        "mask_decoder.iou_token.weight": np.ones((1, 6), np.float32),
        "mask_decoder.output_upscaling.0.weight": np.ones((2, 2, 2, 2), np.float32),
        "w_a_supp_000": np.ones((2, 6), np.float32),
    }
    adapter = load_adapter(pairs() | others)
    assert {entry.key for entry in adapter.ignored} == set(others) - {"w_a_supp_000"}
    assert all(entry.why for entry in adapter.ignored)
    assert adapter.unknown == ("w_a_supp_000",)


def test_w_a_alone_is_refused_by_name():
    tensors = {key: value for key, value in pairs().items() if key.startswith("w_a")}
    with pytest.raises(FormatError, match=r"only w_a \(4 of them\)"):
        load_adapter(tensors)


@pytest.mark.parametrize(
    ("missing", "said"), [("b", "w_b is missing .* has w_a"), ("a", "w_a is missing .* has w_b")]
)
def test_half_a_pair_is_an_error(missing, said):
    tensors = pairs()
    del tensors[f"w_{missing}_001"]
    with pytest.raises(ShapeError, match=said):
        load_adapter(tensors)


def test_factors_that_do_not_multiply_are_an_error():
    with pytest.raises(ShapeError, match="different ranks"):
        load_adapter(pairs() | {"w_b_000": np.ones((6, 3), np.float32)})


@pytest.mark.parametrize("tensors", [pairs(d_out=18), {k: v for k, v in pairs().items() if "003" not in k}])
def test_what_is_not_q_and_v_of_fused_layers_is_numbered_only(tensors):
    adapter = load_adapter(tensors)
    assert list(adapter)[:2] == ["w_000", "w_001"]
    assert all(update.rows is None for update in adapter.values())
    assert "not those of q and v" in adapter.notes[0]


def test_one_matrix_alone_is_a_dense_file_whatever_its_name():
    assert load_adapter({"w_a_000": np.ones((2, 6), np.float32)}).format == "dense"


def test_a_style_beside_another_is_read_with_it():
    loralib = {"k.lora_A": np.ones((2, 3), np.float32), "k.lora_B": np.ones((3, 2), np.float32)}
    for tensors in (pairs() | loralib, loralib | pairs()):
        adapter = load_adapter(tensors)
        assert adapter.format == "loralib + positional"
        assert set(adapter) == {"k", *load_adapter(pairs())}
