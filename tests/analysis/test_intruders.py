"""Intruders of adapters as files and models have them, next to PEFT's count where that is right and where it is not."""

from __future__ import annotations

import json

import intruder_cases as cases
import numpy as np
import peft
import pytest
import torch
from peft.tuners.lora.intruders import reduce_intruder_dimension
from transformers.pytorch_utils import Conv1D

import subspace
from subspace import Flag, InconclusiveError, SubspaceError, convert, intruders, load_adapter, mitigate

# what PEFT, the oracle, warns of about the small models made here
pytestmark = pytest.mark.filterwarnings(r"ignore:::peft\..*")
D_IN, D_OUT = 40, 56


class Layers(torch.nn.Module):
    """One layer of every kind that PEFT stores in its own way."""

    def __init__(self):
        super().__init__()
        self.emb = torch.nn.Embedding(90, D_IN)
        self.lin = torch.nn.Linear(D_IN, D_OUT)
        self.c_attn = Conv1D(D_OUT, D_IN)
        self.square = Conv1D(D_IN, D_IN)
        self.conv = torch.nn.Conv2d(8, D_OUT, (2, 3))


EVERY = ["emb", "lin", "c_attn", "square", "conv"]


def adapted(strength=3.0, dtype=torch.float32, **config):
    """A PEFT model whose updates have norms of about `strength` times that of their weights; B and A in `dtype`."""
    torch.manual_seed(0)
    model = Layers()
    config = peft.LoraConfig(**{"r": 3, "lora_alpha": 6, "target_modules": EVERY} | config)
    model = peft.get_peft_model(model, config)
    with torch.no_grad():
        for layer in model.modules():
            if hasattr(layer, "get_delta_weight"):
                embedded = "default" in layer.lora_embedding_A
                B = (layer.lora_embedding_B if embedded else layer.lora_B)["default"]
                A = (layer.lora_embedding_A if embedded else layer.lora_A)["default"]
                for M in (B, A) if embedded else (B.weight, A.weight):
                    M.normal_()
                delta = layer.get_delta_weight("default").flatten(1)
                size = strength * torch.linalg.matrix_norm(layer.get_base_layer().weight.flatten(1), 2)
                (B if embedded else B.weight).mul_(size / torch.linalg.matrix_norm(delta, 2))
    return model


def weights(model):
    """Module -> (its base weight, delta_W as PEFT adds it), both as the model stores them, as matrices in float64."""
    return {
        name.removeprefix("base_model.model."): (
            layer.get_base_layer().weight.detach().double().flatten(1).numpy(),
            layer.get_delta_weight("default").detach().double().flatten(1).numpy(),
        )
        for name, layer in model.named_modules()
        if hasattr(layer, "get_delta_weight")
    }


def base_of(model):
    return {f"{name}.weight": layer.get_base_layer().weight.detach() for name, layer in named_layers(model)}


def named_layers(model):
    for name, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            yield name.removeprefix("base_model.model."), layer


def saved(model, folder):
    model.save_pretrained(folder)
    return folder


def counted_by_peft(model, epsilon=0.5):
    """Module -> the count that PEFT prints."""
    lines = []
    reduce_intruder_dimension(model, threshold_epsilon=epsilon, logging_sink=lines.append)
    pairs = [line.split(": ", 1) for line in lines if ": " in line]
    return {
        name.removeprefix("base_model.model."): int(
            said.removeprefix("Intruders: ").replace("No intruders", "0")
        )
        for name, said in pairs
    }


def test_the_count_of_linear_layers_is_pefts():
    for strength in (0.1, 0.6, 3.0):
        model = adapted(strength, target_modules=["lin"])
        found = intruders(base_of(model), model, up_to=0)
        assert {row.module: row.intruders for row in found} == counted_by_peft(model)


