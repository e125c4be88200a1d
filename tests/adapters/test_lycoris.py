"""LoHa and LoKr against LyCORIS itself, on files that it wrote."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from subspace.adapters import DenseUpdate, LowRankUpdate, load_adapter
from subspace.analysis.compare import compare
from subspace.analysis.inspect import inspect
from subspace.errors import FormatError, ShapeError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    modules = pytest.importorskip("lycoris.modules")

LAYERS = {
    "linear": lambda: torch.nn.Linear(24, 36),
    "wide": lambda: torch.nn.Linear(40, 12),
    "conv1d": lambda: torch.nn.Conv1d(12, 16, 5),
    "conv2d": lambda: torch.nn.Conv2d(12, 16, 3),
    "conv3d": lambda: torch.nn.Conv3d(8, 6, (1, 2, 3)),
    "grouped": lambda: torch.nn.Conv2d(12, 16, 3, groups=2),
    "pointwise": lambda: torch.nn.Conv2d(12, 16, 1),
}
LOHA = {
    "plain": {"lora_dim": 2, "alpha": 3},
    "rank 1": {"lora_dim": 1, "alpha": 3},
    "alpha 0": {"lora_dim": 2, "alpha": 0},
    "tucker": {"lora_dim": 2, "alpha": 3, "use_tucker": True},
    "rs": {"lora_dim": 4, "alpha": 2, "rs_lora": True},
    "scalar": {"lora_dim": 2, "alpha": 1, "use_scalar": True},
    "dense": {"lora_dim": 16, "alpha": 3},
    "bypass": {"lora_dim": 2, "alpha": 3, "bypass_mode": True},
    "decomposed": {"lora_dim": 2, "alpha": 3, "weight_decompose": True},
}
LOKR = LOHA | {
    "both": {"lora_dim": 1, "alpha": 3, "decompose_both": True},
    "factor": {"lora_dim": 1, "alpha": 3, "factor": 2},
    "full": {"lora_dim": 4, "alpha": 3, "full_matrix": True},
    "unbalanced": {"lora_dim": 2, "alpha": 3, "factor": 4, "unbalanced_factorization": True},
}


def module(algorithm, layer, options, seed=0):
    """One LyCORIS module with random factors, as training would leave it."""
    torch.manual_seed(seed)
    kind = {"loha": modules.LohaModule, "lokr": modules.LokrModule}[algorithm]
    made = kind("lora_unet_x", LAYERS[layer](), 1.0, **options)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if not name.startswith("org_module") and "dora" not in name:
                parameter.normal_()
    return made


def saved(made, path, name="lora_unet_x"):
    tensors = {
        f"{name}.{key}": value.detach().clone().contiguous()
        for key, value in made.custom_state_dict().items()
    }
    save_file(tensors, path)
    return tensors


def expected(made):
    """The weight that LyCORIS' forward pass adds, (out, in * kernel); its get_diff_weight scales twice."""
    weight = (made.get_weight(made.shape) * made.scalar).detach()
    return weight.reshape(weight.shape[0], -1).double().numpy()


def close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    ("algorithm", "kind"), [("loha", k) for k in LOHA] + [("lokr", k) for k in LOKR]
)  # fmt: skip
def test_delta_equals_lycoris(algorithm, kind, layer, tmp_path):
    options = (LOHA if algorithm == "loha" else LOKR)[kind]
    made = module(algorithm, layer, options)
    saved(made, tmp_path / "x.safetensors")
    read = load_adapter(tmp_path / "x.safetensors")
    (update,) = read.values()
    assert (read.format, read.ignored, read.unknown) == ("lycoris", (), ())
    wanted = expected(made)
    if "full blocks" in update.scale.source:
        wanted = wanted / made.scale  # 1 but for rs_lora, which is lost where LyCORIS loads full blocks again
    assert (update.d_out, update.d_in) == wanted.shape
    close(update.delta_W(), wanted)
    assert ("dora" in update.flags) == (kind == "decomposed")
    if isinstance(update, LowRankUpdate):
        assert "composed" in update.flags
        assert update.A.shape == (update.r, update.d_in)
    else:
        assert update.flags[0] == "dense"
        assert any("A dense delta_W is formed" in note for note in read.notes)


