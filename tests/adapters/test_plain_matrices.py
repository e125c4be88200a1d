"""Pairs without names, dense deltas, one matrix, and a full fine-tune given with its base."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import save_file

from subspace.adapters import DenseUpdate, load_adapter, load_base
from subspace.errors import FileError, FormatError, ShapeError, SubspaceError

pytestmark = pytest.mark.filterwarnings(r"ignore:::transformers\..*")

A, B = np.arange(8.0).reshape(2, 4), np.arange(6.0).reshape(3, 2)


def written(tensors, path):
    """One file of tensors in the container that its suffix names."""
    if path.suffix == ".npz":
        np.savez(path, **tensors)
    elif path.suffix == ".safetensors":
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, path)
    else:
        torch.save({key: torch.from_numpy(value.copy()) for key, value in tensors.items()}, path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("prefix", ["", "h.0.q."])
def test_a_pair_in_both_layouts(suffix, turned, prefix, tmp_path):
    pair = {f"{prefix}A": A.T if turned else A, f"{prefix}B": B.T if turned else B}
    read = load_adapter(written(pair, tmp_path / f"pair{suffix}"), scale=2.0)
    assert list(read) == [prefix.rstrip(".")]
    np.testing.assert_array_equal(read[prefix.rstrip(".")].delta_W(), 2 * B @ A)
    assert any("A is stored (d_in, r)" in note for note in read.notes) is turned


def test_a_pair_that_does_not_multiply():
    with pytest.raises(ShapeError, match="different ranks"):
        load_adapter({"A": np.ones((2, 4)), "B": np.ones((3, 5))})


@pytest.mark.parametrize("suffix", [".npy", ".pt", ".safetensors"])
def test_one_matrix(suffix, tmp_path):
    path = tmp_path / f"W{suffix}"
    if suffix == ".npy":
        np.save(path, B @ A)
    elif suffix == ".pt":
        torch.save(torch.from_numpy(B @ A), path)
    else:
        save_file({"W": B @ A}, path)
    read = load_adapter(path)
    assert isinstance(read[""], DenseUpdate)
    np.testing.assert_array_equal(read[""].delta_W(), B @ A)
    assert read[""].scale.value == 1


def test_a_factor_alone_is_a_matrix():
    np.testing.assert_array_equal(load_adapter({"A": A})[""].delta_W(), A)
    np.testing.assert_array_equal(load_adapter(A)[""].delta_W(), A)


def test_named_deltas_and_convolutions():
    read = load_adapter({"h.10.c.delta_W": np.ones((3, 2, 2, 2)), "h.2.q.delta_W": B @ A})
    assert list(read) == ["h.2.q", "h.10.c"]
    assert read["h.10.c"].delta_W().shape == (3, 8)


@pytest.mark.parametrize("shape", [(4,), (), (0, 3), (2, 3, 4)])
def test_what_is_no_matrix(shape):
    with pytest.raises(SubspaceError):
        load_adapter(np.ones(shape))


def tiny_gpt2(seed):
    torch.manual_seed(seed)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=13, n_positions=9)
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A base, whole and in shards, and a fine-tune, whole, in shards and as a torch file."""
    folder = tmp_path_factory.mktemp("models")
    base, tuned = tiny_gpt2(0), tiny_gpt2(1)
    with torch.no_grad():
        tuned.transformer.h[1].mlp.c_fc.weight.copy_(base.transformer.h[1].mlp.c_fc.weight)
    base.save_pretrained(folder / "base")
    base.save_pretrained(folder / "base-shards", max_shard_size="2KB")
    tuned.save_pretrained(folder / "tuned")
    tuned.save_pretrained(folder / "tuned-shards", max_shard_size="2KB")
    torch.save(tuned.state_dict(), folder / "tuned.pt")
    return folder, base, tuned


@pytest.mark.parametrize("base_name", ["base", "base-shards"])
@pytest.mark.parametrize("tuned_name", ["tuned", "tuned/model.safetensors", "tuned.pt"])
def test_a_fine_tune_is_its_difference(models, base_name, tuned_name):
    folder, base, tuned = models
    read = load_adapter(folder / tuned_name, base=folder / base_name)
    assert read.format == "full fine-tune"
    before = dict(base.named_modules())
    for name, layer in tuned.named_modules():
        if not isinstance(layer, transformers.pytorch_utils.Conv1D | torch.nn.Embedding):
            continue
        # both keep W as (d_in, d_out)
        expected = (layer.weight.double() - before[name].weight.double()).T.detach().numpy()
        update = read[name]
        np.testing.assert_array_equal(update.delta_W(), expected)
        weight = load_base(folder / base_name).weight(update)
        assert weight.transposed, f"{name}: {weight.orientation}"
    assert not read["transformer.h.1.mlp.c_fc"].delta_W().any()
    assert {entry.why for entry in read.ignored} <= {"not a matrix", "not in the base model"}
    assert read.unknown == ()


