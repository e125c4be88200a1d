"""The studies of intruder dimensions and of ranks: what they train, measure and conclude, of planted adapters."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from subspace.adapters import load_adapter, load_base
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.study import papers
from subspace.study.paper import Choices
from subspace.study.papers.intruders import _rules as intruder_rules
from subspace.study.papers.intruders._planned import METHODS, RATES, method_of
from subspace.study.papers.intruders._spectra import Base, random_update
from subspace.study.papers.rank import _rules as rank_rules
from subspace.study.papers.rank._advice import RULES
from subspace.study.papers.rank._planned import RANKS, WHOLE
from subspace.study.rules import AGREES, DIFFERS, PARTLY, UNTOLD
from subspace.study.study import conduct, settings_of
from subspace.study.study_folder import claimed
from subspace.training import save_peft
from subspace.training.embedded import FOLDER, HELD_OUT

MODULE = "model.layers.1.self_attn.q_proj"


def test_papers_are_found_by_being_there_and_the_default_comes_first():
    assert papers.names() == ("lora", "intruders", "merging", "rank")
    for name in papers.names():
        assert papers.named(name).name == name
    with pytest.raises(
        ValueRangeError, match="No paper is called 'loar'; choose one of lora, intruders, merging, rank"
    ):
        papers.named("loar")


@pytest.mark.parametrize("full", [False, True])
def test_the_command_that_is_shown_is_the_job_that_was_trained(tmp_path, full):
    from subspace.cli.commands.train import command, job_of
    from subspace.report.commands import train_words

    for name in ("intruders", "rank"):
        plan = papers.named(name).planned(Choices("embedded", full=full, steps=3))
        for run in plan.runs:
            job = plan.job(run, tmp_path)
            words = train_words(job, tmp_path / run.name)[1:]
            assert job_of(command.make_context("train", words)) == job
        assert len({run.name for run in plan.runs}) == len(plan.runs)


def test_a_study_of_intruders_trains_every_method_at_every_rate_on_the_same_matrices():
    plan = papers.named("intruders").planned(Choices("embedded"))
    trained = [run for run in plan.runs if not run.barely]
    assert {method_of(run) for run in trained} == set(METHODS) and len(trained) == len(METHODS) * len(RATES)
    assert {plan.targets(run) for run in plan.runs} == {("all-linear",)}
    scales = {method_of(run): plan.scale(run) for run in trained}
    assert scales == {"r1": 16.0, "r8": 2.0, "r64": 0.25, "r64-rs": 2.0, "full": None}
    assert [run.lr for run in trained if run.rank == 1] == list(RATES)


def test_what_cannot_be_studied_is_refused_before_anything_is_trained():
    with pytest.raises(
        InconclusiveError, match=r"Nothing says what gpt2 was pre-trained on.*`pretraining_text`"
    ):
        papers.named("intruders").planned(Choices("gpt2"))
    for name in ("lora", "merging", "rank"):
        with pytest.raises(ValueRangeError, match=r"Forgetting is not measured.*`pretraining_text`"):
            papers.named(name).planned(Choices("embedded", pretraining_text="kjv.txt"))
    for name in ("intruders", "rank"):
        with pytest.raises(ValueRangeError, match="Invalid `steps` 0: it must be at least 1"):
            papers.named(name).planned(Choices("embedded", steps=0))


def test_the_folder_of_one_paper_is_not_that_of_another(tmp_path):
    lora, intruders = (
        papers.named(name).planned(Choices("embedded", steps=3)) for name in ("lora", "intruders")
    )
    with claimed(tmp_path, settings_of(lora)):
        (tmp_path / "runs/r8").mkdir(parents=True)
        (tmp_path / "runs/r8/run.json").write_text("{}")
    with (
        pytest.raises(ValueRangeError, match=r"paper null, now intruders.*choose another folder"),
        claimed(tmp_path, settings_of(intruders)),
    ):
        pass


@pytest.mark.slow
def test_the_text_of_forgetting_is_the_part_that_the_base_was_not_trained_on():
    import torch

    from subspace.training import embedded
    from subspace.training.embedded.pretrain import _bits_per_byte

    text = HELD_OUT.read_bytes()
    held = torch.from_numpy(np.frombuffer(text, np.uint8).astype(np.int64))[: 40 * 257]
    # 1.256 on all of it, 1.07 on what it was trained on
    assert 1.1 < _bits_per_byte(embedded.load(), held) < 1.45
    assert len(text) == 207_153


def _adapter(folder, A, B, scale=1.0):
    save_peft(folder, {MODULE: (A, B)}, alpha=scale * len(A))
    return load_adapter(folder)


def _W():
    weights = load_base(FOLDER)
    (info,) = [weights.modules[name] for name in weights.modules if name == MODULE]
    return np.asarray(weights.tensors.read(info), np.float64)


@pytest.fixture(scope="module")
def spike(tmp_path_factory):
    """An update across all of W's directions that outgrows most of them, and a little noise."""
    rng = np.random.default_rng(0)
    U, S, Vh = np.linalg.svd(_W())
    A, B = np.ones((1, 256)) @ Vh / 16, S[2] * U @ np.ones((256, 1)) / 16
    A, B = (
        np.vstack([A, 1e-3 * rng.standard_normal((1, 256))]),
        np.hstack([B, 1e-3 * rng.standard_normal((256, 1))]),
    )
    return _adapter(tmp_path_factory.mktemp("spike"), A, B)