def test_loha_is_of_rank_r_squared(tmp_path):
    saved(module("loha", "linear", LOHA["plain"]), tmp_path / "x.safetensors")
    (update,) = load_adapter(tmp_path / "x.safetensors").values()
    assert isinstance(update, LowRankUpdate)
    assert update.r == 4
    assert (update.scale.value, update.scale.alpha, update.scale.source) == (1.5, 3, "tensor: alpha / 2")


def test_full_blocks_go_through_the_smaller_sides():
    # Qwen Image files: (3072, 16) and (16, 3072), a weight of 49152 x 49152 of rank 256
    w1, w2 = np.ones((300, 2), "f4"), np.ones((2, 300), "f4")
    (update,) = load_adapter({"q.lokr_w1": w1, "q.lokr_w2": w2, "q.alpha": np.float32(9)}).values()
    assert isinstance(update, LowRankUpdate)
    assert (update.r, update.d_out, update.d_in) == (4, 600, 600)
    assert (update.scale.value, update.scale.source) == (1, "full blocks: 1 in LyCORIS")
    close(update.delta_W(), np.kron(w1, w2))


def test_full_square_blocks_are_dense():
    w1, w2 = np.eye(4, dtype="f4"), np.eye(6, dtype="f4")
    read = load_adapter({"q.lokr_w1": w1, "q.lokr_w2": w2})
    assert isinstance(read["q"], DenseUpdate)
    assert read.notes == ("A dense delta_W is formed in 1 of 1 module, at most 24 x 24 (0.00461 MB)",)
    assert inspect(read).modules[0].rank == 24


def test_a_preset_that_mixes_algorithms_is_read_whole(tmp_path):
    parts = {
        "lora_unet_a": module("loha", "linear", LOHA["plain"]),
        "lora_unet_b": module("lokr", "conv2d", LOKR["tucker"]),
    }
    torch.manual_seed(1)
    pair = modules.LoConModule("lora_unet_c", torch.nn.Conv2d(8, 6, 3), 1.0, 2, 1, use_tucker=True)
    torch.nn.init.normal_(pair.lora_up.weight)
    whole = modules.FullModule("lora_unet_d", torch.nn.Linear(5, 4), 1.0)
    torch.nn.init.normal_(whole.weight)
    parts |= {"lora_unet_c": pair, "lora_unet_d": whole}
    tensors = {
        f"{n}.{k}": v.detach().clone()
        for n, part in parts.items()
        for k, v in part.custom_state_dict().items()
    }
    tensors |= {"lora_unet_e.w_norm": torch.ones(4), "lora_unet_e.b_norm": torch.ones(4)}
    save_file(tensors, tmp_path / "x.safetensors")
    read = load_adapter(tmp_path / "x.safetensors")
    assert (read.format, read.unknown) == ("lycoris", ())
    assert list(read) == ["lora_unet_a", "lora_unet_b", "lora_unet_c", "lora_unet_d"]
    assert {entry.key.rpartition(".")[0] for entry in read.ignored} <= {"lora_unet_d", "lora_unet_e"}
    for name in ("lora_unet_a", "lora_unet_b"):
        close(read[name].delta_W(), expected(parts[name]))
    close(read["lora_unet_c"].delta_W(), expected_pair(pair))
    assert read["lora_unet_d"].delta_W().shape == (4, 5)


def expected_pair(made):
    weight = made.make_weight().detach() * made.scale
    return weight.reshape(weight.shape[0], -1).double().numpy()


def test_half_precision_is_widened(tmp_path):
    tensors = {k: v.half() for k, v in saved(module("loha", "linear", LOHA["plain"]), tmp_path / "x").items()}
    save_file(tensors, tmp_path / "x.safetensors")
    (update,) = load_adapter(tmp_path / "x.safetensors").values()
    name = "lora_unet_x.hada_w"
    f = {k: v.double().numpy() for k, v in tensors.items()}
    products = [f[f"{name}{n}_a"] @ f[f"{name}{n}_b"] for n in "12"]
    close(update.delta_W(), 1.5 * products[0] * products[1])
    assert update.A_factor.resolution == 2.0**-10