def test_peft_counts_the_other_side_of_conv1d():
    """Its weight is stored (d_in, d_out), whose left singular vectors are those of inputs."""
    model = adapted(0.6, target_modules=["c_attn"])
    W, delta_W = weights(model)["c_attn"]
    left, right = (cases.cosines(W.T, delta_W.T, 10, side) for side in ("left", "right"))
    found = intruders(base_of(model), model, side="both", up_to=0)
    np.testing.assert_allclose(found["c_attn", "left"].max_cos, left, atol=1e-6)
    np.testing.assert_allclose(found["c_attn", "right"].max_cos, right, atol=1e-6)
    assert counted_by_peft(model, 0.69)["c_attn"] == (right < 0.69).sum() != (left < 0.69).sum()


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_every_kind_of_layer_has_the_definition_s_numbers(exact, side, tmp_path):
    model = adapted(1.5)
    found = intruders(base_of(model), saved(model, tmp_path), side=side, exact=exact, up_to=0)
    assert {row.module for row in found} == set(EVERY)
    for module, (W, delta_W) in weights(model).items():
        turned = module in {"emb", "c_attn", "square"}  # stored (d_in, d_out)
        stored = {"left": "right", "right": "left"}[side] if turned else side
        truth, row = cases.cosines(W, delta_W, 10, stored), found[module]
        assert row.route == ("exact" if exact else "fast")
        assert np.all(row.max_cos_least <= truth + 1e-3) and np.all(truth <= np.array(row.max_cos) + 1e-3), (
            module
        )
        assert row.intruders == (truth < 0.5).sum(), module
        assert row.sigma == pytest.approx(np.linalg.svd(W + delta_W)[1][:10], rel=1e-5)


# mitigation

CONFIGS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"lin": 5, "c_attn": 2}, "alpha_pattern": {"conv": 12, "lin": 1}},
    "rslora and patterns": {"use_rslora": True, "rank_pattern": {"lin": 5}, "alpha_pattern": {"emb": 12}},
}


def mitigated(W, delta_W, factor, stored_side):
    """W + delta_W + (factor - 1) u sigma v^T on the first intruder, by the definition."""
    U, S, Vh = np.linalg.svd(W + delta_W, full_matrices=False)
    first = np.flatnonzero(cases.cosines(W, delta_W, 10, stored_side) < 0.5)
    if not first.size:
        return W + delta_W
    n = first[0]
    return W + delta_W + (factor - 1) * S[n] * np.outer(U[:, n], Vh[n])


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("factor", [0.0, 0.75])
def test_the_written_adapter_merges_into_the_formula_s_weight_in_peft(config, factor, tmp_path):
    """Read back by PEFT itself, for every kind of layer, each scale rule and each pattern."""
    model = adapted(2.0, **CONFIGS[config])
    before = weights(model)
    made = mitigate(base_of(model), saved(model, tmp_path / "in"), factor)
    convert(made.adapter, to="peft", allow=["rounding"]).save(tmp_path / "out")
    torch.manual_seed(0)
    after = weights(peft.PeftModel.from_pretrained(Layers(), tmp_path / "out"))
    changed = 0
    for module, (W, delta_W) in before.items():
        side = "right" if module in {"emb", "c_attn", "square"} else "left"
        wanted = mitigated(W, delta_W, factor, side)
        np.testing.assert_allclose(
            sum(after[module]), wanted, atol=3e-6 * np.linalg.norm(wanted, 2), err_msg=module
        )
        changed += not np.allclose(wanted, W + delta_W, atol=1e-3)
    assert changed >= 4
    assert len(json.loads((tmp_path / "out" / "adapter_config.json").read_text())["rank_pattern"]) <= 5


def test_a_factor_of_1_changes_nothing(tmp_path):
    model = adapted(2.0)
    source = saved(model, tmp_path)
    made = mitigate(base_of(model), source, 1.0)
    for module, update in load_adapter(source).items():
        assert np.array_equal(made.adapter[module].A, update.A)
        assert np.array_equal(made.adapter[module].B, update.B)
    assert all(row.mitigated_r is None for row in made.intruders)