def test_intruders_are_those_of_a_dense_svd(spike):
    (found,) = Base(load_base(FOLDER)).leading(spike)
    W, delta = _W(), spike[MODULE].delta_W()
    X, Y = np.linalg.svd(W)[0], np.linalg.svd(W + delta)[0]
    cosines = [max(abs(x @ y) for x in X.T) for y in Y.T[:10]]
    assert found.cosines == pytest.approx(cosines, abs=1e-6)
    assert found.intruders() == sum(each < 0.5 for each in cosines) == 1
    assert found.intruders(0.99) == sum(each < 0.99 for each in cosines)
    assert found.norm_delta_W == pytest.approx(np.linalg.norm(delta))
    assert found.edge == pytest.approx(np.linalg.svd(W)[1][9])


def test_an_update_along_w_has_no_intruder(tmp_path):
    U, S, Vh = np.linalg.svd(_W())
    along = _adapter(tmp_path, Vh[:2], U[:, :2] * S[:2])
    (found,) = Base(load_base(FOLDER)).leading(along)
    assert found.intruders() == 0 and found.top_intruder() is None and found.weakened(0.5) is None


@pytest.mark.parametrize("by", [1.0, 0.5, 0.0])
def test_the_top_intruder_is_weakened_and_nothing_else(spike, by):
    (found,) = Base(load_base(FOLDER)).leading(spike)
    W, delta = _W(), spike[MODULE].delta_W()
    _, S, _ = np.linalg.svd(W + delta)
    after = np.linalg.svd(W + delta + found.weakened(by).delta_W())[1]
    j = found.top_intruder()
    expected = np.sort(np.r_[np.delete(S, j), by * S[j]])[::-1]
    assert after == pytest.approx(expected, abs=1e-5 * S[0])


def test_a_random_update_has_the_singular_values_of_the_trained_one(spike):
    (found,) = Base(load_base(FOLDER)).leading(spike)
    drawn = random_update(found, (256, 256), np.random.default_rng(0)).delta_W()
    own = spike[MODULE].delta_W()
    assert np.linalg.svd(drawn)[1][:2] == pytest.approx(np.linalg.svd(own)[1][:2])
    assert abs(np.sum(drawn * own)) < 0.2 * np.linalg.norm(own) ** 2


def test_the_rules_on_intruders_say_what_their_texts_say():
    low = {"r1": 0.5, "r8": 0.2}
    assert [intruder_rules.ONLY_LORA(low, full) for full in (0.0, 0.1, 0.4)] == [AGREES, PARTLY, DIFFERS]
    assert intruder_rules.ONLY_LORA({"r1": 0.0, "r8": 0.0}, 0.0) == DIFFERS
    rising, flat = [1, 2, 2], [2, 2, 2]
    counts = ({"a": rising, "b": rising}, {"a": rising, "b": flat}, {"a": flat, "b": flat})
    assert [intruder_rules.BY_RATE(each) for each in counts] == [AGREES, PARTLY, DIFFERS]
    assert [intruder_rules.BY_RANK(*each) for each in ((9, 3, 5), (9, 6, 5), (3, 9, 5))] == [
        AGREES,
        PARTLY,
        DIFFERS,
    ]
    pairs = (([0.1, 0.2], 0.3), ([0.1, 0.5], 0.3), ([0.4, 0.5], 0.3))
    assert [intruder_rules.FORGETS_LESS(*each) for each in pairs] == [AGREES, PARTLY, DIFFERS]
    found = (
        (0.9, 0.001, 0.5),
        (0.9, 0.001, 0.95),
        (0.9, 0.2, 0.5),
        (-0.9, 0.001, -1.0),
        (np.nan, np.nan, 0.5),
    )
    assert [intruder_rules.FORGETTING(*each) for each in found] == [AGREES, PARTLY, DIFFERS, DIFFERS, UNTOLD]


