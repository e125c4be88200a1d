"""Base weights: found under either naming, oriented, cut, widened, refused when quantised, read one at a time."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from subspace.adapters import DenseUpdate, LowRankUpdate, Scale, load_base
from subspace.adapters.update import Factor
from subspace.checkpoints import from_memory
from subspace.errors import FileError, FormatError, InconclusiveError, ShapeError, SubspaceError

pytestmark = pytest.mark.filterwarnings(r"ignore:::transformers\..*")

MODELS = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=13, n_positions=9)
    ),
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=8,
            intermediate_size=20,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=13,
        )
    ),
    "bert": lambda: transformers.BertForSequenceClassification(
        transformers.BertConfig(
            hidden_size=8, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, vocab_size=13
        )
    ),
    "t5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(d_model=8, d_kv=4, d_ff=20, num_layers=2, num_heads=2, vocab_size=13)
    ),
    "whisper": lambda: transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            d_model=8,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=12,
            decoder_ffn_dim=12,
            vocab_size=13,
            num_mel_bins=4,
            max_source_positions=5,
            max_target_positions=7,
            pad_token_id=0,
            decoder_start_token_id=1,
        )
    ),
}


def update(module, d_out, d_in, *, rows=None, kind="linear", fan=None, flags=()):
    A, B = Factor.of(np.ones((1, d_in))), Factor.of(np.ones((d_out, 1)))
    return LowRankUpdate(module, A, B, Scale(1.0, "tensor"), kind, rows, fan, flags)


def oriented(weight):
    """W (d_out, d_in), whatever way the file holds it."""
    return weight.matrix().T if weight.transposed else weight.matrix()


def effective(module):
    """The matrix that a layer multiplies with, (d_out, d_in)."""
    W = module.weight.detach()
    if isinstance(module, torch.nn.Embedding | transformers.pytorch_utils.Conv1D):
        W = W.T
    return W.reshape(W.shape[0], -1).float().numpy()


def targets(model):
    kinds = (torch.nn.Linear, torch.nn.Embedding, torch.nn.Conv1d, transformers.pytorch_utils.Conv1D)
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds)}


@pytest.mark.parametrize("prefix", ["", "base.", "strip"])
@pytest.mark.parametrize("shards", [False, True], ids=["whole", "shards"])
@pytest.mark.parametrize("kind", MODELS)
def test_every_layer_of_a_saved_model(kind, shards, prefix, tmp_path):
    torch.manual_seed(0)
    model = MODELS[kind]()
    model.save_pretrained(tmp_path, **({"max_shard_size": "2KB"} if shards else {}))
    base = load_base(tmp_path)
    assert base.model_type == kind
    assert base.tensors.container == ("sharded safetensors" if shards else "safetensors")
    for name, layer in targets(model).items():
        expected = effective(layer)
        embedding = isinstance(layer, torch.nn.Embedding)
        # not what tells the encoder from the decoder
        short = name.removeprefix("model.").removeprefix("transformer.").removeprefix("bert.")
        known = prefix + name if prefix != "strip" else short
        found = base.weight(update(known, *expected.shape, kind="embedding" if embedding else "linear"))
        assert found is not None, known
        assert found.shape == expected.shape
        np.testing.assert_array_equal(oriented(found), expected)
        np.testing.assert_array_equal(found.factor().load(), expected)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_model_in_memory_and_a_bare_file(kind, tmp_path):
    model = MODELS[kind]()
    torch.save(model.state_dict(), tmp_path / "weights.bin")
    for base in (load_base(model), load_base(tmp_path / "weights.bin"), load_base(model.state_dict())):
        for name, layer in targets(model).items():
            expected = effective(layer)
            embedding = isinstance(layer, torch.nn.Embedding)
            kind = "embedding" if embedding else "linear"
            found = base.weight(update(name, *expected.shape, kind=kind))
            # square c_proj too: by the shapes of its sisters c_attn and c_fc
            np.testing.assert_array_equal(oriented(found), expected, err_msg=f"{name}: {found.orientation}")


def test_what_decides_about_a_square_weight():
    W = np.arange(16.0).reshape(4, 4)
    conv, plain = {"h.0.c_attn.weight": np.ones((4, 12))}, {"h.0.c_attn.weight": np.ones((12, 4))}
    cases = [
        ({**conv, "h.0.c_proj.weight": W}, "h.0.c_proj", None, True, "other Conv1D"),
        ({**plain, "h.0.c_proj.weight": W}, "h.0.c_proj", True, False, "other Conv1D"),
        ({"h.0.c_proj.weight": W, "x.weight": W}, "h.0.c_proj", True, True, "fan_in_fan_out"),
        ({"h.0.q.weight": W, "x.weight": W}, "h.0.q", None, False, "taken as"),
        ({**conv, "h.0.q.weight": W}, "h.0.q", None, False, "taken as"),
    ]
    for tensors, module, fan, transposed, why in cases:
        found = load_base(tensors).weight(update(module, 4, 4, fan=fan))
        assert found.transposed is transposed
        assert why in found.orientation


def test_gpt_bigcode_has_no_conv1d(tmp_path):
    save_file(
        {"h.0.attn.c_proj.weight": np.eye(4, dtype="f4"), "x.weight": np.eye(4, dtype="f4")},
        tmp_path / "model.safetensors",
    )
    (tmp_path / "config.json").write_text('{"model_type": "gpt_bigcode"}')
    assert not load_base(tmp_path).weight(update("h.0.attn.c_proj", 4, 4)).transposed


@pytest.mark.parametrize("suffix", ["npy", "pt", "safetensors", "bare.safetensors"])
def test_one_matrix(suffix, tmp_path):
    W, path = np.arange(12, dtype="f4").reshape(3, 4), tmp_path / f"W.{suffix}"
    if suffix == "npy":
        np.save(path, W)
    elif suffix == "pt":
        torch.save(torch.from_numpy(W), path)
    else:
        save_file({"weight" if "bare" in suffix else "h.0.q.weight": W}, path)
    name = "h.0.q" if suffix == "safetensors" else "any.thing"
    for module in (name, ""):
        np.testing.assert_array_equal(load_base(path).weight(update(module, 3, 4)).matrix(), W)


def test_two_bare_matrices_are_not_one():
    base = load_base({"W": np.ones((3, 4)), "V": np.zeros((3, 4))})
    assert base.weight(update("q", 3, 4)) is None
    np.testing.assert_array_equal(base.weight(update("W", 3, 4)).matrix(), np.ones((3, 4)))


def test_missing_and_ambiguous_modules():
    base = load_base({"a.q.weight": np.ones((3, 4)), "b.q.weight": np.ones((3, 4))})
    assert base.weight(update("c.k", 3, 4)) is None
    with pytest.raises(FormatError, match=r"could be a\.q, b\.q"):
        base.weight(update("q", 3, 4))


def test_another_shape():
    base = load_base({"a.q.weight": np.ones((3, 5)), "x.weight": np.ones((2, 2))})
    with pytest.raises(
        ShapeError,
        match=r"a\.q\.weight .*: it is \[3, 5\] and delta_W of module a\.q is \[3, 4\], in the state dict in memory",
    ):
        base.weight(update("a.q", 3, 4))


def test_tied_heads_and_tables(tmp_path):
    table = {"model.embed_tokens.weight": np.ones((13, 8), "f4"), "model.x.weight": np.ones((2, 2), "f4")}
    save_file(table, tmp_path / "model.safetensors")
    assert load_base(tmp_path).weight(update("lm_head", 13, 8)) is None  # nothing says that they are tied
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert load_base(tmp_path).weight(update("lm_head", 13, 8)).key == "model.embed_tokens.weight"
    (tmp_path / "config.json").write_text('{"tie_word_embeddings": false}')
    assert load_base(tmp_path).weight(update("lm_head", 13, 8)) is None
    shared = load_base({"shared.weight": np.ones((13, 8)), "x.weight": np.ones((2, 2))})
    assert shared.weight(update("encoder.embed_tokens", 8, 13, kind="embedding")).transposed


@pytest.mark.parametrize(
    ("fused", "module", "sizes", "rows"),
    [
        ("qkv_proj", "q_proj", (8, 24), (0, 8)),
        ("qkv_proj", "v_proj", (8, 24), (16, 24)),
        ("qkv_proj", "q_proj", (8, 16), (0, 8)),
        ("qkv_proj", "k_proj", (4, 16), (8, 12)),
        ("qkv_proj", "v_proj", (4, 16), (12, 16)),
        ("c_attn", "k_proj", (8, 24), (8, 16)),
        ("qkv", "key", (8, 24), (8, 16)),
        ("gate_up_proj", "up_proj", (10, 20), (10, 20)),
        ("in_proj_weight", "q_proj", (8, 24), (0, 8)),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_part_of_a_fused_layer(fused, module, sizes, rows, turned):
    d_out, total = sizes
    W = np.arange(total * 6.0).reshape(total, 6)
    key = f"h.0.attn.{fused}" + ("" if fused.endswith("weight") else ".weight")
    found = load_base({key: W.T if turned else W, "x.weight": np.ones((2, 2))}).weight(
        update(f"model.h.0.attn.{module}", d_out, 6)
    )
    assert found.rows == rows
    assert found.shape == (d_out, 6)
    np.testing.assert_array_equal(oriented(found), W[slice(*rows)])
    np.testing.assert_array_equal(found.streamed().T if turned else found.streamed(), W[slice(*rows)])


@pytest.mark.parametrize(
    ("fused", "module", "sizes"),
    [
        ("query_key_value", "query", (8, 24)),
        ("c_attn", "q_proj", (8, 16)),
        ("qkv_proj", "q_proj", (8, 21)),
        ("qkv_proj", "k_proj", (4, 11)),
        ("qkv_proj", "q_proj", (4, 24)),
    ],
)
def test_a_fused_layer_that_cannot_be_cut(fused, module, sizes):
    base = load_base({f"h.0.attn.{fused}.weight": np.ones((sizes[1], 6)), "x.weight": np.ones((2, 2))})
    with pytest.raises(
        FormatError,
        match=rf"Cannot tell which rows of the base belong to module h\.0\.attn\.{module}: .*apart",
    ):
        base.weight(update(f"h.0.attn.{module}", sizes[0], 6))


def test_groups_of_c_attn():
    W = np.arange(12 * 36.0).reshape(12, 36)
    base = load_base({"h.0.c_attn.weight": W, "x.weight": np.ones((2, 2))})
    found = base.weight(update("h.0.c_attn[v]", 12, 12, rows=(24, 36)))
    np.testing.assert_array_equal(oriented(found), W.T[24:])
    with pytest.raises(ShapeError):
        base.weight(update("h.0.c_attn[v]", 12, 12, rows=(36, 48)))
    with pytest.raises(InconclusiveError, match="`enable_lora`"):
        base.weight(update("h.0.c_attn[0]", 12, 12, flags=("group_unknown",)))
    with pytest.raises(InconclusiveError, match="layer_replication"):
        base.weight(update("h.0.c_attn", 36, 12, flags=("layer_replication",)))


def test_convolutions_are_flattened():
    W = np.arange(6 * 4 * 3 * 3.0).reshape(6, 4, 3, 3)
    base = load_base({"c.weight": W, "x.weight": np.ones((2, 2))})
    np.testing.assert_array_equal(base.weight(update("c", 6, 36)).matrix(np.float64), W.reshape(6, 36))
    as_loralib = base.weight(update("c", 18, 12))
    np.testing.assert_array_equal(as_loralib.matrix(np.float64), W.reshape(18, 12))
    assert "loralib" in as_loralib.orientation


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2],
)
def test_types_are_widened(dtype, tmp_path):
    W = torch.linspace(-2, 2, 24).reshape(4, 6).to(dtype)
    save_torch({"q.weight": W, "x.weight": W.T.contiguous()}, tmp_path / "model.safetensors")
    found = load_base(tmp_path).weight(update("q", 4, 6))
    np.testing.assert_array_equal(found.matrix(np.float64), W.double().numpy())


QUANTISED = {
    # of the order of a graphics card, and without the state that says how large the blocks are
    "bitsandbytes int8": {
        "a.q.weight": np.ones((4, 6), "i1"),
        "a.q.SCB": np.ones(4, "f4"),
        "a.q.weight_format": np.array(2, "u1"),
    },
    "bitsandbytes 4-bit": {"a.q.weight": np.ones((12, 1), "u1"), "a.q.weight.absmax": np.ones(4, "f4")},
    "GPTQ or AWQ": {"a.q.qweight": np.ones((4, 6), "i4"), "a.q.scales": np.ones((1, 6), "f2")},
    "compressed-tensors": {"a.q.weight_packed": np.ones((4, 1), "i4")},
    "HQQ": {"a.q.W_q": np.ones((4, 6), "u1")},
    "int16 numbers": {"a.q.weight": np.ones((4, 6), "i2")},
}


@pytest.mark.parametrize("kind", QUANTISED)
@pytest.mark.parametrize("module", ["a.q", "q", "model.a.q"])
def test_quantised_weights_are_refused_by_name(kind, module):
    base = load_base({**QUANTISED[kind], "x.weight": np.ones((2, 2))})
    with pytest.raises(FormatError, match=rf"a\.q\..* is quantised: {kind}.*dequantise"):
        base.weight(update(module, 4, 6))


@pytest.mark.parametrize("scale", ["weight_scale_inv", "weight_scale", "scale_weight"])
def test_scaled_8_bit_floats_are_not_read_with_scales_that_do_not_fit(scale, tmp_path):
    W = torch.ones(4, 6).to(torch.float8_e4m3fn)
    save_torch(
        {"a.q.weight": W, f"a.q.{scale}": torch.ones(3, 1), "x.weight": W.T.contiguous()},
        tmp_path / "m.safetensors",
    )
    with pytest.raises(FormatError, match=scale):
        load_base(tmp_path).weight(update("a.q", 4, 6))


def test_only_what_is_asked_for_is_read(tmp_path):
    """A file of 40 GB that the disk does not hold: all but one tensor is a hole."""
    big = [200_000, 50_000]
    header = json.dumps(
        {
            "q.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
            "giant.weight": {"dtype": "F32", "shape": big, "data_offsets": [24, 24 + 4 * big[0] * big[1]]},
        }
    ).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header + np.arange(6, dtype="f4").tobytes())
        file.truncate(8 + len(header) + 24 + 4 * big[0] * big[1])
    tracemalloc.start()
    found = load_base(tmp_path).weight(update("q", 2, 3))
    np.testing.assert_array_equal(found.matrix(), np.arange(6.0).reshape(2, 3))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_one_read_a_weight(monkeypatch):
    tensors = from_memory({f"h.{n}.q.weight": np.ones((3, 4)) for n in range(9)})
    reads = []
    raw = type(tensors).raw
    monkeypatch.setattr(type(tensors), "raw", lambda self, key: reads.append(key) or raw(self, key))
    base = load_base({f"h.{n}.q.weight": np.ones((3, 4)) for n in range(9)})
    assert reads == []
    base.weight(update("h.3.q", 3, 4)).matrix()
    assert reads == ["h.3.q.weight"]


@pytest.mark.parametrize(
    ("names", "error"),
    [
        ([], "No weights of a model in the directory .*: no model.safetensors"),
        (["a.safetensors", "b.safetensors"], r"holds a\.safetensors, b\.safetensors; name the file"),
    ],
)
def test_a_directory_that_does_not_say(names, error, tmp_path):
    for name in names:
        save_file({"q.weight": np.ones((2, 2))}, tmp_path / name)
    with pytest.raises(FileError, match=error):
        load_base(tmp_path)


@pytest.mark.parametrize("path", ["missing", "x" * 5000, "nul\0", b"missing"])
def test_paths_that_are_none(path):
    with pytest.raises(SubspaceError):
        load_base(path)


def test_a_base_without_a_matrix():
    with pytest.raises(FormatError, match="There is no weight matrix in the base, "):
        load_base({"q.bias": np.ones(3), "h.bias": np.ones((1, 1, 4, 4))})


def test_dense_updates_find_their_weight_too():
    found = load_base({"a.q.weight": np.ones((3, 4)), "x.weight": np.ones((2, 2))}).weight(
        DenseUpdate("q", Factor.of(np.ones((3, 4))))
    )
    assert found.key == "a.q.weight"
