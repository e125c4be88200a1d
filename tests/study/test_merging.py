"""The study of merging: what it trains, how a predictor is judged, and that noise is not taken for a forecast."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from subspace.adapters import load_adapter
from subspace.analysis.forecast import forecast
from subspace.analysis.held_adapters import HeldAdapters
from subspace.errors import InconclusiveError
from subspace.geometry.canonical import canonical
from subspace.study import papers
from subspace.study.paper import Choices
from subspace.study.papers.merging import _rules
from subspace.study.papers.merging._foretold import (
    foretold,
    left_out,
    linear,
    monotone,
    p_values,
    permutations,
    permuted,
)
from subspace.study.papers.merging._measured import Sample
from subspace.study.papers.merging._meetings import meetings_of
from subspace.study.papers.merging._peers import angle_cosine, cka, peers, root_overlap
from subspace.study.papers.merging._predictors import NORMS, PREDICTORS
from subspace.study.rules import AGREES, DIFFERS, PARTLY, UNTOLD
from subspace.study.study import conduct, settings_of
from subspace.study.study_folder import claimed
from subspace.training import save_peft

MODULES = [f"model.layers.{n}.self_attn.{name}" for n in range(4) for name in ("q_proj", "v_proj")]
NAMES = ("a.txt", "b.txt", "c.txt", "d.txt", "e.txt")


# --- what is trained


def test_eight_tasks_are_trained_each_from_a_seed_of_its_own_and_met_equally_often():
    plan = papers.named("merging").planned(Choices("embedded"))
    assert len(plan.tasks) == len(plan.runs) == 8 and len({run.seed for run in plan.runs}) == 8
    pairs, triples = ([each for each in plan.sets() if len(each) == n] for n in (2, 3))
    assert len(pairs) == 28 and len(set(triples)) == 16
    assert set(Counter(task for each in triples for task in each).values()) == {6}
    full = papers.named("merging").planned(Choices("embedded", full=True))
    assert len(full.sets()) == 28 + 56 and full.copies == 2 and len({run.name for run in full.runs}) == 16
    assert [full.task(run) for run in full.runs] == 2 * list(plan.tasks)


def test_the_command_that_is_shown_is_the_job_that_was_trained(tmp_path):
    from subspace.cli.commands.train import command, job_of
    from subspace.report.commands import train_words

    plan = papers.named("merging").planned(Choices("embedded", steps=3))
    for run in plan.runs:
        job = plan.job(run, tmp_path)
        assert job_of(command.make_context("train", train_words(job, tmp_path / run.name)[1:])) == job


def test_the_texts_are_different_long_enough_and_written_once(tmp_path):
    plan = papers.named("merging").planned(Choices("embedded"))
    plan.prepare(tmp_path)
    texts = {path.name: path.read_text() for path in (tmp_path / "texts").iterdir()}
    assert len(texts) == 6 and len(set(texts.values())) == 6
    assert all(150_000 < len(text) <= 250_000 for text in texts.values())
    assert plan.text("words", tmp_path) == f"scrambled-words:{tmp_path}/texts/topics.txt"
    (tmp_path / "texts/topics.txt").write_text("mine")
    plan.prepare(tmp_path)
    assert (tmp_path / "texts/topics.txt").read_text() == "mine"


def texts(folder):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in NAMES:
        words = [f"{name[0]}{n}" for n in range(20)]
        (folder / name).write_text(" ".join(rng.choice(words, 4000)))
    return folder


def test_a_folder_of_files_is_as_many_tasks_and_too_few_are_refused(tmp_path):
    plan = papers.named("merging").planned(Choices("embedded", str(texts(tmp_path / "data"))))
    assert plan.tasks == NAMES and plan.text("b.txt", tmp_path) == str(tmp_path / "data/b.txt")
    assert plan.words() == ["--paper", "merging", "--data", str(tmp_path / "data")]
    for path in (tmp_path / "data/a.txt", tmp_path / "none"):
        with pytest.raises(
            InconclusiveError, match=r"studied on 4 to 12 tasks.*has 0 files; give `data` a folder"
        ):
            papers.named("merging").planned(Choices("embedded", str(path)))


# --- how a predictor is judged


def outcome(seed=0, N=8, noise=0.0, copies=1):
    """A predictor, and an outcome that rises with it."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((copies, N, N))
    y = np.exp(x) + noise * rng.standard_normal(x.shape)
    for each in (x, y):
        each[:, np.arange(N), np.arange(N)] = np.nan
    return x, y


