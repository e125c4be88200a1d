"""Base weights that are stored as codes: the numbers are those of the library that wrote them."""

import json
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from subspace import compare
from subspace.adapters import LowRankUpdate, load_base
from subspace.adapters.update import Factor, Scale
from subspace.analysis.amplify import amplify
from subspace.errors import FormatError, SubspaceError
from subspace.flags import Flag

_NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip
_FP4 = [0, 0.0625, 8, 12, 4, 6, 2, 3, -0.0, -0.0625, -8, -12, -4, -6, -2, -3]


def _update(module, d_out, d_in):
    factors = [np.ones((1, d_in)), np.ones((d_out, 1))]
    A, B = (Factor(M.shape, "float64", lambda M=M: M) for M in factors)
    return LowRankUpdate(module, A, B, scale=Scale(1.0, "given"))


def _read(tensors, tmp_path, shape, config=None, module="a.q"):
    save_file({**tensors, "x.weight": torch.ones(2, 3)}, tmp_path / "model.safetensors")
    if config:
        (tmp_path / "config.json").write_text(json.dumps(config))
    return load_base(tmp_path).weight(_update(module, *shape))


def _require_rows(found, W):
    """All of it, any rows of it, and rows in a buffer of the caller are the same numbers."""
    np.testing.assert_array_equal(found.matrix(), W)
    for start, stop in ((0, 1), (1, 4), (3, len(W))):
        np.testing.assert_array_equal(found.stored.rows(start, stop), W[start:stop])
        out = np.empty((len(W), W.shape[1]), np.float64)
        np.testing.assert_array_equal(found.stored.rows(start, stop, out=out), W[start:stop])


# ---- bitsandbytes


@pytest.mark.parametrize("name", ["a.q.SCB", "a.q.weight.SCB"])
def test_int8_of_bitsandbytes(name, tmp_path):
    rng = np.random.default_rng(0)
    codes, scales = rng.integers(-127, 128, (6, 10)).astype("i1"), rng.uniform(0.1, 2, 6).astype("f4")
    tensors = {"a.q.weight": torch.tensor(codes), name: torch.tensor(scales)}
    tensors["a.q.weight_format"] = torch.tensor(0, dtype=torch.uint8)
    found = _read(tensors, tmp_path, (6, 10))
    # functional.int8_vectorwise_dequant: A * stats.view(-1, 1) * 7.874015718698502e-3
    _require_rows(found, codes * scales[:, None] * np.float32(7.874015718698502e-3))
    assert found.quantised == "bitsandbytes int8"


def _packed(codes):
    """Two codes a byte, the first in the upper half; an odd one out has a zero after it."""
    flat = np.append(codes.reshape(-1), [0] * (codes.size % 2)).astype("u1")
    return torch.tensor(flat[::2] << 4 | flat[1::2]).reshape(-1, 1)


def _4bit(codes, absmax, table, kind, *, blocksize, nested=None):
    state = {"quant_type": kind, "blocksize": blocksize, "dtype": "float32", "shape": list(codes.shape)}
    tensors = {
        "a.q.weight": _packed(codes),
        "a.q.weight.absmax": torch.tensor(absmax),
        "a.q.weight.quant_map": torch.tensor(table, dtype=torch.float32),
    }
    if nested is not None:
        scales, values, offset, size = nested
        state |= {"nested_blocksize": size, "nested_dtype": "float32", "nested_offset": offset}
        tensors["a.q.weight.nested_absmax"] = torch.tensor(scales)
        tensors["a.q.weight.nested_quant_map"] = torch.tensor(values)
    text = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    return {**tensors, f"a.q.weight.quant_state.bitsandbytes__{kind}": text}