def test_a_limited_rank_is_the_nearest_one_and_says_what_it_lost(tmp_path):
    model = adapted(2.0, target_modules=["lin"])
    W, delta_W = weights(model)["lin"]
    source = saved(model, tmp_path)
    whole, limited = (mitigate(base_of(model), source, 0.5, rank=rank) for rank in (None, 3))
    exact = mitigated(W, delta_W, 0.5, "left") - W
    near = limited.adapter["lin"].delta_W()
    S = np.linalg.svd(exact)[1]
    assert (whole.intruders["lin"].mitigated_r, whole.intruders["lin"].mitigated_error) == (4, 0)
    row = limited.intruders["lin"]
    assert row.mitigated_r == 3
    assert row.mitigated_error == pytest.approx(
        np.linalg.norm(exact - near) / np.linalg.norm(exact), rel=1e-4
    )
    assert np.linalg.norm(exact - near) == pytest.approx(np.linalg.norm(S[3:]), rel=1e-4)


def test_the_intruder_is_gone():
    model = adapted(2.0, target_modules=["lin"])
    base = base_of(model)
    made = mitigate(base, model, 0.0)
    again = intruders(base, made.adapter, up_to=0)
    assert again["lin"].intruders == made.intruders["lin"].intruders - 1


def test_what_cannot_take_a_direction_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    W, delta_W = (
        rng.standard_normal((30, 30)),
        50 * np.outer(rng.standard_normal(30), rng.standard_normal(30)),
    )
    with pytest.raises(SubspaceError, match=r"A dense delta_W has no A and B.*truncate it first"):
        mitigate(W, delta_W, 0.5)
    model = adapted(2.0, target_modules=["lin"], use_dora=True)
    with pytest.raises(SubspaceError, match="DoRA's magnitudes would rescale"):
        mitigate(base_of(model), model, 0.5)
    with pytest.raises(SubspaceError, match="Invalid factor -1"):
        mitigate(W, delta_W, -1)
    with pytest.raises(SubspaceError, match="Rank 0 is too small"):
        mitigate(W, delta_W, 0.5, rank=0)


# results


def pair(W, strength, seed=0, r=4, name="h.0.q"):
    B, A = cases.update(W, strength, np.random.default_rng(seed), r)
    return {f"{name}.lora_A": A, f"{name}.lora_B": B}


def test_counts_of_the_sweep_are_those_of_dense_decompositions():
    rng = np.random.default_rng(5)
    Ws = {f"h.{n}.q": cases.base("power", (60, 60), rng) for n in range(2)}
    adapter = {}
    for n, (name, W) in enumerate(Ws.items()):
        adapter |= pair(W, 0.7, seed=n, name=name)
    found = intruders({f"{name}.weight": W for name, W in Ws.items()}, adapter, scale=1.0, side="both")
    delta = {name: adapter[f"{name}.lora_B"] @ adapter[f"{name}.lora_A"] for name in Ws}
    sweep = found.sweep()
    for side in ("left", "right"):
        cos = np.array([cases.cosines(W, delta[name], 10, side) for name, W in Ws.items()])
        assert sweep["sides"][side]["counts"] == [int((cos < e).sum()) for e in sweep["epsilon"]]
        assert sweep["sides"][side]["counts_k"] == [int((cos[:, :k] < 0.5).sum()) for k in range(1, 11)]
    assert sweep["counts"] == [
        sum(each) for each in zip(*(sweep["sides"][s]["counts"] for s in sweep["sides"]), strict=True)
    ]
    assert json.loads(found.to_json())["sweep"] == sweep
    assert found["h.1.q", "right"].side == "right"


