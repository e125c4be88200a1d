"""llama.cpp's LoRA files, written with the package gguf as convert_lora_to_gguf.py writes them."""

from __future__ import annotations

import numpy as np
import pytest

from subspace.adapters import load_adapter
from subspace.errors import FormatError, ShapeError

gguf = pytest.importorskip("gguf")

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def pair(module="blk.0.attn_v", *, r=4, d_in=32, d_out=6, experts=()):
    return {
        f"{module}.weight.lora_a": normal(*experts, r, d_in),
        f"{module}.weight.lora_b": normal(*experts, d_out, r),
    }


def write(path, tensors, alpha=8.0, kind=None):
    """As LoraModel.set_type, set_gguf_parameters and modify_tensors of convert_lora_to_gguf.py do."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    if alpha is not None:
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for name, array in tensors.items():
        quantise = kind if kind is not None and array.shape[-1] % 32 == 0 else None
        data = array if quantise is None else gguf.quants.quantize(array, quantise)
        writer.add_tensor(name, data, raw_dtype=quantise)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_gives_back_what_llama_cpp_adds(tmp_path):
    tensors = pair() | pair("blk.10.ffn_up") | pair("blk.2.ffn_up")
    adapter = load_adapter(write(tmp_path / "lora.gguf", tensors))
    update = adapter["blk.0.attn_v"]
    # src/llama-adapter.h, get_scale: alpha / rank
    added = tensors["blk.0.attn_v.weight.lora_b"] @ tensors["blk.0.attn_v.weight.lora_a"] * (8 / 4)
    assert (adapter.format, adapter.container) == ("gguf", "gguf")
    assert list(adapter) == ["blk.0.attn_v", "blk.2.ffn_up", "blk.10.ffn_up"]
    assert (update.r, update.d_in, update.d_out) == (4, 32, 6)
    assert (update.scale.value, update.scale.alpha) == (2.0, 8.0)
    assert update.delta_W() == pytest.approx(added, rel=1e-5, abs=1e-6)
    assert (adapter.ignored, adapter.unknown, adapter.notes) == ((), (), ())


@pytest.mark.parametrize(("alpha", "scale"), [(0.0, 1.0), (None, None)])
def test_an_alpha_of_zero_stands_for_r_and_none_is_unknown(tmp_path, alpha, scale):
    adapter = load_adapter(write(tmp_path / "lora.gguf", pair(), alpha))
    assert adapter["blk.0.attn_v"].scale.value == scale
    assert any("unknown" in note for note in adapter.notes) == (scale is None)


def test_experts_are_updates_of_their_own(tmp_path):
    tensors = pair("blk.0.ffn_up_exps", experts=(3,))
    adapter = load_adapter(write(tmp_path / "lora.gguf", tensors))
    a, b = tensors.values()
    assert list(adapter) == [f"blk.0.ffn_up_exps[{e}]" for e in range(3)]
    for e in range(3):
        assert adapter[f"blk.0.ffn_up_exps[{e}]"].delta_W() == pytest.approx(
            2 * b[e] @ a[e], rel=1e-5, abs=1e-6
        )


def test_the_embeddings_a_is_transposed(tmp_path):
    # token_embd: lora_a is (vocabulary, r)
    tensors = {"token_embd.weight.lora_a": normal(11, 4), "token_embd.weight.lora_b": normal(6, 4)}
    update = load_adapter(write(tmp_path / "lora.gguf", tensors))["token_embd"]
    a, b = tensors.values()
    assert (update.kind, update.d_in, update.d_out, update.r) == ("embedding", 11, 6, 4)
    assert update.delta_W() == pytest.approx(2 * b @ a.T, rel=1e-5, abs=1e-6)


def test_quantised_factors_are_read_and_said(tmp_path):
    tensors = pair()
    adapter = load_adapter(write(tmp_path / "lora.gguf", tensors, kind=gguf.GGMLQuantizationType.Q8_0))
    a, b = tensors.values()
    assert adapter["blk.0.attn_v"].delta_W() == pytest.approx(2 * b @ a, abs=0.1)
    assert any("Q8_0" in note for note in adapter.notes)


def test_norms_are_accounted_for_and_reordered_rows_are_said(tmp_path):
    tensors = pair("blk.0.attn_q") | {"blk.0.attn_norm.weight": normal(8)}
    adapter = load_adapter(write(tmp_path / "lora.gguf", tensors))
    assert [entry.key for entry in adapter.ignored] == ["blk.0.attn_norm.weight"]
    assert adapter.unknown == ()
    assert any("llama.cpp reorders them" in note for note in adapter.notes)


def test_a_model_is_no_adapter(tmp_path):
    with pytest.raises(FormatError, match="which is a model"):
        load_adapter(write(tmp_path / "model.gguf", {"blk.0.attn_v.weight": normal(6, 8)}))


@pytest.mark.parametrize("part", ["a", "b"])
def test_half_a_pair_is_an_error(tmp_path, part):
    tensors = pair()
    del tensors[f"blk.0.attn_v.weight.lora_{part}"]
    with pytest.raises(ShapeError, match=f"^Incomplete pair: lora_{part} is missing"):
        load_adapter(write(tmp_path / "lora.gguf", tensors))


def test_factors_that_do_not_fit_are_an_error(tmp_path):
    for wrong in (normal(6, 3), normal(2, 6, 4)):
        tensors = pair() | {"blk.0.attn_v.weight.lora_b": wrong}
        with pytest.raises(ShapeError, match=r"different ranks|two stacks of equal length"):
            load_adapter(write(tmp_path / "lora.gguf", tensors))