@pytest.mark.parametrize(
    ("part", "change", "match"),
    [
        ("hada_w1_b", None, "hada_w1_b is missing for module q of .*, which has hada_w1_a"),
        ("hada_w2_a", np.ones((5, 2), "f4"), r"different shapes: \[6, 8\] and \[5, 8\], in module q"),
        ("hada_w2_a", np.ones((6, 3), "f4"), r"do not fit together: \[6, 3\] and \[2, 8\], in module q"),
        (
            "hada_t1",
            np.ones((3, 2, 3, 3), "f4"),
            r"do not fit together: \[6, 2\] and \[3, 2, 3, 3\] and \[2, 8\]",
        ),
    ],
)
def test_parts_that_do_not_fit(part, change, match):
    tensors = {f"q.hada_w{n}_{x}": np.ones((6, 2) if x == "a" else (2, 8), "f4") for n in "12" for x in "ab"}
    tensors |= {f"q.{part}": change}
    with pytest.raises(ShapeError, match=match):
        load_adapter({key: value for key, value in tensors.items() if value is not None})


def test_an_untrained_module_is_said_to_be(tmp_path):
    made = modules.LohaModule("x", LAYERS["linear"](), 1.0, lora_dim=2, alpha=1)
    saved(made, tmp_path / "x.safetensors")
    assert inspect(tmp_path / "x.safetensors").modules[0].flags == ("composed", "untrained")


def test_composed_factors_are_noted_on_their_sides(tmp_path):
    saved(module("loha", "linear", LOHA["plain"]), tmp_path / "1.safetensors")
    saved(module("loha", "linear", LOHA["plain"], seed=1), tmp_path / "2.safetensors")
    pair = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    result = compare(*pair, side="all")
    assert all("composed" in row.flags for row in result.modules)
    assert any("were not trained themselves; compare `side` left or right" in note for note in result.notes)
    assert not any("not trained themselves" in note for note in compare(*pair, side="left").notes)
    itself = compare(pair[0], pair[0], side="all")
    assert all(row.phi_full == pytest.approx(1) for row in itself.modules)


def test_published_lokr(real_adapters):
    found = inspect(real_adapters / "lycoris-lokr-falcon-4")
    assert (found.format, len(found.modules), found.unknown) == ("lycoris", 350, ())
    assert {row.r for row in found.modules} == {16}
    assert {row.alpha for row in found.modules} == {4.0}
    assert {row.scale for row in found.modules} == {1.0}
    assert sum("untrained" in row.flags for row in found.modules) == 3


@pytest.mark.parametrize("name", ["flux_lokr_bfl_format", "qwen_image_lora_kohya_format"])
def test_published_key_lists(name, real_adapters):
    text = (real_adapters / "_schemas" / f"{name}.state_dict_keys.json").read_text()
    shapes = json.loads(text)["keys_to_shapes"]
    read = load_adapter({key: np.zeros(shape, "f2") for key, shape in shapes.items()})
    assert (read.format, len(read), read.ignored, read.unknown) == ("lycoris", len(shapes) // 3, (), ())


def test_a_peft_pair_beside_it_is_another_file():
    tensors = {"q.hada_w1_a": np.ones((2, 2)), "base_model.model.q.lora_A.weight": np.ones((2, 2))}
    with pytest.raises(FormatError, match="it could be lycoris or peft"):
        load_adapter(tensors)


def test_the_rank_of_the_trained_factors_is_shown_beside_that_of_the_product():
    rng = np.random.default_rng(3)
    tensors = {
        "q.lokr_w1": rng.standard_normal((4, 4)),
        "q.lokr_w2_a": rng.standard_normal((12, 2)),
        "q.lokr_w2_b": rng.standard_normal((2, 10)),
        "q.alpha": np.array(4.0),
    }
    found = inspect(tensors)
    (row,) = found.modules
    assert (row.r, row.r_factors, row.alpha, row.scale) == (8, 2, 4.0, 2.0)
    assert row.scale_source == "tensor: alpha / 2"
    assert row.document()["r_factors"] == 2
    assert any("another rank than the A and B" in note and "2, and r = 8" in note for note in found.notes)
    (plain,) = inspect({"q.lora_A": np.eye(2, 4), "q.lora_B": np.eye(3, 2)}).modules
    assert "r_factors" not in plain.document()