def test_a_perfect_predictor_is_ordered_right_and_nearly_without_error():
    x, y = outcome()
    found = foretold(x, y)
    assert (found.spearman, found.kendall, found.within) == pytest.approx((1, 1, 1))
    assert found.p == pytest.approx(0.001) and found.n == 56
    nothing = foretold(np.where(np.isfinite(y), 0.0, np.nan), y)
    assert np.isnan(nothing.spearman) and np.isnan(nothing.p)
    assert found.error < 0.15 * nothing.error and found.wins(nothing) == 1.0
    falling = foretold(-x, y)
    assert falling.spearman == pytest.approx(-1) and falling.error == pytest.approx(found.error)


def test_correlations_are_those_of_scipy():
    from scipy.stats import kendalltau, spearmanr

    x, y = outcome(noise=2.0)
    x, y = np.round(x, 1), np.round(y, 1)  # with ties
    known = np.isfinite(x)
    found = foretold(x, y)
    assert found.spearman == pytest.approx(spearmanr(x[known], y[known]).statistic)
    assert found.kendall == pytest.approx(kendalltau(x[known], y[known]).statistic)


@pytest.mark.parametrize("fit", [monotone, linear])
def test_what_is_predicted_of_a_task_does_not_know_its_losses(fit):
    x, y = outcome(noise=0.5)
    changed = y.copy()
    changed[:, 3, :], changed[:, :, 3] = 100.0, -100.0
    changed[:, 3, 3] = np.nan
    errors, predicted = left_out(x, y, fit)
    others, again = left_out(x, changed, fit)
    np.testing.assert_array_equal(predicted[:, 3], again[:, 3])
    assert others[3] > errors[3]


def test_the_error_of_no_predictor_is_that_of_the_mean_of_the_other_tasks():
    _, y = outcome()
    errors, predicted = left_out(np.where(np.isfinite(y), 0.0, np.nan), y, monotone)
    rest = [n for n in range(8) if n != 5]
    mean = np.nanmean(y[0][np.ix_(rest, rest)])
    own = np.r_[y[0, 5][rest], y[0, rest, 5]]
    assert errors[5] == pytest.approx(np.mean(np.abs(own - mean)))
    np.testing.assert_allclose(predicted[0, 5][rest], mean)


def test_the_p_value_is_uniform_without_a_relation_and_small_with_one():
    none, some = [], []
    empty = np.empty((0, 8), dtype=int)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x, y = outcome(seed)
        # what belongs to tasks makes pairs dependent: the test has to keep its size all the same
        effect = rng.standard_normal(8)
        unrelated = rng.standard_normal(8)[:, None] + rng.standard_normal((1, 8, 8)) * 0.3
        none.append(p_values(x + effect[:, None], np.where(np.isfinite(y), unrelated, np.nan), empty)[0])
        some.append(p_values(x, y + 2 * rng.standard_normal(y.shape), empty)[0])
    assert np.mean(np.array(none) <= 0.05) <= 0.13  # 3 of 60 are expected, 8 or more in 1 of 100 cases
    assert np.mean(np.array(some) <= 0.05) >= 0.8


def test_permuted_outcomes_have_the_p_value_that_they_would_have_by_themselves():
    x, y = outcome(noise=1.0)
    orders = permutations(8, 5, seed=3)
    assert all((order != np.arange(8)).any() for order in orders)
    _, quick = p_values(x, y, orders)
    for order, p in zip(orders, quick, strict=True):
        own, _ = p_values(x, permuted(y, order), np.empty((0, 8), dtype=int))
        assert p == pytest.approx(own, abs=0.06)


def test_the_rules_say_what_their_texts_say():
    assert [_rules.FORETELLS(*each) for each in ((0.01, 0.1, 0.2, 0.9), (0.01, 0.1, 0.2, 0.5))] == [
        AGREES,
        PARTLY,
    ]
    assert [_rules.FORETELLS(*each) for each in ((0.06, 0.1, 0.2, 0.9), (0.01, 0.2, 0.2, 0.9))] == 2 * [
        DIFFERS
    ]
    beyond = _rules.FORETELLS_BEYOND
    assert beyond(0.01, 0.1, 0.3, 0.2, 0.75) == AGREES
    assert beyond(0.01, 0.1, 0.3, 0.2, 0.7) == beyond(0.01, 0.25, 0.3, 0.2, 1.0) == PARTLY
    assert beyond(0.06, 0.1, 0.3, 0.2, 1.0) == beyond(0.01, 0.4, 0.3, 0.5, 1.0) == DIFFERS
    assert beyond(np.nan, np.nan, np.nan, np.nan, 0.0) == UNTOLD


# --- predictors against dense matrices


