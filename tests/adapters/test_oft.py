"""OFT and BOFT against the weights that PEFT merges, on files that it wrote."""

from __future__ import annotations

import copy

import numpy as np
import peft
import pytest
import torch
from peft.tuners.boft import layer as boft_layer
from safetensors.torch import save_file

from subspace.adapters import load_adapter
from subspace.analysis.amplify import amplify
from subspace.analysis.compare import compare
from subspace.analysis.inspect import inspect
from subspace.errors import FormatError, InconclusiveError, ShapeError

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:::peft\..*"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.*"),
]

TARGETS = ["lin", "square", "conv"]


class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = torch.nn.Linear(16, 10)
        self.square = torch.nn.Linear(16, 16)
        self.conv = torch.nn.Conv2d(4, 6, 2)


def adapted(tmp_path, config, small=0.1):
    """A saved adapter, its base file, and delta_W by merging, (out, in * kernel)."""
    torch.manual_seed(0)
    model = Toy()
    before = copy.deepcopy(model)
    save_file(before.state_dict(), tmp_path / "base.safetensors")
    wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "oft_" in name:
                parameter.normal_(1.0 if "boft_s" in name else 0.0, small)
    wrapped.save_pretrained(tmp_path / "adapter")
    merged = wrapped.merge_and_unload()
    deltas = {}
    for name in config.target_modules:
        weight = getattr(before, name).weight.detach().double()
        delta = getattr(merged, name).weight.detach().double() - weight
        deltas[name] = delta.reshape(delta.shape[0], -1).numpy(), weight.abs().max()
    return tmp_path / "adapter", tmp_path / "base.safetensors", deltas


OFT = {
    "series": {"oft_block_size": 4, "r": 0},
    "three terms": {"oft_block_size": 4, "r": 0, "num_cayley_neumann_terms": 3},
    "two terms": {"oft_block_size": 4, "r": 0, "num_cayley_neumann_terms": 2},
    "exact": {"oft_block_size": 4, "r": 0, "use_cayley_neumann": False},
    "by number": {"oft_block_size": 0, "r": 2},
    "shared": {"oft_block_size": 4, "r": 0, "block_share": True},
    "constrained": {"oft_block_size": 4, "r": 0, "coft": True, "eps": 0.3, "use_cayley_neumann": False},
}


def assert_as_merged(read, deltas, flag):
    assert set(read) == set(deltas)
    for name, (delta, size) in deltas.items():
        # what PEFT merges is rounded to float32 at the size of the weight
        np.testing.assert_allclose(read[name].delta_W(), delta, rtol=0, atol=1e-6 * float(size))
        assert read[name].flags == ("dense", flag)


@pytest.mark.parametrize("kind", OFT)
def test_oft_equals_what_peft_merges(kind, tmp_path):
    path, base, deltas = adapted(tmp_path, peft.OFTConfig(target_modules=TARGETS, **OFT[kind]))
    read = load_adapter(path, base=base)
    assert (read.format, read.ignored, read.unknown) == ("oft", (), ())
    assert_as_merged(read, deltas, "oft")


@pytest.mark.parametrize("config", [{"boft_block_size": 4}, {"boft_block_num": 2, "boft_block_size": 0}])
def test_boft_equals_what_peft_merges(config, tmp_path):
    path, base, deltas = adapted(tmp_path, peft.BOFTConfig(target_modules=TARGETS, **config))
    assert_as_merged(load_adapter(path, base=base), deltas, "boft")


@pytest.mark.parametrize("factors", [2, 3])
def test_boft_of_several_factors(factors, tmp_path, monkeypatch):
    # PEFT multiplies several factors on a GPU only; its kernel is a block diagonal
    class Blocks:
        @staticmethod
        def apply(R):
            return torch.stack([torch.block_diag(*blocks) for blocks in R])

    monkeypatch.setattr(boft_layer, "get_fbd_cuda", lambda: True)
    monkeypatch.setattr(boft_layer, "FastBlockDiag", Blocks)
    config = peft.BOFTConfig(target_modules=TARGETS, boft_block_size=4, boft_n_butterfly_factor=factors)
    path, base, deltas = adapted(tmp_path, config)
    assert_as_merged(load_adapter(path, base=base), deltas, "boft")


def test_a_model_in_memory(tmp_path):
    _, base, deltas = adapted(tmp_path, peft.OFTConfig(target_modules=TARGETS, **OFT["series"]))
    torch.manual_seed(0)
    model = peft.get_peft_model(Toy(), peft.OFTConfig(target_modules=TARGETS, **OFT["series"]))
    read = load_adapter(model, base=base)
    assert set(read) == set(deltas)
    assert not any(update.delta_W().any() for update in read.values())


