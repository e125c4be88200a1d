"""IA3 against the weights that PEFT merges, on files that it wrote."""

from __future__ import annotations

import copy

import numpy as np
import peft
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D

from subspace.adapters import load_adapter
from subspace.analysis.amplify import amplify
from subspace.analysis.compare import compare
from subspace.analysis.inspect import inspect
from subspace.cli import app
from subspace.errors import FormatError, InconclusiveError, ShapeError

pytestmark = pytest.mark.filterwarnings(r"ignore:::peft\..*")

TARGETS = ["k", "up", "square", "conv", "down", "grouped", "cube"]
CONFIG = {"target_modules": TARGETS, "feedforward_modules": ["up", "down", "grouped"]}


class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.block = torch.nn.ModuleDict({"k": torch.nn.Linear(8, 6), "up": torch.nn.Linear(6, 10)})
        self.square = torch.nn.Linear(7, 7)
        self.conv = torch.nn.Conv2d(4, 6, (3, 2))
        self.down = torch.nn.Conv2d(6, 4, 3)
        self.grouped = torch.nn.Conv2d(4, 6, 3, groups=2)
        self.cube = torch.nn.Conv3d(4, 6, (1, 3, 2))


def adapted(tmp_path, model=None, **config):
    """A saved IA3 adapter, its base file, and delta_W by merging, (out, in * kernel)."""
    torch.manual_seed(0)
    model = Toy() if model is None else model
    before = copy.deepcopy(model)
    save_file(before.state_dict(), tmp_path / "base.safetensors")
    wrapped = peft.get_peft_model(model, peft.IA3Config(init_ia3_weights=False, **{**CONFIG, **config}))
    wrapped.save_pretrained(tmp_path / "ia3")
    merged = wrapped.merge_and_unload()
    deltas = {}
    for name, module in before.named_modules():
        if name.rpartition(".")[2] in TARGETS:
            delta = merged.get_submodule(name).weight.detach().double() - module.weight.detach().double()
            delta = delta.T if isinstance(module, Conv1D) else delta
            deltas[name] = delta.reshape(delta.shape[0], -1).numpy()
    return tmp_path / "ia3", tmp_path / "base.safetensors", deltas


def assert_as_merged(read, deltas):
    assert set(read) == set(deltas)
    for name, delta in deltas.items():
        got = read[name].delta_W()
        # the merged weight was rounded to float32
        np.testing.assert_allclose(got, delta, rtol=0, atol=1e-6 * np.abs(delta).max())
        assert read[name].flags == ("dense", "ia3")


def test_delta_equals_what_peft_merges(tmp_path):
    path, base, deltas = adapted(tmp_path)
    read = load_adapter(path, base=base)
    assert (read.format, read.ignored, read.unknown) == ("ia3", (), ())
    assert_as_merged(read, deltas)


@pytest.mark.parametrize(
    "config", [{"feedforward_modules": r".*(up|down|grouped)"}, {"feedforward_modules": []}]
)
def test_feedforward_modules_as_peft_matches_them(config, tmp_path):
    path, base, deltas = adapted(tmp_path, **config)
    assert_as_merged(load_adapter(path, base=base), deltas)