def layers(seed, strength=1.0):
    rng = np.random.default_rng(seed)
    return {
        m: (rng.standard_normal((8, 256)) / 16, strength * rng.standard_normal((256, 8)) / 50)
        for m in MODULES
    }


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    found = {}
    for n, name in enumerate(NAMES):
        folder = tmp_path_factory.mktemp("adapters") / name
        save_peft(folder, layers(n, 1 + n), alpha=16.0)
        found[name] = load_adapter(folder)
    return found


class Isotropic:
    """Inputs with the second moment of white noise."""

    def moment(self, module):
        from subspace.geometry.second_moment import SecondMoment

        return SecondMoment(1, np.zeros(256), np.ones(256), np.eye(256), 256.0)


def test_every_predictor_is_what_dense_matrices_give(adapters):
    met = meetings_of(adapters, [Isotropic()] * 5, [(0, 1), (0, 1, 2)], lambda: None)
    whole = [np.concatenate([each[m].delta_W().ravel() for m in MODULES]) for each in adapters.values()]
    pair, triple = (Sample(0, 0, others, 5.0, 3.0, 4.0, 4.5) for others in ((1,), (1, 2)))
    value = {name: [PREDICTORS[name].value(met, each) for each in (pair, triple)] for name in PREDICTORS}
    a, b, c = whole[:3]

    def cosine(x, y):
        return x @ y / np.linalg.norm(x) / np.linalg.norm(y)

    norms = np.sqrt([b @ b, b @ b + c @ c]) / np.linalg.norm(a)
    assert value[NORMS] == pytest.approx(list(norms))
    assert value["cosine"] == pytest.approx([cosine(a, b), cosine(a, b + c)])
    assert value["energy_ratio"][1] == pytest.approx(
        np.linalg.norm(a + b + c) ** 2 / sum(x @ x for x in (a, b, c))
    )
    # on white noise outputs are as alike and as large as the updates
    assert value["cosine_functional"] == pytest.approx(value["cosine"])
    assert value["outputs"] == pytest.approx([np.linalg.norm(x) / np.linalg.norm(a) for x in (b, b + c)])
    total = forecast(HeldAdapters(adapters), members=(0, 1)).total
    assert value["sti"][0] == pytest.approx(total.sti / total.sti_random)
    assert value["overlap_left"][0] == pytest.approx(total.overlap_left - total.overlap_left_control)
    assert pair.harm == pytest.approx(0.5) and pair.transfer == pytest.approx(0.25)
    assert np.isnan(Sample(0, 0, (1,), 3.0, 3.5, 4.0, 4.5).harm)


def test_the_formulas_of_others_are_those_of_dense_matrices(adapters):
    one, other = (next(iter(each.values())) for each in list(adapters.values())[:2])
    first, second = (canonical(each.B, each.A) for each in (one, other))
    X, Y = one.delta_W(), other.delta_W()
    K, L = X @ X.T, Y @ Y.T
    assert cka(first, second) == pytest.approx(np.sum(K * L) / np.linalg.norm(K) / np.linalg.norm(L))
    (U, S, Vh), (U_, S_, Vh_) = np.linalg.svd(X), np.linalg.svd(Y)
    k, k_ = (int(np.argmax(np.cumsum(s**2) >= 0.9 * np.sum(s**2))) + 1 for s in (S, S_))
    angles = np.linalg.svd(U[:, :k].T @ U_[:, :k_])[1]
    assert angle_cosine(first, second) == pytest.approx(angles.mean())
    assert root_overlap(first, second) == pytest.approx(np.linalg.norm(Vh[:8] @ Vh_[:8].T) / np.sqrt(8))
    assert np.diag(peers(adapters)["flattened"]) == pytest.approx(1.0)