def test_without_the_base_it_says_what_is_there(tmp_path):
    path, base, _ = adapted(tmp_path, peft.OFTConfig(target_modules=TARGETS, **OFT["series"]))
    rows = {row.module: row for row in inspect(path).modules}
    assert rows["lin"].flags == ("dense", "oft", "needs_base")
    assert (rows["lin"].d_out, rows["lin"].d_in, rows["lin"].norm_delta_W) == (0, 16, None)
    assert rows["lin"].norm_A > 0
    with pytest.raises(InconclusiveError, match="`base`"):
        compare(path, path)
    assert {row.module for row in amplify(base, path).modules} == set(TARGETS)


def test_an_untrained_one_is_said_to_be(tmp_path):
    config = peft.BOFTConfig(target_modules=TARGETS, boft_block_size=4)
    peft.get_peft_model(Toy(), config).save_pretrained(tmp_path)
    assert all("untrained" in row.flags for row in inspect(tmp_path).modules)


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({"q.oft_R.weight": np.ones((2, 2))}, r"triangles of b \(b - 1\) / 2 numbers: its shape is \[2, 2\]"),
        ({"q.oft_R.weight": np.ones((2, 1))}, "the in side of its update: it is .* has 4"),
        (
            {"q.boft_R": np.ones((1, 3, 2, 2)), "q.boft_s": np.ones((4, 1))},
            r"rescaling does not fit .*: 4 numbers for 6 rows",
        ),
        ({"q.boft_R": np.ones((1, 3, 2, 1)), "q.boft_s": np.ones((6, 1))}, r"\(factors, blocks, b, b\)"),
        ({"q.boft_R": np.ones((1, 3, 2, 2))}, "boft_s is missing for module q of .*, which has boft_R"),
    ],
)
def test_shapes_that_do_not_fit(tensors, match):
    with pytest.raises(ShapeError, match=match):
        load_adapter(tensors, base={"q.weight": np.ones((6, 6)), "v.weight": np.ones((2, 3))})


def test_what_peft_wrote_before(tmp_path):
    with pytest.raises(FormatError, match=r"an OFT adapter of PEFT before 0\.16"):
        load_adapter({"base_model.model.q.oft_r": np.ones((2, 2, 2))})


def test_flattened_names_of_sd_scripts():
    rng = np.random.default_rng(0)
    upper, W = rng.standard_normal((4, 6)), rng.standard_normal((10, 16))
    base = {"down.x.weight": W, "down.y.weight": W}
    plain = load_adapter({"down.x.oft_R.weight": upper}, base=base)["down.x"]
    flat = load_adapter({"lora_unet_down_x.oft_R.weight": upper}, base=base)["lora_unet_down_x"]
    np.testing.assert_array_equal(flat.delta_W(), plain.delta_W())


def test_a_convolution_of_sd_scripts_turns_the_other_way():
    """Its formula, restated: W R in blocks, for a file with the same parameters and without PEFT's names."""
    rng = np.random.default_rng(5)
    W, upper = rng.standard_normal((6, 4, 3, 3)), 0.1 * rng.standard_normal((9, 6))
    skew = np.zeros((9, 4, 4))
    rows, columns = np.triu_indices(4, 1)
    skew[:, rows, columns], skew[:, columns, rows] = upper, -upper
    R = np.eye(4) + 2 * skew + 2 * skew @ skew + 2 * skew @ skew @ skew + skew @ skew @ skew @ skew
    blocks = np.einsum("ork,rkc->orc", W.reshape(6, 9, 4), R).reshape(6, 36)
    base, linear = {"unet.down.0.conv.weight": W}, {"unet.down.0.conv.weight": W.reshape(6, 36)}
    tensors = {"unet.down.0.conv.oft_R.weight": upper}
    np.testing.assert_allclose(
        load_adapter(tensors, base=base)["unet.down.0.conv"].delta_W(), blocks - W.reshape(6, 36), atol=1e-12
    )
    other = np.einsum("ork,rck->orc", W.reshape(6, 9, 4), R).reshape(6, 36)
    for names, weights in (
        (tensors, linear),
        ({f"base_model.model.{k}": v for k, v in tensors.items()}, base),
    ):
        read = load_adapter(names, base=weights)["unet.down.0.conv"].delta_W()
        np.testing.assert_allclose(read, other - W.reshape(6, 36), atol=1e-12)
