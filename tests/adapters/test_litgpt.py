"""LitGPT checkpoints: the fused layer against what LoRAQKVLinear adds, written out by hand (litgpt/lora.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from subspace.adapters import load_adapter
from subspace.errors import FileError, FormatError, ShapeError

RNG = np.random.default_rng(0)
QKV = "transformer.h.0.attn.qkv"
N_EMBD, R = 16, 2


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def fused(sizes, *, module=QKV, d_in=N_EMBD):
    return {f"{module}.lora_A": normal(R * len(sizes), d_in), f"{module}.lora_B": normal(sum(sizes), R)}


def parts(tensors, sizes):
    """Delta of each group: lora_A in equal chunks, lora_B by qkv_shapes, as LoRAQKVLinear.conv1d multiplies."""
    A, B = list(tensors.values())[:2]
    found, row = [], 0
    for n, size in enumerate(sizes):
        found.append(B[row : row + size] @ A[n * R : (n + 1) * R])
        row += size
    return found


def saved(folder, tensors, *, model="", hyperparameters=""):
    """As litgpt finetune_lora leaves a folder: {"model": ...} and two YAML files."""
    torch.save({"model": {k: torch.from_numpy(v) for k, v in tensors.items()}}, folder / "lit_model.pth.lora")
    (folder / "model_config.yaml").write_text(model)
    (folder / "hyperparameters.yaml").write_text(hyperparameters)
    return folder / "lit_model.pth.lora"


MODEL = "name: tiny\nn_embd: 16\nn_head: 4\nhead_size: 4\nn_query_groups: 2\n"
SETTINGS = (
    "lora_r: 2\nlora_alpha: 8  # twice\nlora_query: {}\nlora_key: {}\nlora_value: {}\ntrain:\n  lora_r: 9\n"
)


@pytest.mark.parametrize(
    ("enabled", "sizes", "rows"),
    [
        (("true", "true", "true"), (16, 8, 8), [(0, 16), (16, 24), (24, 32)]),
        (("true", "false", "true"), (16, 8), [(0, 16), (24, 32)]),
        (("false", "true", "true"), (8, 8), [(16, 24), (24, 32)]),
        (("false", "false", "true"), (8,), [(24, 32)]),
        (("true", "false", "false"), (16,), [(0, 16)]),
    ],
)
def test_grouped_queries_are_split_by_the_configuration(tmp_path, enabled, sizes, rows):
    tensors = fused(sizes)
    path = saved(tmp_path, tensors, model=MODEL, hyperparameters=SETTINGS.format(*enabled))
    adapter = load_adapter(path)
    names = [f"{QKV}[{name}]" for name, on in zip("qkv", enabled, strict=True) if on == "true"]
    assert adapter.format == "litgpt"
    assert sorted(adapter) == sorted(names)
    for name, delta, where in zip(names, parts(tensors, sizes), rows, strict=True):
        update = adapter[name]
        assert update.delta_W() == pytest.approx((8 / 2) * delta, rel=1e-5, abs=1e-6)
        assert update.rows == where
        assert "fused" in update.flags
    assert (adapter.ignored, adapter.unknown, adapter.notes) == ((), (), ())


def test_rows_that_no_one_knows_are_flagged(tmp_path):
    # k alone is enabled, and nothing says how large q is
    path = saved(tmp_path, fused((8,)), hyperparameters=SETTINGS.format("false", "true", "false"))
    (update,) = load_adapter(path).values()
    assert (update.module, update.rows, update.flags) == (f"{QKV}[k]", None, ("fused", "group_unknown"))


def test_equal_groups_are_split_by_their_shapes():
    sizes = (N_EMBD,) * 3
    tensors = fused(sizes)
    adapter = load_adapter(tensors)
    assert sorted(adapter) == [f"{QKV}[{name}]" for name in "kqv"]
    for name, delta in zip("qkv", parts(tensors, sizes), strict=True):
        update = adapter[f"{QKV}[{name}]"]
        assert pytest.approx(delta, rel=1e-5) == update.B @ update.A
        assert update.scale.value is None
    assert [adapter[f"{QKV}[{name}]"].rows for name in "qkv"] == [(0, 16), (16, 32), (32, 48)]
    assert any("hyperparameters.yaml" in note for note in adapter.notes)


def test_two_groups_of_three_are_asked_for():
    tensors = fused((N_EMBD, N_EMBD))
    adapter = load_adapter(tensors)
    assert list(adapter) == [f"{QKV}[0]", f"{QKV}[1]"]
    assert {update.flags for update in adapter.values()} == {("fused", "group_unknown")}
    adapter = load_adapter(tensors, enable_lora=(True, False, True))
    assert {name: update.rows for name, update in adapter.items()} == {
        f"{QKV}[q]": (0, 16),
        f"{QKV}[v]": (32, 48),
    }


def test_the_blocks_own_projection_tells_the_size_of_q():
    sizes = (16, 8, 8)
    tensors = fused(sizes)
    proj = {
        "transformer.h.0.attn.proj.lora_A": normal(R, 16),
        "transformer.h.0.attn.proj.lora_B": normal(16, R),
    }
    adapter = load_adapter(tensors | proj)
    assert [adapter[f"{QKV}[{name}]"].d_out for name in "qkv"] == [16, 8, 8]
    assert adapter["transformer.h.0.attn.proj"].r == R


def test_sizes_that_no_one_knows_are_asked_for():
    with pytest.raises(
        FormatError, match=r"sizes of q, k and v: lora_B is \[32, 2\] and has 3 groups.*model_config\.yaml"
    ):
        load_adapter(fused((16, 8, 8)))


def test_a_size_that_does_not_fit_the_configuration_is_an_error(tmp_path):
    path = saved(tmp_path, fused((16, 8, 9)), model=MODEL)
    with pytest.raises(FormatError, match="sizes of q, k and v"):
        load_adapter(path)


def test_interleaved_heads_of_older_versions_are_flagged():
    module = "transformer.h.0.attn.attn"
    adapter = load_adapter(fused((N_EMBD,) * 3, module=module))
    assert adapter[f"{module}[q]"].flags == ("fused", "interleaved", "group_unknown")
    assert adapter[f"{module}[q]"].rows is None
    assert any("interleaved" in note for note in adapter.notes)


def test_groups_and_rank_must_agree_with_the_configuration(tmp_path):
    path = saved(
        tmp_path, fused((16, 8, 8)), model=MODEL, hyperparameters=SETTINGS.format("true", "false", "true")
    )
    with pytest.raises(FormatError, match=r"2 of 3 are enabled and the factors have 3.*`enable_lora`"):
        load_adapter(path)
    path = saved(tmp_path, fused((16, 8, 8)), model=MODEL, hyperparameters="lora_r: 4\nlora_alpha: 8\n")
    with pytest.raises(FormatError, match="lora_r = 4"):
        load_adapter(path)


@pytest.mark.parametrize(("has", "lacks"), [("A", "B"), ("B", "A")])
def test_half_a_pair_is_an_error(has, lacks):
    tensors = fused((16, 16, 16)) | fused((16,), module="transformer.h.0.mlp.fc_1")
    del tensors[f"transformer.h.0.mlp.fc_1.lora_{lacks}"]
    with pytest.raises(
        ShapeError, match=f"^Incomplete pair: lora_{lacks} is missing .*, which has lora_{has};"
    ):
        load_adapter(tensors)


def test_settings_as_yaml_has_them(tmp_path):
    # tags that trainers leave, quotes, flow style and anchors; nothing of it is run
    model = "rope: !!python/tuple [1, 2]\n{}\n".format(
        "\"n_embd\": &n 16\nn_head: '4'\nhead_size: 4\nmore: {a: *n}"
    )
    path = saved(tmp_path, fused((16, 8, 8)), model=model, hyperparameters="lora_alpha: 8.0\nlora_r: 2\n")
    adapter = load_adapter(path)
    assert [adapter[f"{QKV}[{name}]"].rows for name in "qkv"] == [(0, 16), (16, 24), (24, 32)]
    assert {update.scale.value for update in adapter.values()} == {4.0}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ("lora_alpha: [1\n", FormatError, r"^Not a valid YAML file: .*hyperparameters\.yaml"),
        ("x: " + "[" * 5000, FormatError, r"^Not a valid YAML file: .*hyperparameters\.yaml"),
        ("#" * 64_001, FileError, r"too large: more than 64 kB, in .*hyperparameters\.yaml"),
    ],
)
def test_settings_that_cannot_be_read(tmp_path, settings, error, message):
    path = saved(tmp_path, fused((16, 8, 8)), model=MODEL, hyperparameters=settings)
    with pytest.raises(error, match=message) as raised:
        load_adapter(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("settings", ["", "- a list\n", "# nothing\n"])
def test_files_without_settings_say_nothing(tmp_path, settings):
    path = saved(tmp_path, fused((N_EMBD,) * 3), hyperparameters=settings)
    assert {update.scale.value for update in load_adapter(path).values()} == {None}