def test_the_mitigation_agrees_where_it_is_sure_large_and_cheap():
    def verdict(relief, sure, cost):
        return intruder_rules.MITIGATED(*({0.5: each, 0.0: 0.0} for each in (relief, sure, cost)))

    assert verdict(0.3, 0.2, 0.05) == AGREES
    assert verdict(0.3, -0.1, 0.05) == DIFFERS  # not sure
    assert verdict(0.3, 0.2, 0.2) == PARTLY  # not cheap
    assert verdict(0.05, 0.01, 0.01) == PARTLY  # not large
    assert verdict(0.1, 0.05, 0.5) == DIFFERS
    assert intruder_rules.MITIGATED({}, {}, {}) == UNTOLD
    # lambda = 0 takes the direction away as a whole, which the claim is not about
    assert (
        intruder_rules.MITIGATED({0.5: 0.0, 0.0: 0.9}, {0.5: -1.0, 0.0: 0.8}, {0.5: 0.0, 0.0: 0.0}) == DIFFERS
    )


def test_the_rules_on_ranks_say_what_their_texts_say():
    gains = {1: 0.96, 8: 0.99, 64: 1.0}
    assert rank_rules.SMALL_RANK(gains, 0.0) == AGREES
    assert rank_rules.SMALL_RANK({**gains, 1: 0.9}, 0.0) == PARTLY
    assert rank_rules.SMALL_RANK({**gains, 1: 0.9}, 0.2) == AGREES
    assert rank_rules.SMALL_RANK({**gains, 1: 0.9, 8: 0.9}, 0.0) == DIFFERS
    assert rank_rules.SMALL_RANK({1: -1.0, 64: -0.1}, 0.0) == UNTOLD
    assert [rank_rules.FEW_DIRECTIONS({8: kept}, n) for kept, n in ((0.97, 8), (0.97, 32), (0.9, 8))] == [
        AGREES,
        PARTLY,
        DIFFERS,
    ]
    native = {1: 3.0, 8: 2.0, 64: 1.0}
    cuts = ({1: 3.0, 8: 1.9, 64: 1.0}, {1: 3.5, 8: 1.9, 64: 1.0}, {1: 3.5, 8: 2.1, 64: 1.0})
    assert [rank_rules.CUT_IS_AS_GOOD(each, native) for each in cuts] == [AGREES, PARTLY, DIFFERS]
    advice = ((0.0, False, 8.0, 8), (0.0, False, 40.0, 8), (0.01, True, 4.0, 8), (0.2, True, 1.0, 8))
    assert [rank_rules.ADVICE(*each) for each in advice] == [AGREES, PARTLY, PARTLY, DIFFERS]
    assert rank_rules.ADVICE(np.nan, False, 8.0, 8) == UNTOLD