class Gpt(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.h = torch.nn.ModuleDict({"k": Conv1D(6, 8), "up": Conv1D(10, 6), "square": Conv1D(7, 7)})


def test_weights_that_gpt2_stores_the_other_way_round(tmp_path):
    path, base, deltas = adapted(
        tmp_path, Gpt(), target_modules=["k", "up", "square"], feedforward_modules=["up"], fan_in_fan_out=True
    )
    assert_as_merged(load_adapter(path, base=base), deltas)


def test_a_model_in_memory(tmp_path):
    _, base, deltas = adapted(tmp_path)
    torch.manual_seed(0)
    model = peft.get_peft_model(Toy(), peft.IA3Config(init_ia3_weights=False, **CONFIG))
    assert_as_merged(load_adapter(model, base=base), deltas)


def test_without_the_base_it_says_what_is_there(tmp_path):
    path, _, _ = adapted(tmp_path)
    found = inspect(path)
    rows = {row.module: row for row in found.modules}
    assert all("needs_base" in row.flags for row in found.modules)
    assert any("give" in note and "base" in note for note in found.notes)
    k, up = rows["block.k"], rows["block.up"]
    assert (k.d_out, k.d_in, up.d_out, up.d_in) == (6, 0, 0, 6)
    tensors = load_adapter(path).tensors
    for row, norm, name in ((k, k.norm_B, "block.k"), (up, up.norm_A, "block.up")):
        values = tensors.read(f"base_model.model.{name}.ia3_l").astype(float)
        assert norm == pytest.approx(np.linalg.norm(values - 1))
        assert (row.norm_delta_W, row.rank, row.S.size) == (None, None, 0)


def test_with_the_base_it_is_inspected_as_any_other(tmp_path):
    path, base, deltas = adapted(tmp_path)
    row = {row.module: row for row in inspect(path, base=base).modules}["block.k"]
    assert row.norm_delta_W == pytest.approx(np.linalg.norm(deltas["block.k"]), rel=1e-6)
    assert row.rank == 6


def test_an_untrained_one_is_said_to_be(tmp_path):
    peft.get_peft_model(Toy(), peft.IA3Config(**CONFIG)).save_pretrained(tmp_path)
    assert all("untrained" in row.flags for row in inspect(tmp_path).modules)


def test_comparing_without_the_base_is_one_line(tmp_path):
    path, base, _ = adapted(tmp_path)
    with pytest.raises(InconclusiveError, match=r"needs the base weight of module .*`base`"):
        compare(path, path)
    result = CliRunner().invoke(app, ["compare", str(path), str(path)])
    assert isinstance(result.exception, InconclusiveError)
    assert result.exception.exit_code == 3
    done = compare(load_adapter(path, base=base), load_adapter(path, base=base), side="left")
    assert all(row.phi_full == pytest.approx(1) for row in done.modules)


def test_amplify_uses_the_base_it_is_given(tmp_path):
    path, base, deltas = adapted(tmp_path)
    result = amplify(base, path, ranks=[2])
    rows = {row.module: row for row in result.modules}
    assert set(rows) == set(deltas)
    assert rows["block.up"].norm_delta_W == pytest.approx(np.linalg.norm(deltas["block.up"]), rel=1e-6)
    with pytest.raises(InconclusiveError, match="give the weights of the base model as `base`"):
        amplify(base, load_adapter(path))


def test_a_module_that_the_base_lacks(tmp_path):
    path, _, deltas = adapted(tmp_path)
    base = {"square.weight": np.eye(7, dtype="f4"), "other.weight": np.eye(7, dtype="f4")}
    read = load_adapter(path, base=base)
    assert "needs_base" in read["block.k"].flags
    assert "needs_base" not in read["square"].flags
    with pytest.raises(InconclusiveError, match="The base has no such module"):
        compare(read, read)
    assert set(amplify(base, path).missing) == set(deltas) - {"square"}


def test_a_base_that_does_not_fit():
    tensors = {"q.ia3_l": np.ones((5, 1), "f4")}
    with pytest.raises(
        ShapeError,
        match=r"q\.weight does not have the out side of its update: it is \[4, 4\] and module q has 5",
    ):
        load_adapter(tensors, base={"q.weight": np.eye(4, dtype="f4"), "v.weight": np.eye(4, dtype="f4")})


def test_a_convolution_without_a_configuration():
    tensors = {"q.ia3_l": np.ones((1, 4, 1, 1), "f4")}
    base = {"q.weight": np.ones((4, 4, 3, 3), "f4"), "v.weight": np.ones((2, 2))}
    assert "needs_base" in load_adapter(tensors)["q"].flags
    with pytest.raises(FormatError, match="feedforward_modules"):
        load_adapter(tensors, base=base)


@pytest.mark.parametrize(
    ("name", "shape"), [("peft-ia3-mlp-0.6.1", (0, 10)), ("peft-ia3-conv2d-0.6.1", (0, 5))]
)
def test_published(name, shape, real_adapters):
    found = inspect(real_adapters / name)
    (row,) = found.modules
    assert (found.format, (row.d_out, row.d_in)) == ("ia3", shape)
    assert row.flags == ("dense", "ia3", "needs_base")