@pytest.mark.parametrize("name", ["tuned-shards", "tuned-shards/model.safetensors.index.json"])
def test_a_fine_tune_in_shards(models, name):
    folder, _, _ = models
    whole = load_adapter(folder / "tuned", base=folder / "base")
    shards = load_adapter(folder / name, base=folder / "base")
    assert set(whole) == set(shards)
    for name in whole:
        np.testing.assert_array_equal(whole[name].delta_W(), shards[name].delta_W())


def test_a_trainers_checkpoint(models, tmp_path):
    folder, _, tuned = models
    tuned.save_pretrained(tmp_path)
    for name in ("training_args.bin", "optimizer.pt", "rng_state.pth"):
        (tmp_path / name).write_bytes(b"not for us")
    assert set(load_adapter(tmp_path, base=folder / "base")) == set(
        load_adapter(folder / "tuned", base=folder / "base")
    )


def test_an_adapter_stays_one_when_a_base_is_given(models):
    folder, _, _ = models
    assert load_adapter({"h.0.c.lora_A": A, "h.0.c.lora_B": B}, base=folder / "base").format == "loralib"


def test_a_fine_tune_without_its_base(models):
    folder, _, _ = models
    with pytest.raises(FormatError, match=r"^Not an adapter of a known format: .*`base`"):
        load_adapter(folder / "tuned.pt")


def test_a_fine_tune_of_another_model(models):
    folder, _, _ = models
    with pytest.raises(FormatError, match="No matrices in common"):
        load_adapter(folder / "tuned.pt", base={"a.weight": np.ones((2, 2)), "b.weight": np.ones((2, 2))})


def test_what_cannot_be_subtracted_is_told():
    tuned = {
        "a.weight": np.ones((2, 2)),
        "b.weight": np.ones((2, 3)),
        "ids": np.ones((2, 2), "i8"),
        "a.bias": A[0],
    }
    base = {"a.weight": np.zeros((2, 2)), "b.weight": np.ones((3, 2)), "ids": np.ones((2, 2), "i8")}
    read = load_adapter(tuned, base=base)
    assert list(read) == ["a"]
    told = {entry.key: entry.why for entry in read.ignored}
    assert told["b.weight"].startswith("of the shape")
    assert told["ids"].startswith("not floating point")
    assert told["a.bias"] == "not a matrix"


def test_a_quantised_fine_tune_is_refused():
    tuned = {"a.weight": np.ones((2, 2), "i1"), "a.SCB": np.ones(2), "b.weight": np.ones((2, 2))}
    with pytest.raises(FormatError, match="bitsandbytes int8"):
        load_adapter(tuned, base={"a.weight": np.ones((2, 2)), "b.weight": np.ones((2, 2))})


@pytest.mark.parametrize(
    ("names", "error"),
    [
        ([], "No adapter in the directory .*: it holds no file of weights"),
        (
            ["a.safetensors", "b.safetensors"],
            "which file is the adapter: .* holds 2 .*; give one of these paths: ",
        ),
    ],
)
def test_a_directory_that_does_not_say(names, error, tmp_path):
    for name in names:
        save_file({"x.lora_A": A}, tmp_path / name)
    with pytest.raises(FileError, match=error):
        load_adapter(tmp_path)


@pytest.mark.parametrize("path", ["missing", "x" * 5000, "nul\0", b"missing"])
def test_paths_that_are_none(path):
    with pytest.raises(SubspaceError):
        load_adapter(path)


def test_what_is_no_tensor_of_a_torch_file_is_listed(tmp_path):
    torch.save({"x.lora_A": torch.ones(2, 4), "x.lora_B": torch.ones(3, 2), "epoch": 3}, tmp_path / "a.pt")
    read = load_adapter(tmp_path / "a.pt")
    assert [(entry.key, entry.why) for entry in read.ignored] == [("epoch", "not a tensor (int)")]