def test_a_dense_update_has_the_numbers_of_its_factors():
    rng = np.random.default_rng(1)
    W = cases.base("power", (70, 50), rng)
    B, A = cases.update(W, 0.8, rng)
    low = intruders(W, {"A": A, "B": B}, scale=1.0)
    for exact in (True, False):
        dense = intruders(W, B @ A, exact=exact)
        assert dense[0].intruders == low[0].intruders > 0
        assert dense[0].s_star == pytest.approx(low[0].s_star, rel=0.02)
        assert (Flag.SCALE_OF_LEADING in dense[0].flags) == (not exact)


def test_the_scale_multiplies():
    W = cases.base("bulk", (150, 150), np.random.default_rng(2))
    one = intruders({"h.0.q.weight": W}, pair(W, 1.0), scale=0.1)
    ten = intruders({"h.0.q.weight": W}, pair(W, 1.0), scale=1.0)
    assert one[0].s_star == pytest.approx(10 * ten[0].s_star, rel=0.02)
    assert one[0].s_star_law == pytest.approx(10 * ten[0].s_star_law, rel=1e-9)


def test_an_unknown_scale_has_no_answer():
    W = cases.base("bulk", (40, 40), np.random.default_rng(2))
    with pytest.raises(InconclusiveError, match=r"scale of delta_W is unknown.*give `scale`"):
        intruders({"h.0.q.weight": W}, pair(W, 1.0))


def test_small_untrained_zero_and_damaged_modules_have_flags():
    rng = np.random.default_rng(3)
    W = {f"h.{n}.q.weight": cases.base("bulk", (40, 40), rng) for n in range(4)}
    W["h.2.q.weight"] = np.zeros((40, 40))
    W["h.3.q.weight"][3, 4] = np.nan
    adapter = {}
    for n, strength in enumerate((1e-4, 0.0, 1.0, 1.0)):
        adapter |= pair(rng.standard_normal((40, 40)), strength, seed=n, name=f"h.{n}.q")
    for exact in (True, False):
        rows = intruders(W, adapter, scale=1.0, exact=exact).modules
        flags = [Flag.TOO_SMALL_TO_INTRUDE, Flag.UNTRAINED, Flag.BASE_ZERO, Flag.NOT_FINITE]
        assert [flags[n] in row.flags for n, row in enumerate(rows)] == [True] * 4
        assert [row.intruders for row in rows] == [0, 0, None, None]
        assert rows[0].s_star is None and rows[0].s_star_law > 64
        assert rows[1].s_star is rows[1].s_star_law is None
        assert min(rows[1].max_cos) > 0.999


@pytest.mark.parametrize("exact", [True, False])
def test_a_product_that_is_too_large_has_a_flag_and_large_factors_of_a_plain_one_have_none(exact):
    W = cases.base("bulk", (40, 40), np.random.default_rng(3))
    plain = {"A": np.ones((1, 40)), "B": np.ones((40, 1))}
    huge, skewed = ({"A": 1e150 * plain["A"], "B": size * plain["B"]} for size in (1e150, 1e-150))
    with pytest.raises(InconclusiveError, match="delta_W is too large for its square"):
        intruders(W, huge, scale=1.0, exact=exact)
    found, same = (intruders(W, adapter, scale=1.0, exact=exact)[0] for adapter in (skewed, plain))
    assert found.max_cos == pytest.approx(same.max_cos) and found.s_star == pytest.approx(same.s_star)