# --- the whole of it


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A study of planted adapters, and the losses that a sum of them would have if outputs decided."""
    data = texts(tmp_path / "data")
    plan = papers.named("merging").planned(Choices("embedded", str(data), steps=2))
    folder = tmp_path / "study"
    with claimed(folder, settings_of(plan)):
        pass
    for n, run in enumerate(plan.runs):
        save_peft(folder / "runs" / run.name, layers(n, 1 + n), alpha=16.0)
        record = {
            "schema": "subspace.train/1",
            "done": True,
            "trainable": 1,
            "task": "lm",
            "held_out": {},
            "settings": {},
        }
        (folder / "runs" / run.name / "run.json").write_text(json.dumps(record))
    monkeypatch.setattr("subspace.study.papers.merging._measured.WINDOWS", 4)
    monkeypatch.setattr("subspace.study.papers.merging._measured.TOKENS", 512)
    return plan, folder


def fake_losses(self, task, adapters, sets):
    """The own adapter gains 2 nats, and the others take back by their norms."""
    size = {name: 1 + NAMES.index(name) for name in NAMES}
    losses = {name: 5 - 0.1 * n for n, name in enumerate(NAMES)} | {"base": 5.0, task: 3.0}
    for each in sets:
        others = sum(size[name] ** 2 for name in each if name != task) ** 0.5
        losses[" + ".join(f"1*{name}" for name in each)] = 3.0 + others / size[task]
    return losses


def test_what_was_planted_is_found_and_the_rest_is_printed_as_failing(monkeypatch):
    from subspace.results.forecast_reliability import Reliability
    from subspace.study.papers.merging._findings import findings, reliabilities
    from subspace.study.papers.merging._judged import judged_all
    from subspace.study.papers.merging._pictures import pictures
    from subspace.study.papers.merging._tables import tables

    monkeypatch.setattr("subspace.study.papers.merging._judged.SHUFFLES", 19)
    measures = fake_measures()
    outcomes = judged_all(measures)
    found = {each.key: each for each in findings(outcomes)}
    assert set(found) == {f"{what}_{name}" for what in ("harm", "transfer") for name in PREDICTORS}
    assert found["harm_norms"].verdict == found["transfer_cosine"].verdict == AGREES
    # on inputs that say nothing, outputs are as large as the updates: right, and no better
    assert (
        found["harm_outputs"].verdict == PARTLY
        and "no better than the norms" in found["harm_outputs"].here.says
    )
    assert found["harm_flattened"].verdict == DIFFERS and found["harm_flattened"].here.says.startswith(
        "it fails"
    )
    rows = {(row["predictor"], row["outcome"]): Reliability(**_kept(row)) for row in reliabilities(outcomes)}
    assert rows[NORMS, "harm"].spearman > 0.9 > abs(rows["flattened", "harm"].spearman)
    assert "norm ratio" in rows[NORMS, "harm"].sentence() and rows["cosine", "transfer"].error_triples is None
    predictors, merges = tables(measures, outcomes)
    assert len(predictors.rows) == 2 * len(PREDICTORS) and len(merges.rows) == len(measures.samples)
    drawn = {picture.name: picture.figure for picture in pictures(measures, outcomes)}
    assert set(drawn) == {"measured", "errors", "calibration-harm", "calibration-transfer"}
    assert len(drawn["calibration-harm"].axes) == len(PREDICTORS)
    assert [text.get_text() for text in drawn["calibration-harm"].legends[0].get_texts()] == list(
        measures.plan.tasks
    )


def test_without_any_gain_nothing_is_said_of_a_predictor(monkeypatch):
    from subspace.study.papers.merging._findings import findings
    from subspace.study.papers.merging._judged import judged_all
    from subspace.study.papers.merging._pictures import pictures

    monkeypatch.setattr("subspace.study.papers.merging._judged.SHUFFLES", 3)
    measures = fake_measures(gain=0.0)
    outcomes = judged_all(measures)
    assert {each.verdict for each in findings(outcomes)} == {UNTOLD}
    assert findings(outcomes)[0].here.says == "no task gained anything that could be lost"
    assert len(list(pictures(measures, outcomes))) == 4


def _kept(row):
    from dataclasses import fields

    from subspace.results.forecast_reliability import Reliability

    return {each.name: row[each.name] for each in fields(Reliability)}


def fake_measures(gain=2.0):
    """Harm by the norms of the others over the own one, transfer by the cosine, and noise for everything else."""
    from subspace.study.papers.merging._measured import Measures
    from subspace.study.papers.merging._meetings import Meetings

    plan = papers.named("merging").planned(Choices("embedded"))
    rng, N = np.random.default_rng(0), len(plan.tasks)
    X = rng.standard_normal((N, 30)) * np.exp(0.7 * rng.standard_normal(N))[:, None]
    G = X @ X.T

    def noise():
        M = rng.random((N, N))
        return (M + M.T) / 2

    sets = [tuple(map(plan.tasks.index, each)) for each in plan.sets()]
    paired = [f"overlap_{side}{end}" for side in ("left", "right") for end in ("", "_control")]
    met = Meetings(
        inner=G,
        outputs=np.stack([G] * N),
        paired={name: noise() for name in paired},
        peers={name: noise() for name in ("angle_cosine", "cka", "flattened", "root_overlap")},
        interference={frozenset(each): float(rng.random()) for each in sets},
    )
    samples = []
    for each in sets:
        for i in each:
            others = tuple(j for j in each if j != i)
            harm = 0.3 * np.sqrt(sum(G[j, j] for j in others) / G[i, i]) + 0.01 * rng.standard_normal()
            cosine = G[i, others[0]] / np.sqrt(G[i, i] * G[others[0], others[0]])
            other = 5 - gain * cosine if len(others) == 1 else np.nan
            samples.append(Sample(0, i, others, 5.0, 5 - gain, 5 - gain + gain * harm, other))
    return Measures(plan, tuple(samples), (met,))


@pytest.mark.slow
def test_a_study_leaves_everything_there_and_finds_what_was_planted(planted, monkeypatch):
    from subspace.report import page_content

    plan, folder = planted
    monkeypatch.setattr("subspace.study.papers.merging._measured._Measuring.losses", fake_losses)
    calls = []
    study = conduct(plan, folder, workers=1, also=page_content, measuring=lambda *each: calls.append(each))
    assert calls[-1][0] == calls[-1][1] == len(calls)
    names = {path.relative_to(folder).as_posix() for path in study.files}
    assert names >= {
        "index.html",
        "study.json",
        "predictors.csv",
        "merges.csv",
        "figures/calibration-harm.png",
    }
    assert names >= {"figures/errors.png", "figures/measured.png", "figures/calibration-transfer.png"}
    findings = {each.key: each for each in study.findings}
    assert set(findings) == {f"{what}_{name}" for what in ("harm", "transfer") for name in PREDICTORS}
    assert findings["harm_norms"].here.numbers["spearman"] == pytest.approx(1.0, abs=0.01)
    assert findings["harm_flattened"].verdict != AGREES
    page, record = (folder / "index.html").read_text(), json.loads((folder / "study.json").read_text())
    assert "tasks are shuffled" in page and "claims about predictors" in page and "--paper merging" in page
    assert "differs" in page and "it fails" in page
    from subspace.results.forecast_reliability import Reliability, of_study

    rows = [Reliability(**row) for row in of_study(record)["rows"]]
    assert {row.predictor for row in rows} == set(PREDICTORS)
    assert rows[0].predictor == NORMS and "norm ratio" in rows[0].sentence()


def test_the_losses_are_those_of_evaluate(planted):
    import subspace
    from subspace.study.papers.merging._measured import _Measuring

    plan, folder = planted
    measuring = _Measuring(plan, folder / "runs", lambda *_: None)
    adapters = measuring.adapters(0)
    losses = measuring.losses("b.txt", adapters, [("a.txt", "b.txt")])
    paths = {name: folder / "runs" / name for name in ("a.txt", "b.txt")}
    direct = subspace.evaluate(
        "embedded", paths, plan.text("b.txt", folder), merge=("sum",), held_out=0.05, most=4, length=64
    )
    for name, own in (("base", "base"), ("a.txt", "a.txt"), ("b.txt", "b.txt"), ("sum", "1*a.txt + 1*b.txt")):
        assert losses[own] == pytest.approx(direct[name].loss)


@pytest.mark.slow
def test_a_study_trains_merges_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr("subspace.study.papers.merging._measured.WINDOWS", 4)
    monkeypatch.setattr("subspace.study.papers.merging._measured.TOKENS", 512)
    plan = papers.named("merging").planned(Choices("embedded", str(texts(tmp_path / "data")), steps=30))
    first = conduct(plan, tmp_path / "study", workers=2)
    assert all(sample.gain > 0.2 and np.isfinite(sample.harm) for sample in first.measures.samples)
    again = conduct(plan, tmp_path / "study", workers=2)
    assert again.measures.samples == first.measures.samples
    verdicts = [[each.verdict for each in study.findings] for study in (first, again)]
    assert verdicts[0] == verdicts[1] and UNTOLD not in verdicts[0]


# --- what a forecast quotes


def test_the_figures_to_quote_are_of_every_predictor_and_each_is_a_sentence():
    from subspace.results.forecast_reliability import COMMAND, reliabilities, reliability, stored

    assert {row.predictor for row in reliabilities("harm")} == set(PREDICTORS)
    assert {row.predictor for row in reliabilities("transfer")} == set(PREDICTORS)
    assert stored()["command"] == COMMAND and stored()["model"] == "embedded" and len(stored()["tasks"]) == 8
    for row in reliabilities():
        assert row.n == 56 and -1 <= row.spearman <= 1 and 0 < row.p <= 1 and row.error > 0
        # the verdict follows from the numbers that are kept, but for what the shuffled control takes back
        if row.p > 0.05 or row.error >= row.error_nothing:
            assert row.verdict == DIFFERS
        assert row.sentence().startswith("Measured on eight small tasks, the rank correlation of the ")
    with pytest.raises(KeyError):
        reliability("horoscope")
