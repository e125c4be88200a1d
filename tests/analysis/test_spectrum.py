"""Spectra of updates: against dense NumPy, against the base, the advice of each rule, and files of ranks."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import subspace
from subspace.analysis.rank_advice import RULES
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.flags import Flag

_RNG = np.random.default_rng(0)
D_OUT, D_IN, R = 40, 30, 8


def _factors(modules=("q", "v"), r=R, signal=3):
    """Factors whose products have `signal` strong directions."""
    found = {}
    for module in modules:
        B = 0.05 * _RNG.standard_normal((D_OUT, r))
        B[:, :signal] += 2 * _RNG.standard_normal((D_OUT, signal))
        found[f"{module}.lora_A"] = np.linalg.qr(_RNG.standard_normal((D_IN, r)))[0].T
        found[f"{module}.lora_B"] = B
    return found


def _dense(factors, module, scale=1.0):
    return scale * factors[f"{module}.lora_B"] @ factors[f"{module}.lora_A"]


def test_every_number_is_that_of_the_dense_matrix():
    factors = _factors()
    found = subspace.spectrum(factors, scale=0.5)
    assert [row.module for row in found] == ["q", "v"] and found.evaluated is None
    for row in found:
        S = np.linalg.svd(_dense(factors, row.module, 0.5), compute_uv=False)[:R]
        np.testing.assert_allclose(row.sigma, S, rtol=1e-10)
        p = S / S.sum()
        energy = np.cumsum(S**2) / np.sum(S**2)
        assert (row.r, row.rank, row.scale) == (R, R, 0.5)
        assert row.norm_delta_W == pytest.approx(np.linalg.norm(S))
        assert row.stable_rank == pytest.approx(np.sum(S**2) / S[0] ** 2)
        assert row.entropy_rank == pytest.approx(math.exp(-np.sum(p * np.log(p))))
        assert row.participation == pytest.approx(np.sum(S**2) ** 2 / np.sum(S**4))
        assert row.energy_rank == {f"{q:g}": int(np.searchsorted(energy, q) + 1) for q in (0.9, 0.95, 0.99)}
        assert row.energy_95 == row.energy_rank["0.95"] == row.advised_rank
        assert (row.knee, row.gavish_donoho) == (3, 3)
        assert row.null == "random factors" and row.above_random == np.sum(row.sigma > row.random_sigma)
        assert row.flags == ()


def test_no_count_depends_on_the_scale():
    factors = _factors()
    one, many = subspace.spectrum(factors, scale=1.0)["q"], subspace.spectrum(factors, scale=-1e3)["q"]
    same = ("rank", "stable_rank", "entropy_rank", "energy_rank", "knee", "gavish_donoho", "above_random")
    for name in (*same, "advised_rank"):
        assert getattr(one, name) == getattr(many, name), name
    np.testing.assert_allclose(many.sigma, 1e3 * one.sigma)
    assert many.random_sigma == pytest.approx(1e3 * one.random_sigma)


def test_learned_directions_are_above_random_ones_and_random_factors_are_not():
    noise = {
        f"m{n}.lora_{x}": _RNG.standard_normal(s)
        for n in range(60)
        for x, s in (("A", (8, 64)), ("B", (64, 8)))
    }
    above = [row.above_random for row in subspace.spectrum(noise, scale=1.0)]
    assert sum(count > 0 for count in above) <= 9  # 5 % of 60 are 3
    # the norm of all is that of the strong ones, so that the third may be below the largest random one
    for null in ("factors", "B"):
        assert 1 <= subspace.spectrum(_factors(), scale=1.0, null=null)["q"].above_random <= 3


def test_a_direction_of_A_is_news_of_random_factors_and_not_of_a_random_B():
    A = _RNG.standard_normal((6, 60)) + 5 * np.outer(_RNG.standard_normal(6), _RNG.standard_normal(60))
    factors = {"q.lora_A": A, "q.lora_B": _RNG.standard_normal((50, 6))}
    assert subspace.spectrum(factors, scale=1.0)["q"].above_random == 1
    row = subspace.spectrum(factors, scale=1.0, null="B")["q"]
    assert (row.null, row.above_random) == ("random B", 0)


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_advises_its_own_number_and_says_why(rule):
    row = subspace.spectrum(_factors(), scale=1.0, rule=rule, energy=0.999)["q"]
    own = {
        "energy": int(np.searchsorted(np.cumsum(row.sigma**2) / np.sum(row.sigma**2), 0.999) + 1),
        "knee": row.knee,
        "gavish-donoho": row.gavish_donoho,
        "random": row.above_random,
        "entropy": math.ceil(row.entropy_rank),
    }
    assert row.advised_rank == own[rule] and row.why


def test_where_a_rule_says_nothing_all_directions_stay_and_no_rank_is_below_one():
    flat = {"q.lora_A": np.eye(4, 9), "q.lora_B": np.eye(9, 4)}
    row = subspace.spectrum(flat, scale=1.0, rule="knee")["q"]
    assert (row.knee, row.advised_rank, row.flags) == (None, 4, (Flag.NO_RULE,))
    row = subspace.spectrum(flat, scale=1.0, rule="gavish-donoho")["q"]
    assert (row.gavish_donoho, row.advised_rank, row.flags) == (0, 1, (Flag.LEAST_RANK,))
    one = {"q.lora_A": np.ones((1, 9)), "q.lora_B": np.ones((9, 1))}
    row = subspace.spectrum(one, scale=1.0, rule="random")["q"]
    assert (row.above_random, row.advised_rank) == (None, 1)


def test_what_has_no_number_has_none_and_a_flag():
    factors = _factors(("q", "zero", "bad", "low"))
    factors["zero.lora_B"] = np.zeros((D_OUT, R))
    factors["bad.lora_A"] = np.full((R, D_IN), np.nan)
    factors["low.lora_B"][:, 5:] = 0
    found = subspace.spectrum(factors)
    assert {row.module: row.flags for row in found} == {
        "q": (Flag.SCALE_UNKNOWN,),
        "zero": (Flag.SCALE_UNKNOWN, Flag.UNTRAINED),
        "bad": (Flag.NOT_FINITE,),
        "low": (Flag.SCALE_UNKNOWN, Flag.RANK_BELOW_R),
    }
    for name in ("zero", "bad"):
        row = found[name]
        assert row.sigma.size == 0 and set(row.energy_rank.values()) == {None} and row.energy_95 is None
        assert {row.stable_rank, row.entropy_rank, row.knee, row.above_random, row.advised_rank} == {None}
    assert found["q"].norm_delta_W is None and found["low"].rank == 5
    assert found.ranks() == {"q": found["q"].advised_rank, "zero": 1, "low": found["low"].advised_rank}
    assert "half of the modules need no more than" in found.headline()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q.lora_B": np.zeros((D_OUT, R))}, "No module has a spectrum: In q delta_W is exactly zero"),
        (
            {"q.lora_A": np.full((R, D_IN), np.inf)},
            "No module has a spectrum: In q a factor or a weight holds",
        ),
    ],
)
def test_an_adapter_without_a_spectrum_is_inconclusive(change, message):
    with pytest.raises(InconclusiveError, match=message):
        subspace.spectrum(_factors(("q",)) | change, scale=1.0)


def test_a_dense_update_is_compared_with_a_random_matrix():
    M = _RNG.standard_normal((D_OUT, D_IN)) / 5
    M += 4 * np.outer(_RNG.standard_normal(D_OUT), _RNG.standard_normal(D_IN))
    row = subspace.spectrum({"delta_W": M}).modules[0]
    np.testing.assert_allclose(row.sigma, np.linalg.svd(M, compute_uv=False), rtol=1e-6)
    assert (row.null, row.above_random, row.gavish_donoho, row.r) == ("random matrix", 1, 1, D_IN)
    assert Flag.DENSE in row.flags


def _weights(d_out=D_OUT, d_in=D_IN, modules=("q", "v")):
    return {f"{module}.weight": _RNG.standard_normal((d_out, d_in)) for module in modules}


def test_against_the_base_numbers_are_those_of_dense_matrices():
    factors, base = _factors(), _weights()
    for row in subspace.spectrum(factors, base=base, scale=3.0):
        W, S = (
            base[f"{row.module}.weight"],
            np.linalg.svd(_dense(factors, row.module, 3.0), compute_uv=False)[:R],
        )
        own = np.linalg.svd(W, compute_uv=False)
        np.testing.assert_allclose(row.sigma_W, own[:R], rtol=1e-5)
        assert row.norm_over_W == pytest.approx(np.linalg.norm(S) / np.linalg.norm(W), rel=1e-6)
        assert row.sigma_over_W == pytest.approx(S[0] / own[0], rel=1e-6)
        assert (row.above_W, row.W_index) == (np.sum(own[R - 1] < S), R)
        assert row.base_key == f"{row.module}.weight"


def test_a_weight_that_is_missing_zero_or_damaged_leaves_the_spectrum():
    base = _weights(modules=("q", "zero", "bad"))
    base["zero.weight"] = np.zeros((D_OUT, D_IN))
    base["bad.weight"][0, 0] = np.nan
    found = subspace.spectrum(_factors(("q", "zero", "bad", "other")), base=base, scale=1.0)
    flags = {row.module: row.flags for row in found}
    assert flags == {
        "q": (),
        "zero": (Flag.BASE_ZERO,),
        "bad": (Flag.BASE_NOT_FINITE,),
        "other": (Flag.NOT_IN_BASE,),
    }
    assert found.missing == ("other",)
    assert found.notes == (
        "1 module not in the base: other",
        "In 1 of 4 modules (zero) the base weight is zero, so nothing can be measured relative to it",
        "In 1 of 4 modules (bad) the base weight holds values that are not finite (NaN or Inf), so nothing is measured "
        "against it",
    )
    for row in found:
        assert row.rank == R and row.advised_rank is not None
        assert (row.sigma_over_W is None) == (row.module != "q")


def test_a_full_fine_tune_needs_its_base():
    base = _weights()
    change = {name: np.outer(_RNG.standard_normal(D_OUT), _RNG.standard_normal(D_IN)) for name in base}
    tuned = {name: W + change[name] for name, W in base.items()}
    found = subspace.spectrum(tuned, base=base)
    for row in found:
        assert row.rank == 1 and row.sigma[0] == pytest.approx(np.linalg.norm(change[f"{row.module}.weight"]))
        assert row.norm_over_W is not None


def test_ia3_and_oft_are_read_with_their_base(tmp_path):
    peft = pytest.importorskip("peft")
    model = torch.nn.ModuleDict({"q": torch.nn.Linear(16, 16, bias=False)})
    base = {"q.weight": model["q"].weight.detach().double().numpy().copy()}
    configs = {
        "ia3": peft.IA3Config(target_modules=["q"], feedforward_modules=[]),
        "oft": peft.OFTConfig(target_modules=["q"], oft_block_size=4),
    }
    for name, config in configs.items():
        wrapped = peft.get_peft_model(torch.nn.ModuleDict({"q": torch.nn.Linear(16, 16, bias=False)}), config)
        with torch.no_grad():
            for parameter in wrapped.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        wrapped.save_pretrained(tmp_path / name)
        row = subspace.spectrum(str(tmp_path / name), base=base).modules[0]
        assert row.rank == 16 and row.advised_rank <= 16 and row.norm_over_W > 0
        with pytest.raises(InconclusiveError, match="No module has a spectrum"):
            subspace.spectrum(str(tmp_path / name))


def test_modules_and_layers_choose_what_is_measured():
    factors = _factors(("layers.0.q", "layers.0.v", "layers.1.q"))
    assert [row.module for row in subspace.spectrum(factors, scale=1.0, layers=[1])] == ["layers.1.q"]
    assert len(subspace.spectrum(factors, scale=1.0, modules=["*.q"])) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rule": "eyes"}, "Unknown rule of rank: 'eyes'; give `rule` as one of energy, knee"),
        ({"rule": "tested"}, "Nothing to test ranks on: the rule tested needs `model` or `data`"),
        ({"energy": 0.0}, "Invalid share of energy 0.0"),
        ({"null": "C"}, "Unknown random update: 'C'; give `null` as factors or B"),
        ({"data": "uniform", "margin": 1.0}, "Invalid share of the gain to lose: 1.0"),
    ],
)
def test_what_there_is_not_is_an_error(given, message):
    with pytest.raises(ValueRangeError, match=message):
        subspace.spectrum(_factors(), scale=1.0, **given)


def _saved(folder, *, use_rslora=False):
    """A PEFT adapter of two layers whose updates need unequal ranks, and its model."""
    peft = pytest.importorskip("peft")

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q = torch.nn.Linear(24, 20, bias=False)
            self.inner = torch.nn.ModuleDict({"q": torch.nn.Linear(20, 24, bias=False)})

        def forward(self, x):
            return self.inner["q"](self.q(x))

    torch.manual_seed(0)
    model = Model()
    config = peft.LoraConfig(r=8, lora_alpha=12, target_modules=["q", "inner.q"], use_rslora=use_rslora)
    wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for k, layer in ((2, wrapped.base_model.model.q), (5, wrapped.base_model.model.inner["q"])):
            layer.lora_B["default"].weight[:, :k] = 3 * torch.randn(layer.out_features, k)
            layer.lora_B["default"].weight[:, k:] = 1e-3 * torch.randn(layer.out_features, 8 - k)
    wrapped.save_pretrained(folder)
    return Model, wrapped


def _deltas(wrapped):
    inner = wrapped.base_model.model
    layers = {"q": inner.q, "inner.q": inner.inner["q"]}
    found = {
        name: layer.get_delta_weight("default").detach().double().numpy() for name, layer in layers.items()
    }
    return layers, found


@pytest.mark.parametrize("use_rslora", [False, True])
def test_the_ranks_go_through_truncate_and_are_read_by_peft(tmp_path, use_rslora):
    """`q` is the end of `inner.q` too."""
    from click.testing import CliRunner

    from subspace.cli import app

    peft = pytest.importorskip("peft")
    Model, wrapped = _saved(tmp_path / "adapter", use_rslora=use_rslora)
    _, whole = _deltas(wrapped)
    words = [
        "spectrum",
        str(tmp_path / "adapter"),
        "--energy",
        "0.9999",
        "--ranks-out",
        str(tmp_path / "ranks.json"),
    ]
    assert CliRunner().invoke(app, [*words, "--config-out", str(tmp_path / "config.json")]).exit_code == 0
    ranks = json.loads((tmp_path / "ranks.json").read_text())
    assert ranks == {"inner.q": 5, "q": 2}  # the first that matches counts
    cut = [
        "truncate",
        str(tmp_path / "adapter"),
        str(tmp_path / "cut"),
        "--rank-pattern",
        str(tmp_path / "ranks.json"),
    ]
    assert CliRunner().invoke(app, cut).exit_code == 0
    torch.manual_seed(0)
    layers, low = _deltas(peft.PeftModel.from_pretrained(Model(), tmp_path / "cut"))
    for module, k in (("q", 2), ("inner.q", 5)):
        U, S, Vh = np.linalg.svd(whole[module])
        np.testing.assert_allclose(low[module], (U[:, :k] * S[:k]) @ Vh[:k], atol=1e-5)
        assert layers[module].r["default"] == k

    # and a new run at these ranks has the scale of the old one
    fields = json.loads((tmp_path / "config.json").read_text())
    fresh, _ = _deltas(
        peft.get_peft_model(Model(), peft.LoraConfig(target_modules=["q", "inner.q"], **fields))
    )
    scale = 12 / math.sqrt(8) if use_rslora else 1.5
    assert {name: layer.r["default"] for name, layer in fresh.items()} == {"q": 2, "inner.q": 5}
    assert all(layer.scaling["default"] == pytest.approx(scale) for layer in fresh.values())


def test_names_that_are_no_patterns_are_anchored_and_a_group_has_its_own_rank():
    factors = _factors(("h.c_attn[q]", "h.c_attn[v]"))
    found = subspace.spectrum(factors, scale=1.0)
    cut = subspace.truncate(factors, ranks=found.rank_pattern(), scale=1.0)
    assert {row.module: row.r_after for row in cut} == found.ranks()


def test_a_name_that_ends_another_one_is_anchored_where_it_comes_first():
    factors = _factors(("q",), signal=2) | _factors(("z.q",), signal=5)
    found = subspace.spectrum(factors, scale=1.0, energy=0.999)
    assert found.ranks()["q"] < found.ranks()["z.q"]
    assert set(found.rank_pattern()) == {"^q$", r"^z\.q$"}
    cut = subspace.truncate(factors, ranks=found.rank_pattern(), scale=1.0)
    assert {row.module: row.r_after for row in cut} == found.ranks()


def test_without_a_scale_there_is_no_alpha_to_keep():
    with pytest.raises(
        InconclusiveError, match="The scale of delta_W is unknown, in q, v, so there is no lora_alpha"
    ):
        subspace.spectrum(_factors()).peft_config()


def test_the_document_is_the_contract(tmp_path):
    save_file({name: np.ascontiguousarray(M) for name, M in _factors().items()}, tmp_path / "a.safetensors")
    document = subspace.spectrum(str(tmp_path / "a.safetensors"), scale=1.0).document()
    assert document["schema"] == "subspace.spectrum/1" and document["evaluated"] is None
    for row in json.loads(json.dumps(document))["modules"]:
        assert set(row["energy_rank"]) == {"0.9", "0.95", "0.99"} and len(row["sigma"]) == row["rank"] == R
        for name in ("stable_rank", "entropy_rank", "participation", "advised_rank", "why", "flags"):
            assert name in row