def test_sentences_say_what_was_found():
    W = cases.base("bulk", (60, 60), np.random.default_rng(2))
    many, none = (intruders({"h.0.q.weight": W}, pair(W, strength), scale=1.0) for strength in (3.0, 1e-4))
    n = many[0].intruders
    assert many.headline().startswith(
        f"{n} of the 10 leading left singular directions of W + delta_W are new to W"
    )
    assert "The first intruder appears at" in many.facts()[1] and "by the law" in many.facts()[1]
    assert none.headline().startswith(
        "None of the 10 leading left singular directions of W + delta_W is an intruder"
    )
    assert "too small to intrude" in none.facts()[1] and "up to 64 times" in none.facts()[1]
    assert repr(many).startswith("<Intruders of 1 row:") and "(not of delta_W)" in many.convention


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"k": 0}, "k = 0 is too small"),
        ({"epsilon": 0}, "Invalid threshold 0"),
        ({"epsilon": 1.5}, "Invalid threshold 1.5"),
        ({"side": "up"}, "Unknown side 'up'"),
        ({"up_to": -1}, "Invalid multiple of the scale"),
    ],
)
def test_parameters_out_of_range(changed, message):
    with pytest.raises(subspace.SubspaceError, match=message):
        intruders(np.eye(4), {"A": np.eye(1, 4), "B": np.eye(4, 1)}, scale=1.0, **changed)


def test_groups_of_a_fused_layer_are_measured_and_scaled_on_their_own_rows(tmp_path):
    """q and v of a weight of q, k and v; what is written for the whole layer adds to the same rows."""
    rng = np.random.default_rng(4)
    d = 30
    W = np.concatenate([cases.base("bulk", (d, d), rng) for _ in range(3)])
    pairs = [cases.update(W[start : start + d], 2.0, rng, r=2) for start in (0, 2 * d)]
    fused = {
        "h.0.attn.lora_A": np.concatenate([A for _, A in pairs]),
        "h.0.attn.lora_B": np.concatenate([B for B, _ in pairs]),
    }
    asked = {"enable_lora": (True, False, True), "scale": 1.0}
    made = mitigate({"h.0.attn.weight": W}, fused, 0.0, **asked)
    assert [row.module for row in made.intruders] == ["h.0.attn[q]", "h.0.attn[v]"]
    convert(made.adapter, to="peft", allow=["rounding"]).save(tmp_path / "out")
    ((_, written),) = load_adapter(tmp_path / "out").items()
    wanted = W.copy()
    for (B, A), start in zip(pairs, (0, 2 * d), strict=True):
        part = W[start : start + d]
        wanted[start : start + d] = mitigated(part, B @ A, 0.0, "left")
        assert not np.allclose(wanted[start : start + d], part + B @ A, atol=1e-3)
    np.testing.assert_allclose(W + written.delta_W(), wanted, atol=1e-5)


def test_a_bfloat16_base_is_streamed_from_its_file(tmp_path):
    from safetensors.torch import save_file

    W = torch.tensor(cases.base("spikes", (90, 120), np.random.default_rng(5))).bfloat16()
    save_file({"h.0.q.weight": W}, tmp_path / "base.safetensors")
    adapter = pair(W.double().numpy(), 0.5)
    delta_W = adapter["h.0.q.lora_B"] @ adapter["h.0.q.lora_A"]
    for side in ("left", "right"):
        truth = cases.cosines(W.double().numpy(), delta_W, 10, side)
        row = intruders(tmp_path / "base.safetensors", adapter, scale=1.0, exact=False, side=side, up_to=0)[0]
        assert np.all(row.max_cos_least <= truth + 1e-3) and np.all(truth <= np.array(row.max_cos) + 1e-3)
        assert row.intruders == (truth < 0.5).sum() > 0


@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (2, 3), (4, 4), (17, 12)])
def test_layers_smaller_than_k_have_fewer_directions(shape):
    rng = np.random.default_rng(6)
    W, A, B = (
        rng.standard_normal(shape),
        rng.standard_normal((1, shape[1])),
        rng.standard_normal((shape[0], 1)),
    )
    for adapter in ({"A": A, "B": B}, B @ A):
        for exact in (True, False):
            for row in intruders(W, adapter, scale=1.0, exact=exact, side="both"):
                truth = cases.cosines(W, B @ A, 10, row.side)
                assert row.max_cos == pytest.approx(truth, abs=2e-3)
                assert len(row.sigma) == len(row.max_cos) == min(10, *shape)