def test_each_rule_of_thumb_advises_what_its_formula_says():
    S = np.array([4.0, 4.0, 4.0, 0.01, 0.01, 0.01, 0.01, 0.01])
    advised = {name: rule.rank(S, (100, 100)) for name, rule in RULES.items()}
    assert advised == {
        "energy 90 %": 3,
        "energy 95 %": 3,
        "energy 99 %": 3,
        "stable rank": 4,  # 3.00003, rounded up
        "entropy rank": 4,
        "participation": 4,
        "knee": 3,
        "Gavish-Donoho": 3,
    }
    straight = np.exp(-np.arange(8.0))
    assert RULES["knee"].rank(straight, (100, 100)) is None
    assert RULES["energy 90 %"].rank(straight, (100, 100)) == 2
    energy = straight**2 / np.sum(straight**2)
    for share in (0.9, 0.95, 0.99):
        k = RULES[f"energy {100 * share:.0f} %"].rank(straight, (100, 100))
        assert energy[:k].sum() >= share > energy[: k - 1].sum()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """A study of ranks of planted adapters: B A learned nothing, so that cutting it loses nothing that is a gain."""
    folder = tmp_path_factory.mktemp("ranks")
    plan = papers.named("rank").planned(Choices("embedded", steps=2))
    with claimed(folder, settings_of(plan)):
        pass
    _plant(
        plan,
        folder / "runs",
        [f"model.layers.{n}.self_attn.{name}" for n in range(4) for name in ("q_proj", "v_proj")],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subspace.study.papers.rank._measured.WINDOWS", 12)
        from subspace.report import page_content

        return conduct(plan, folder, workers=1, also=page_content)


def _plant(plan, folder, modules):
    for number, run in enumerate(plan.runs):
        rng = np.random.default_rng(number)
        rank = run.rank or 1
        fall = 0.5 ** np.arange(rank)
        layers = {
            module: (rng.standard_normal((rank, 256)) / 16, 0.02 * rng.standard_normal((256, rank)) * fall)
            for module in modules
        }
        save_peft(folder / run.name, layers, alpha=float(rank))
        record = {
            "schema": "subspace.train/1",
            "done": True,
            "trainable": 1,
            "task": "lm",
            "held_out": {},
            "settings": {},
        }
        (folder / run.name / "run.json").write_text(json.dumps(record))


def test_the_losses_of_cut_adapters_are_those_of_evaluate(ranks):
    import subspace

    whole = ranks.folder / "runs" / WHOLE[0]
    direct = subspace.evaluate(
        "embedded",
        {"r64": whole},
        {"topics": None},
        truncate=(1, 8),
        held_out=0.05,
        most=12,
        length=64,
        reference="r64",
    )
    cut = ranks.measures.here.cut
    for rank in (1, 8):
        row = direct[f"r64@r={rank}"]
        assert cut[rank].loss == pytest.approx(row.loss)
        assert cut[rank].difference == pytest.approx(row.loss_difference)
        assert (cut[rank].low, cut[rank].high) == pytest.approx((row.loss_low, row.loss_high), abs=1e-6)
    assert ranks.measures.here.base == pytest.approx(direct["base"].loss)


def test_a_study_of_ranks_leaves_everything_there(ranks):
    names = {path.relative_to(ranks.folder).as_posix() for path in ranks.files}
    assert names >= {
        "index.html",
        "study.json",
        "losses.csv",
        "advice.csv",
        "figures/loss.png",
        "figures/spectra.png",
    }
    page = (ranks.folder / "index.html").read_text()
    record = json.loads((ranks.folder / "study.json").read_text())
    assert [each["key"] for each in record["findings"]][:3] == [
        "small_rank",
        "few_directions",
        "cut_is_as_good",
    ]
    assert len(record["findings"]) == 3 + len(RULES)
    for finding in record["findings"]:
        assert finding["verdict"] in page
    assert "claims about ranks" in page and "subspace reproduce --paper rank --steps 2" in page
    ranks_of = ranks.measures.here.advised
    assert {rule: max(each.ranks.values()) for rule, each in ranks_of.items()}["stable rank"] <= 2
    # nested thresholds
    means = [ranks_of[f"energy {share} %"].mean for share in (90, 95, 99)]
    assert all(a <= b for a, b in pairwise(means))
    assert list(ranks.measures.native) == list(RANKS)


def test_the_rank_that_is_enough_is_the_least_from_which_no_cut_is_surely_worse(ranks):
    sweep = ranks.measures.here
    cut = {
        rank: replace(each, difference=1 / rank, low=0.1 if rank <= 4 else -0.1)
        for rank, each in sweep.cut.items()
    }
    assert replace(sweep, cut=cut, error=0.0).enough == replace(sweep, cut=cut).indistinguishable == 8
    assert replace(sweep, cut=cut, error=0.3).enough == 4
    cut[32] = replace(cut[32], low=0.1)
    assert replace(sweep, cut=cut, error=0.0).enough == 64
