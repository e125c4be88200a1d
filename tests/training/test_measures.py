"""Measures on held-out data, how often they are taken, and how many steps an epoch has."""

from __future__ import annotations

import json
import random

import pytest
from tiny_models import TEXTS, tiny

import subspace
from subspace.training import Job, LoRA, Recipe, train
from subspace.training.measures import class_measures, cut_note, cut_of

pytest.importorskip("transformers")


def _by_hand(labels, predicted):
    """F1 and recall of each class from its counts, one by one."""
    f1, recall = [], []
    for each in set(labels) | set(predicted):
        pairs = list(zip(labels, predicted, strict=True))
        hit = sum(a == each == b for a, b in pairs)
        missed, wrong = sum(a == each != b for a, b in pairs), sum(b == each != a for a, b in pairs)
        f1.append(hit / (hit + (missed + wrong) / 2))
        if each in labels:
            recall.append(hit / (hit + missed))
    return sum(f1) / len(f1), sum(recall) / len(recall)


def test_measures_of_classes_are_those_counted_by_hand():
    draws = random.Random(3)
    for n in range(200):
        labels = [draws.randrange(1 + n % 5) for _ in range(1 + n % 17)]
        predicted = [draws.randrange(1 + n % 6) for _ in labels]
        found = class_measures(labels, predicted)
        assert (found["macro_f1"], found["balanced_accuracy"]) == pytest.approx(_by_hand(labels, predicted))
        assert found["accuracy"] == sum(map(int.__eq__, labels, predicted)) / len(labels)
        assert found["majority"] == max(map(labels.count, labels)) / len(labels)


def test_measures_of_classes_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    draws = random.Random(4)
    labels, predicted = ([draws.choice((0, 1, 1, 3)) for _ in range(50)] for _ in range(2))
    found = class_measures(labels, predicted)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))


def test_a_classifier_that_always_says_the_same_is_seen_through():
    found = class_measures([0] * 9 + [1], [0] * 10)
    assert found["accuracy"] == found["majority"] == 0.9
    assert found["balanced_accuracy"] == 0.5 and found["macro_f1"] == pytest.approx(9 / 19)


def test_nothing_cut_is_no_note():
    assert cut_note(cut_of([(3, 3), (4, 4)], 4), most=None) == []
    (note,) = cut_note(cut_of([(600, 512), (4, 4)], 512), most=512)
    assert note.endswith("15 % of all tokens are lost; which is the most that the model takes")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(TEXTS * 30), encoding="utf-8")
    return str(path)


def _recipe(**given):
    return Recipe(**{"steps": 6, "batch": 4, "length": 16, "lr": 1e-2, "dtype": "float32", **given})


def _rows(out):
    return [json.loads(row) for row in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_measures_along_the_way_are_logged_and_change_no_bit(tmp_path, text, kind):
    if kind == "bert":
        rows = [f"{text}\t{n % 2}" for n in range(20) for text in TEXTS]
        text = str(tmp_path / "rows.tsv")
        (tmp_path / "rows.tsv").write_text("\n".join(["document\tlabel", *rows]) + "\n")
    model, notes = str(tiny(kind, tmp_path / "model")), []
    common = {
        "model": model,
        "data": text,
        "method": LoRA(r=2, dropout=0.1),
        "recipe": _recipe(),
        "threads": 1,
    }
    plain = train(Job(**common, accounts=False), tmp_path / "plain")
    watched = Job(**common, accounts=False, evaluate_every=2)
    with pytest.raises(KeyboardInterrupt):
        train(
            watched,
            tmp_path / "watched",
            stopping=lambda: (tmp_path / "watched/log.jsonl").read_text().count("\n") == 3,
        )
    done = train(watched, tmp_path / "watched", tell=notes.append)
    name = "adapter_model.safetensors"
    assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "watched" / name).read_bytes()
    rows = _rows(tmp_path / "watched")
    assert [row["step"] for row in rows if "held_out" in row] == [2, 4, 6]
    assert rows[5]["held_out"] == done.record["held_out"]["after"] == plain.record["held_out"]["after"]
    assert [row["loss"] for row in rows] == [row["loss"] for row in _rows(tmp_path / "plain")]
    assert [note.partition(",")[0] for note in notes if ", held out: loss " in note] == ["step 4", "step 6"]


def test_a_measure_that_is_not_finite_is_no_number_in_the_log():
    from subspace.training import run_measures

    class Diverging:
        def held_out(self, model):
            return {"loss": float("inf"), "accuracy": 0.5}

    import torch

    measures = run_measures.RunMeasures(torch.nn.Linear(1, 1), Diverging(), _recipe(), 1, lambda note: None)
    assert measures.entry(1) == {"held_out": {"loss": None, "accuracy": 0.5}}


def test_nothing_to_measure_along_the_way():
    with pytest.raises(
        subspace.SubspaceError, match=r"Nothing is held out to measure every 5 steps: `held_out` is 0"
    ):
        Job(recipe=_recipe(held_out=0.0), evaluate_every=5)
    with pytest.raises(subspace.SubspaceError, match="`evaluate_every` is negative: -1"):
        Job(evaluate_every=-1)


@pytest.mark.parametrize(
    ("epochs", "examples", "batch", "accumulate", "steps"),
    [
        (3, 100, 8, 1, 38), (1, 64, 8, 2, 4), (0.5, 10, 1, 1, 5), (1.1, 10, 1, 1, 11), (0.001, 10, 4, 1, 1),
        (2, 5, 16, 1, 1),
    ],
)  # fmt: skip
def test_steps_of_epochs(epochs, examples, batch, accumulate, steps):
    found = Recipe(epochs=epochs, batch=batch, accumulate=accumulate).with_steps(examples)
    assert (found.steps, found.epochs) == (steps, None)


def test_wrong_epochs():
    for epochs in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(
            subspace.SubspaceError, match=r"Invalid `epochs` .*: it must be finite and positive"
        ):
            Recipe(epochs=epochs)
    with pytest.raises(subspace.SubspaceError, match=r"Both `steps` 7 and `epochs` 2 are given"):
        Recipe(steps=7, epochs=2)


def test_a_run_of_epochs_is_the_run_of_its_steps(tmp_path):
    rows = [f"{text}\t{n % 2}" for n in range(10) for text in TEXTS]
    (tmp_path / "rows.tsv").write_text("\n".join(["document\tlabel", *rows]) + "\n")
    model = str(tiny("bert", tmp_path / "model"))
    common = {"model": model, "data": str(tmp_path / "rows.tsv"), "threads": 1, "accounts": False}
    how = {"batch": 4, "length": 16, "dtype": "float32", "held_out": 0.2}  # of 30 examples 24 are trained on
    job = Job(**common, recipe=Recipe(epochs=1.5, **how))
    done = train(job, tmp_path / "epochs")
    train(Job(**common, recipe=Recipe(steps=9, **how)), tmp_path / "steps")
    assert (tmp_path / "epochs/adapter_model.safetensors").read_bytes() == (
        tmp_path / "steps/adapter_model.safetensors"
    ).read_bytes()
    assert done.record["settings"]["epochs"] == 1.5 and "steps" not in done.record["settings"]
    assert done.record["computed"]["steps"] == done.record["step"] == 9
    assert train(job, tmp_path / "epochs").resumed == 9
    assert Job.from_document(job.document()) == job
