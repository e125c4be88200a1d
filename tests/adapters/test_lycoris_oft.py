"""OFT, BOFT, IA3 and GLoRA of LyCORIS against LyCORIS itself, and OFT of sd-scripts against its formula."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from subspace.adapters import LowRankUpdate, load_adapter
from subspace.analysis.amplify import amplify
from subspace.analysis.compare import compare
from subspace.analysis.inspect import inspect
from subspace.errors import FormatError, InconclusiveError, ShapeError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    modules = pytest.importorskip("lycoris.modules")

LAYERS = {
    "linear": lambda: torch.nn.Linear(24, 32),
    "wide": lambda: torch.nn.Linear(40, 16),
    "square": lambda: torch.nn.Linear(16, 16),
    "conv1d": lambda: torch.nn.Conv1d(12, 16, 5),
    "conv2d": lambda: torch.nn.Conv2d(12, 16, 3),
    "pointwise": lambda: torch.nn.Conv2d(12, 16, 1),
}
ROTATIONS = {
    "plain": {"lora_dim": 4},
    "rescaled": {"lora_dim": 4, "rescaled": True},
    "constrained": {"lora_dim": 4, "constraint": 1e-2, "rescaled": True},
    "loosely constrained": {"lora_dim": 4, "constraint": 1e3},
    "blocks of 2": {"lora_dim": 2},
}


def trained(kind, layer, options):
    torch.manual_seed(0)
    base = LAYERS[layer]()
    made = kind("lora_unet_x", base, 1.0, **options)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if not name.startswith("org_module"):
                parameter.normal_(1.0 if "rescale" in name else 0.0, 0.3)
    return base, made


def written(made, path, name="lora_unet_x"):
    names = [each for each in made.weight_list if "." not in each]
    state = made.custom_state_dict() if hasattr(made, "custom_state_dict") else None
    if not state:
        own = {**dict(made.named_parameters()), **dict(made.named_buffers())}
        state = {each: own[each] for each in names if each in own}
    save_file({f"{name}.{key}": value.detach().clone().contiguous() for key, value in state.items()}, path)


def delta(made, base):
    with torch.no_grad():
        diff = made.get_diff_weight(1)[0].reshape(base.weight.shape)
    return diff.reshape(len(diff), -1).double().numpy()


def as_lycoris(tmp_path, kind, layer, options, *, name="lora_unet_x"):
    """The update as it is read with its base, after its check against LyCORIS."""
    base, made = trained(kind, layer, options)
    written(made, tmp_path / "x.safetensors", name)
    read = load_adapter(tmp_path / "x.safetensors", base={"x.weight": base.weight.detach().numpy()})
    assert (read.format, read.ignored, read.unknown) == ("lycoris", (), ())
    (update,) = read.values()
    wanted = delta(made, base)
    size = max(np.abs(wanted).max(), float(base.weight.detach().abs().max()))
    np.testing.assert_allclose(update.delta_W(), wanted, rtol=0, atol=3e-6 * size)
    assert np.abs(wanted).max() > 1e-3
    return update


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("options", ROTATIONS)
def test_oft_equals_lycoris(options, layer, tmp_path):
    update = as_lycoris(tmp_path, modules.DiagOFTModule, layer, ROTATIONS[options])
    assert update.flags == ("dense", "oft")


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("options", ROTATIONS)
def test_boft_equals_lycoris(options, layer, tmp_path):
    update = as_lycoris(tmp_path, modules.ButterflyOFTModule, layer, ROTATIONS[options])
    assert update.flags == ("dense", "boft")


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("on_input", [False, True])
def test_ia3_equals_lycoris(on_input, layer, tmp_path):
    base, made = trained(modules.IA3Module, layer, {"train_on_input": on_input})
    state = {"weight": made.weight, "on_input": made.on_input}
    save_file({f"lora_unet_x.{k}": v.detach().clone() for k, v in state.items()}, tmp_path / "x.safetensors")
    read = load_adapter(tmp_path / "x.safetensors", base={"x.weight": base.weight.detach().numpy()})
    (update,) = read.values()
    with torch.no_grad():
        wanted = made.make_weight(diff=True).reshape(len(base.weight), -1).double().numpy()
    np.testing.assert_allclose(update.delta_W(), wanted, rtol=0, atol=1e-6)
    assert update.flags == ("dense", "ia3")


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("options", [{"lora_dim": 3, "alpha": 2}, {"lora_dim": 1, "alpha": 0}])
def test_glora_equals_lycoris(options, layer, tmp_path):
    update = as_lycoris(tmp_path, modules.GLoRAModule, layer, options)
    assert "glora" in update.flags
    if layer in {"conv1d", "conv2d"}:
        assert "dense" in update.flags
    else:
        assert isinstance(update, LowRankUpdate)
        assert update.r == 2 * options["lora_dim"]


def test_glora_of_old_files_has_its_factors_exchanged(tmp_path):
    base, made = trained(modules.GLoRAModule, "linear", {"lora_dim": 3, "alpha": 2})
    state = made.custom_state_dict()
    names = {"a1": "a2", "a2": "a1", "b1": "b2", "b2": "b1"}
    old = {f"x.{names[key.partition('.')[0]]}.weight": v for key, v in state.items() if key != "alpha"}
    old = {key: value.detach().clone().contiguous() for key, value in old.items()} | {"x.alpha": made.alpha}
    read = load_adapter(old, base={"x.weight": base.weight.detach().numpy()})
    np.testing.assert_allclose(read["x"].delta_W(), delta(made, base), rtol=0, atol=1e-5)


def sd_scripts(blocks, alpha, W):
    """networks/oft.py, ``OFTModule.get_weight`` and ``merge_to``: rows in blocks, multiplied by R transposed."""
    Q = blocks - blocks.transpose(0, 2, 1)
    norm = np.linalg.norm(Q)
    Q = Q * (min(norm, alpha * len(W)) + 1e-8) / (norm + 1e-8)
    unit = np.eye(blocks.shape[1])
    R = (unit + Q) @ np.linalg.inv(unit - Q)
    return np.einsum("knm,knp->kmp", R, W.reshape(len(blocks), blocks.shape[1], -1)).reshape(W.shape) - W


@pytest.mark.parametrize("alpha", [1e-3, 1e-2, 10.0, 0.0])
def test_oft_of_sd_scripts(alpha):
    rng = np.random.default_rng(0)
    blocks, W = rng.standard_normal((4, 6, 6)), rng.standard_normal((24, 10))
    tensors = {"oft_unet_x.oft_blocks": blocks, "oft_unet_x.alpha": np.array(alpha)}
    update = load_adapter(tensors, base={"x.weight": W})["oft_unet_x"]
    np.testing.assert_allclose(update.delta_W(), sd_scripts(blocks, alpha, W), rtol=0, atol=1e-12)


def test_oft_of_sd_scripts_in_the_parts_of_a_fused_layer():
    rng = np.random.default_rng(0)
    parts, W = [rng.standard_normal((2, b, b)) for b in (4, 4, 8)], rng.standard_normal((32, 10))
    tensors = {f"oft_unet_x.oft_blocks.{n}": part for n, part in enumerate(parts)}
    tensors["oft_unet_x.alpha"] = np.array(0.05)
    update = load_adapter(tensors, base={"x.weight": W})["oft_unet_x"]
    rows = np.split(W, [8, 16])
    wanted = np.vstack([sd_scripts(part, 0.05, each) for part, each in zip(parts, rows, strict=True)])
    np.testing.assert_allclose(update.delta_W(), wanted, rtol=0, atol=1e-12)


def test_one_file_of_several_algorithms(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "lora_unet_a.oft_blocks": rng.standard_normal((4, 6, 6)),
        "lora_unet_a.alpha": np.array(0.0),
        "lora_unet_b.lokr_w1": rng.standard_normal((4, 4)),
        "lora_unet_b.lokr_w2": rng.standard_normal((6, 6)),
        "lora_unet_c.lora_down.weight": rng.standard_normal((2, 24)),
        "lora_unet_c.lora_up.weight": rng.standard_normal((24, 2)),
        "lora_unet_d.weight": rng.standard_normal(24),
        "lora_unet_d.on_input": np.array(1),
        "lora_unet_e.w_norm": rng.standard_normal(24),
        "lora_unet_f.diff": rng.standard_normal((24, 24)),
        "lora_unet_f.diff_b": rng.standard_normal(24),
    }
    base = {f"{name}.weight": rng.standard_normal((24, 24)) for name in "abcdf"}
    read = load_adapter(tensors, base=base)
    assert [name[-1] for name in read] == ["a", "b", "c", "d", "f"]
    assert {item.key for item in read.ignored} == {"lora_unet_e.w_norm", "lora_unet_f.diff_b"}
    assert read.unknown == ()
    result = compare(read, load_adapter(tensors, base=base), side="left")
    assert result.cosine == pytest.approx(1)
    assert len(amplify(base, read).modules) == 5


@pytest.mark.parametrize(
    ("tensors", "flag", "sides"),
    [
        ({"x.oft_blocks": np.ones((4, 6, 6)), "x.alpha": np.array(0.0)}, "oft", (24, 0)),
        ({"x.oft_blocks": np.ones((2, 4, 6, 6)), "x.alpha": np.array(0.0)}, "boft", (24, 0)),
        ({"x.weight": np.ones(24), "x.on_input": np.array(0)}, "ia3", (24, 0)),
        ({"x.weight": np.ones(24), "x.on_input": np.array(1)}, "ia3", (0, 24)),
        (
            {
                f"x.{name}.weight": np.ones((2, 24) if name in {"a2", "b2"} else (24, 2))
                for name in ("a1", "a2", "b1", "b2")
            },
            "glora",
            (24, 24),
        ),
    ],
)
def test_without_the_base_it_says_what_is_there(tensors, flag, sides):
    (row,) = inspect(tensors).modules
    assert {flag, "needs_base"} <= set(row.flags)
    assert (row.d_out, row.d_in, row.norm_delta_W) == (*sides, None)
    with pytest.raises(InconclusiveError, match="`base`"):
        load_adapter(tensors)["x"].delta_W()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"x.oft_blocks": np.ones((4, 6, 5))}, r"oft_blocks does not have the shape .*\[4, 6, 5\]"),
        ({"x.oft_blocks": np.ones((70, 4, 6, 6))}, r"oft_blocks does not have the shape"),
        (
            {"x.oft_blocks": np.ones((4, 6, 6)), "x.rescale": np.ones((7, 1))},
            "rescale has 7 numbers for 24 rows",
        ),
        ({"x.weight": np.ones((3, 4)), "x.on_input": np.array(1)}, "IA3 is not one row of numbers"),
        (
            {f"x.{name}.weight": np.ones((2, 3)) for name in ("a1", "a2", "b1", "b2")},
            r"GLoRA do not fit together: a1 \[2, 3\]",
        ),
    ],
)
def test_parts_that_do_not_fit(tensors, message):
    with pytest.raises(ShapeError, match=message):
        load_adapter(tensors)


def test_a_base_of_another_shape():
    with pytest.raises(ShapeError, match="base model"):
        load_adapter({"x.oft_blocks": np.zeros((4, 6, 6))}, base={"x.weight": np.eye(20)})


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"lora_x.oft_diag": np.ones((4, 6, 6))}, "LyCORIS before 2.0"),
        ({"base_model.model.x.oft_r": np.ones((4, 6, 6))}, "PEFT before 0.16"),
        (
            {
                "x.q_layer.weight": np.ones((2, 8)),
                "x.p_layer.weight": np.ones((8, 2)),
                "x.lambda_layer": np.ones((1, 2)),
            },
            "T-LoRA of LyCORIS",
        ),
        ({"x.w_norm": np.ones(8), "x.b_norm": np.ones(8)}, "norm layers alone"),
    ],
)
def test_kinds_that_are_refused_say_why(tensors, message):
    with pytest.raises(FormatError, match=message):
        load_adapter(tensors)


def test_dylora_is_read_as_the_pair_that_it_stores(tmp_path):
    torch.manual_seed(0)
    made = modules.DyLoraModule(
        "lora_unet_x", torch.nn.Linear(24, 32), 1.0, lora_dim=4, alpha=2, block_size=2
    )
    with torch.no_grad():
        for parameter in (*made.up_list, *made.down_list):
            parameter.normal_()
    written(made, tmp_path / "x.safetensors")
    read = load_adapter(tmp_path / "x.safetensors")
    (update,) = read.values()
    B, A = torch.cat(list(made.up_list), 1).detach().numpy(), torch.cat(list(made.down_list)).detach().numpy()
    assert (read.format, update.r, update.scale.value) == ("kohya", 4, 0.5)
    np.testing.assert_allclose(update.delta_W(), 0.5 * B.astype("f8") @ A.astype("f8"))