@pytest.mark.parametrize(("kind", "table"), [("nf4", _NF4), ("fp4", _FP4)])
@pytest.mark.parametrize("shape", [(6, 64), (5, 7), (9, 50)])
@pytest.mark.parametrize("nested", [False, True])
def test_4_bits_of_bitsandbytes(kind, table, shape, nested, tmp_path):
    """A plain transcription of `dequantize_4bit` and `dequantize_blockwise`, a number at a time."""
    rng = np.random.default_rng(1)
    codes, size = rng.integers(0, 16, shape), 32
    blocks = -(-codes.size // size)
    absmax = rng.uniform(0.5, 2, blocks).astype("f4")
    extra = None
    if nested:
        stored, values = rng.integers(0, 256, blocks).astype("u1"), rng.uniform(-1, 1, 256).astype("f4")
        outer = rng.uniform(0.5, 2, -(-blocks // 4)).astype("f4")
        extra = outer, values, 0.25, 4
        absmax = np.array(
            [values[c] * outer[n // 4] + np.float32(0.25) for n, c in enumerate(stored)], np.float32
        )
    found = _read(
        _4bit(codes, stored if nested else absmax, table, kind, blocksize=size, nested=extra), tmp_path, shape
    )
    flat = [np.float32(table[c]) * absmax[n // size] for n, c in enumerate(codes.reshape(-1))]
    _require_rows(found, np.array(flat, np.float32).reshape(shape))
    assert found.quantised == f"bitsandbytes {kind}"
    assert found.shape == shape


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
def test_4_bits_as_bitsandbytes_itself_computes_them(kind, nested, tmp_path):
    functional = pytest.importorskip("bitsandbytes.functional")
    W = torch.randn(24, 128, generator=torch.Generator().manual_seed(0))
    codes, state = functional.quantize_4bit(W, quant_type=kind, compress_statistics=nested)
    tensors = {"a.q.weight": codes, **{f"a.q.weight.{k}": v for k, v in state.as_dict(packed=True).items()}}
    found = _read(tensors, tmp_path, (24, 128))
    expected = functional.dequantize_4bit(codes, state).numpy()
    np.testing.assert_allclose(found.matrix(), expected, rtol=2e-6, atol=1e-7)


def test_int8_as_bitsandbytes_itself_computes_it(tmp_path):
    functional = pytest.importorskip("bitsandbytes.functional")
    W = torch.randn(24, 128, generator=torch.Generator().manual_seed(0)).half()
    codes, scales, _ = functional.int8_vectorwise_quant(W)
    found = _read({"a.q.weight": codes, "a.q.SCB": scales}, tmp_path, (24, 128))
    np.testing.assert_allclose(
        found.matrix(), functional.int8_vectorwise_dequant(codes, scales).numpy(), rtol=1e-6
    )
    assert np.abs(found.matrix() - W.float().numpy()).max() < 0.03


@pytest.mark.parametrize("lost", ["quant_state.bitsandbytes__nf4", "quant_map", "nested_absmax"])
def test_a_part_that_is_missing_is_an_error_by_name(lost, tmp_path):
    nested = np.ones(2, "f4"), np.ones(256, "f4"), 0.0, 4
    tensors = _4bit(np.ones((4, 64), int), np.ones(8, "u1"), _NF4, "nf4", blocksize=32, nested=nested)
    del tensors[f"a.q.weight.{lost}"]
    with pytest.raises(FormatError, match="is quantised: bitsandbytes 4-bit"):
        _read(tensors, tmp_path, (4, 64))


# ---- 8 bits with scales


def _e4m3(shape, seed=0):
    W = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(torch.float8_e4m3fn)
    return W, W.float().numpy()


def _dense(scales, shape, block):
    """Scales of blocks as a matrix of one scale for each number."""
    return np.array(
        [[scales[i // block[0], j // block[1]] for j in range(shape[1])] for i in range(shape[0])]
    )


@pytest.mark.parametrize("shape", [(256, 384), (130, 200), (64, 300)])
def test_blocks_of_deepseek(shape, tmp_path):
    codes, numbers = _e4m3(shape)
    count = -(-shape[0] // 128), -(-shape[1] // 128)
    scales = np.random.default_rng(0).uniform(0.5, 2, count).astype("f4")
    found = _read({"a.q.weight": codes, "a.q.weight_scale_inv": torch.tensor(scales)}, tmp_path, shape)
    _require_rows(found, numbers * _dense(scales, shape, (128, 128)).astype("f4"))
    assert found.quantised == "float8_e4m3fn with weight_scale_inv"


def test_the_configuration_says_how_large_the_blocks_are(tmp_path):
    codes, numbers = _e4m3((40, 60))
    scales = np.random.default_rng(0).uniform(0.5, 2, (3, 2)).astype("f4")
    config = {"model_type": "llama", "quantization_config": {"weight_block_size": [16, 32]}}
    tensors = {"a.q.weight": codes, "a.q.weight_scale_inv": torch.tensor(scales)}
    _require_rows(
        _read(tensors, tmp_path, (40, 60), config), numbers * _dense(scales, (40, 60), (16, 32)).astype("f4")
    )


@pytest.mark.parametrize("name", ["weight_scale", "weight_scale_inv", "scale_weight"])
@pytest.mark.parametrize("scale_shape", [(), (1,), (6,), (6, 1), (6, 2)])
def test_scales_of_a_tensor_a_row_and_a_group(name, scale_shape, tmp_path):
    codes, numbers = _e4m3((6, 8))
    scales = torch.rand(scale_shape, generator=torch.Generator().manual_seed(0)) + 0.5
    found = _read({"a.q.weight": codes, f"a.q.{name}": scales.bfloat16()}, tmp_path, (6, 8))
    wide = scales.bfloat16().float().numpy()
    dense = wide.reshape(-1, 1) if wide.ndim == 1 else np.repeat(wide, 4, axis=1) if wide.size == 12 else wide
    _require_rows(found, numbers * dense)


def test_whole_numbers_with_scales_and_zero_points(tmp_path):
    rng = np.random.default_rng(0)
    codes, zeros = rng.integers(-128, 128, (5, 6)).astype("i1"), rng.integers(-9, 9, (5, 1)).astype("i1")
    scales = rng.uniform(0.1, 1, (5, 1)).astype("f4")
    tensors = {"weight": codes, "weight_scale": scales, "weight_zero_point": zeros}
    found = _read({f"a.q.{k}": torch.tensor(v) for k, v in tensors.items()}, tmp_path, (5, 6))
    _require_rows(found, (codes.astype("f4") - zeros) * scales)


# ---- in a question


def _adapter(folder, d_out=24, d_in=64):
    rng = np.random.default_rng(3)
    folder.mkdir()
    tensors = {"lora_A": rng.standard_normal((2, d_in)), "lora_B": rng.standard_normal((d_out, 2))}
    save_file(
        {f"base_model.model.a.q.{k}.weight": torch.tensor(v) for k, v in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_a_row_says_that_w_was_dequantised_and_a_note_from_what(tmp_path):
    codes = np.random.default_rng(0).integers(0, 16, (24, 64))
    tensors = _4bit(codes, np.full(48, 0.5, "f4"), _NF4, "nf4", blocksize=32)
    save_file({**tensors, "x.weight": torch.ones(2, 3)}, tmp_path / "model.safetensors")
    delta = _adapter(tmp_path / "delta")
    result = amplify(tmp_path / "model.safetensors", delta)
    plain = amplify({"a.q.weight": np.array(_NF4, "f4")[codes] * np.float32(0.5)}, delta)
    assert Flag.DEQUANTISED in result[0].flags
    assert any(
        "1 module are stored as bitsandbytes nf4" in note or "bitsandbytes nf4" in note
        for note in result.notes
    )
    assert result[0].ranks[0].proj_W == plain[0].ranks[0].proj_W
    assert Flag.DEQUANTISED not in plain[0].flags
    assert result[0].base_stored_as == result.records()[0]["base_stored_as"] == "bitsandbytes nf4"
    assert "base_stored_as" not in plain.records()[0]


def test_a_comparison_with_w_itself_says_so_too(tmp_path):
    codes, _ = _e4m3((24, 64))
    save_file({"a.q.weight": codes, "a.q.weight_scale": torch.ones(24, 1)}, tmp_path / "model.safetensors")
    rows = compare(_adapter(tmp_path / "delta"), tmp_path / "model.safetensors", side="a")
    assert Flag.DEQUANTISED in rows[0].flags


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "Q5_0", "F16", "BF16"])
def test_gguf(kind, tmp_path):
    gguf = pytest.importorskip("gguf")
    W = np.random.default_rng(0).standard_normal((24, 64)).astype("f4")
    type_ = gguf.GGMLQuantizationType[kind]
    data = gguf.quants.quantize(W, type_)
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("blk.0.attn_v.weight", data, raw_dtype=type_)
    for step in ("header_to_file", "kv_data_to_file", "tensors_to_file"):
        getattr(writer, f"write_{step}")()
    writer.close()
    base = load_base(tmp_path / "model.gguf")
    found = base.weight(_update("model.layers.0.self_attn.v_proj", 24, 64))
    _require_rows(found, gguf.quants.dequantize(data, type_))
    assert found.quantised == (f"GGUF {kind}" if kind.startswith("Q") else "")


def test_gguf_without_its_package_is_an_error_that_names_the_extra(tmp_path, monkeypatch):
    gguf = pytest.importorskip("gguf")
    W = np.zeros((4, 64), "f4")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("blk.0.attn_v.weight", gguf.quants.quantize(W, gguf.GGMLQuantizationType.Q8_0),
                      raw_dtype=gguf.GGMLQuantizationType.Q8_0)  # fmt: skip
    for step in ("header_to_file", "kv_data_to_file", "tensors_to_file"):
        getattr(writer, f"write_{step}")()
    writer.close()
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(SubspaceError, match=r"pip install 'lora-subspace\[gguf\]'"):
        load_base(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("state", "tensors"),
    [
        ({"blocksize": 0}, {}),
        ({"blocksize": -32}, {}),
        ({"blocksize": 32.0}, {}),
        ({"blocksize": 10**15}, {}),
        ({"blocksize": 10**15}, {"absmax": np.ones(1, "f4")}),
        ({"shape": [0, 64]}, {}),
        ({"shape": [-4, -64]}, {}),
        ({"shape": [2**62, 2**62]}, {}),
        ({"shape": 4}, {}),
        ({"nested_blocksize": 0}, {"absmax": np.ones(8, "u1")}),
        ({"nested_blocksize": 10**15}, {"absmax": np.ones(8, "u1")}),
        ({"nested_offset": 1e300}, {"absmax": np.ones(8, "u1")}),
        ({"nested_offset": None}, {"absmax": np.ones(8, "u1")}),
        ({}, {"quant_map": np.full(16, 1e300)}),
        ({}, {"quant_map": np.ones(3, "f4")}),
        ({}, {"absmax": np.full(8, np.inf, "f4")}),
    ],
)
def test_what_a_stranger_may_state_of_4_bits(state, tensors, tmp_path):
    """It is read or refused, in no more memory than the file takes, and without a warning."""
    codes = np.ones((4, 64), int)
    nested = np.ones(8, "f4"), np.linspace(-1, 1, 256).astype("f4"), 0.5, 4
    made = _4bit(codes, np.ones(8, "f4"), _NF4, "nf4", blocksize=32, nested=nested)
    stated = "a.q.weight.quant_state.bitsandbytes__nf4"
    text = json.dumps(json.loads(bytes(made[stated].tolist())) | state).encode()
    made[stated] = torch.tensor(list(text), dtype=torch.uint8)
    made |= {f"a.q.weight.{name}": torch.from_numpy(value) for name, value in tensors.items()}
    tracemalloc.start()
    try:
        assert _read(made, tmp_path, (4, 64)).matrix().shape == (4, 64)
    except SubspaceError as error:
        assert "\n" not in str(error)
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most < 2**20


def test_zero_points_may_be_fewer_than_scales(tmp_path):
    rng = np.random.default_rng(0)
    codes, scales = rng.integers(-127, 128, (4, 6)).astype("i1"), rng.uniform(0.1, 2, (4, 1)).astype("f4")
    tensors = {"a.q.weight": torch.tensor(codes), "a.q.weight_scale": torch.tensor(scales)}
    tensors["a.q.weight_zero_point"] = torch.tensor([3], dtype=torch.int8)
    _require_rows(_read(tensors, tmp_path, (4, 6)), (codes.astype("f4") - 3) * scales)
