"""mlx-lm adapters, laid out by hand.

Layout after ml-explore/mlx-lm mlx_lm/tuner/lora.py (LoRALinear, LoRASwitchLinear), tuner/dora.py and tuner/utils.py
(load_adapters, linear_to_lora_layers).
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from subspace import compare
from subspace.adapters import load_adapter
from subspace.errors import FormatError, InconclusiveError, ShapeError

MODULE = "model.layers.10.self_attn.q_proj"
RNG = np.random.default_rng(0)


def pair(module=MODULE, *, r=4, d_in=6, d_out=5):
    return {
        f"{module}.lora_a": RNG.standard_normal((d_in, r)).astype(np.float32),
        f"{module}.lora_b": RNG.standard_normal((r, d_out)).astype(np.float32),
    }


@pytest.fixture
def saved(tmp_path):
    def save(tensors, parameters, **more):
        save_file(tensors, tmp_path / "adapters.safetensors")
        config = {"fine_tune_type": "lora", "num_layers": 4, "lora_parameters": parameters} | more
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        return tmp_path

    return save


def test_a_directory_gives_back_what_the_layer_adds(saved):
    tensors = pair() | pair("model.layers.9.self_attn.q_proj")
    adapter = load_adapter(saved(tensors, {"rank": 4, "alpha": 16, "dropout": 0.0, "scale": 10.0}))
    update = adapter[MODULE]
    # LoRALinear.fuse: (scale * lora_b.T) @ lora_a.T
    fused = 10 * tensors[f"{MODULE}.lora_b"].T @ tensors[f"{MODULE}.lora_a"].T
    assert adapter.format == "mlx"
    assert list(adapter) == ["model.layers.9.self_attn.q_proj", MODULE]
    assert (update.r, update.d_in, update.d_out) == (4, 6, 5)
    assert (update.scale.value, update.scale.source) == (10.0, "config scale")
    assert update.delta_W() == pytest.approx(fused, rel=1e-5)
    assert (adapter.ignored, adapter.unknown, adapter.notes) == ((), (), ())


def test_a_square_layer_is_told_by_the_case_of_its_key():
    square = RNG.standard_normal((2, 3, 3)).astype(np.float32)
    mlx = load_adapter({"q.lora_a": square[0], "q.lora_b": square[1]}, scale=1)["q"]
    loralib = load_adapter({"q.lora_A": square[0], "q.lora_B": square[1]}, scale=1, layout="BA")["q"]
    assert mlx.delta_W() == pytest.approx(square[1].T @ square[0].T, rel=1e-5)
    assert loralib.delta_W() == pytest.approx(square[1] @ square[0], rel=1e-5)


def test_the_same_update_as_peft_keys_agrees_on_both_sides():
    tensors = pair()
    peft = {
        f"base_model.model.{MODULE}.lora_A.weight": tensors[f"{MODULE}.lora_a"].T.copy(),
        f"base_model.model.{MODULE}.lora_B.weight": tensors[f"{MODULE}.lora_b"].T.copy(),
    }
    rows = compare(tensors, peft, side=("a", "b")).modules
    assert [row.phi_full for row in rows] == pytest.approx([1.0, 1.0])


def test_npz_has_no_configuration_and_so_no_scale(tmp_path):
    np.savez(tmp_path / "adapters.npz", **pair())
    adapter = load_adapter(tmp_path / "adapters.npz")
    assert adapter[MODULE].scale.value is None
    assert "The scale is unknown" in adapter.notes[0]
    with pytest.raises(InconclusiveError, match="`scale`"):
        adapter[MODULE].delta_W()
    assert load_adapter(tmp_path / "adapters.npz", scale=20.0).notes == ()


@pytest.mark.parametrize("parameters", [None, {}, {"rank": 4}, []])
def test_a_configuration_without_a_scale_leaves_it_unknown(saved, parameters):
    assert load_adapter(saved(pair(), parameters))[MODULE].scale.value is None


@pytest.mark.parametrize("scale", ["10", True, 0, -1.0, [1]])
def test_a_scale_that_is_no_positive_number_is_an_error(saved, scale):
    with pytest.raises(FormatError, match="positive number"):
        load_adapter(saved(pair(), {"scale": scale}))


def test_another_rank_in_the_configuration_is_an_error(saved):
    with pytest.raises(FormatError, match="rank 8"):
        load_adapter(saved(pair(r=4), {"rank": 8, "scale": 1.0}))


def test_a_zero_b_is_a_zero_update():
    tensors = pair()
    tensors[f"{MODULE}.lora_b"][:] = 0
    assert not load_adapter(tensors, scale=1.0)[MODULE].delta_W().any()


def test_dora_is_flagged_and_its_magnitude_accounted_for():
    adapter = load_adapter(pair() | {f"{MODULE}.m": np.ones(5, np.float32)})
    assert (adapter[MODULE].flags, adapter.unknown) == (("dora",), ())


@pytest.mark.parametrize("stacked", [True, False])
def test_experts_of_a_switch_layer_are_one_update_each(stacked):
    # LoRASwitchLinear.fuse: lora_b @ lora_a.reshape(experts, -1, d_in), not transposed
    a = RNG.standard_normal((3, 2, 6)).astype(np.float32)
    b = RNG.standard_normal((3, 5, 2)).astype(np.float32)
    tensors = {"mlp.up.lora_a": a if stacked else a.reshape(6, 6), "mlp.up.lora_b": b}
    adapter = load_adapter(tensors, scale=1.0)
    assert list(adapter) == ["mlp.up[0]", "mlp.up[1]", "mlp.up[2]"]
    for expert, update in enumerate(adapter.values()):
        assert update.delta_W() == pytest.approx(b[expert] @ a[expert], rel=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ((6, 4), (3, 5), "different ranks"),
        ((3, 2, 6), (2, 5), "fit together"),
        ((3, 2, 6), (4, 5, 2), "fit together"),
    ],
)
def test_shapes_that_do_not_fit_are_an_error(a, b, said):
    with pytest.raises(ShapeError, match=said):
        load_adapter({"q.lora_a": np.ones(a, np.float32), "q.lora_b": np.ones(b, np.float32)})


@pytest.mark.parametrize(
    ("missing", "said"), [("b", "lora_b is missing .* has lora_a"), ("a", "lora_a is missing .* has lora_b")]
)
def test_half_a_pair_is_an_error(missing, said):
    tensors = pair() | pair("k")
    del tensors[f"{MODULE}.lora_{missing}"]
    with pytest.raises(ShapeError, match=said):
        load_adapter(tensors)


def test_quantised_factors_are_refused():
    tensors = {"q.lora_a": np.ones((4, 6), np.uint32), "q.lora_b": np.ones((6, 4), np.uint32)}
    with pytest.raises(ShapeError, match="dequantise"):
        load_adapter(tensors)


def test_every_tensor_is_used_ignored_or_unknown():
    others = {"model.norm.weight": np.ones(3, np.float32), f"{MODULE}.lora_c": np.ones(3, np.float32)}
    adapter = load_adapter(pair() | others)
    assert [entry.key for entry in adapter.ignored] == ["model.norm.weight"]
    assert adapter.unknown == (f"{MODULE}.lora_c",)


def test_a_style_beside_another_is_read_with_it():
    loralib = {"k.lora_A": np.ones((2, 3), np.float32), "k.lora_B": np.ones((3, 2), np.float32)}
    for tensors in (pair() | loralib, loralib | pair()):
        adapter = load_adapter(tensors)
        assert (adapter.format, set(adapter)) == ("loralib + mlx", {"k", MODULE})
