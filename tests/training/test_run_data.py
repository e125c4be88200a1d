"""Runs on data of every kind: what is held out, how tokens are scrambled, and which settings tell two runs apart."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny_models import TEXTS, tiny

from subspace.errors import ValueRangeError
from subspace.training import Job, Recipe, train
from subspace.training.data import Examples, load_examples
from subspace.training.models import load_base
from subspace.training.models.scrambled_tokens import with_scrambled_tokens
from subspace.training.tasks import task_of

pytest.importorskip("transformers")

RECIPE = Recipe(steps=2, batch=4, length=16, lr=1e-2, dtype="float32")


@pytest.fixture
def reviews(tmp_path):
    path = tmp_path / "reviews.txt"
    rows = "".join(f"{n}\t{TEXTS[n % 3]} {n}\t{n % 2}\n" for n in range(40))
    path.write_text("id\tdocument\tlabel\n" + rows, encoding="utf-8")
    return str(path)


def _job(data, **given):
    return Job(**{"data": data, "recipe": RECIPE, "threads": 1, "accounts": False, **given})


def _text(*texts, held=None, **given):
    apart = None if held is None else Examples("held.txt", held, None, (), (), "")
    return Examples("x.txt", texts, None, (), (), "", held_out=apart, **given)


def test_a_held_out_text_is_all_that_is_held_out():
    base = load_base("embedded")
    task = task_of(base, _text(*TEXTS, held=("abc" * 20, "de" * 20)), RECIPE)
    assert bytes(task.train.tolist()).decode() == "\n\n".join(TEXTS)
    assert bytes(task.held.tolist()).decode() == "abc" * 20 + "\n\n" + "de" * 20
    assert task.per_byte == 1
    with pytest.raises(
        ValueRangeError, match="held-out text is too short: 3 tokens are no more than one window of 16"
    ):
        task_of(base, _text(*TEXTS, held=("abc",)), RECIPE)


def test_bits_per_byte_are_those_of_the_held_out_text(tmp_path):
    base = load_base(str(tiny("gpt2", tmp_path)))
    held = "é".join(TEXTS)
    task = task_of(base, _text(*TEXTS, held=(held,)), RECIPE)
    assert task.per_byte == len(held.encode()) / len(base.encode(held))


def test_held_out_classes_are_measured_apart(tmp_path, reviews):
    held = tmp_path / "held.csv"
    held.write_text("text,label\n" + "".join(f"{text},1\n" for text in ("a", "b", "c", "d")))
    model = str(tiny("bert", tmp_path / "bert"))
    run = train(_job(reviews, model=model, held_out_data=str(held)), tmp_path / "out")
    assert run.record["held_out"]["after"]["majority"] == 1.0
    assert "40 examples, 2 classes (0 20, 1 20); held out: 4 examples" in run.record["data"]
    examples = load_examples(reviews, held_out_data=str(held))
    task = task_of(load_base(model, labels=examples.label_names), examples, RECIPE)
    assert (len(task.kept), len(task.apart)) == (40, 4)


def test_what_is_held_out_decides_no_step(tmp_path, reviews):
    text = tmp_path / "a.txt"
    text.write_text(" ".join(TEXTS), encoding="utf-8")
    logs = []
    for name in ("a.txt", "reviews.txt"):
        out = tmp_path / f"out-{name}"
        train(_job(str(text), held_out_data=str(tmp_path / name), labels=False), out)
        rows = [json.loads(row) for row in (out / "log.jsonl").read_text().splitlines()]
        logs.append([row["loss"] for row in rows])
    assert logs[0] == logs[1]


def test_another_held_out_file_or_control_is_another_run(tmp_path, reviews):
    text = tmp_path / "a.txt"
    text.write_text(" ".join(TEXTS), encoding="utf-8")
    job = _job(str(text), held_out_data=str(text))
    train(job, tmp_path / "out")
    assert train(job, tmp_path / "out").files == ()
    text.write_text(" ".join(TEXTS) + "!", encoding="utf-8")
    with pytest.raises(ValueRangeError, match="begun with other settings: data_sha256"):
        train(job, tmp_path / "out")
    with pytest.raises(ValueRangeError, match="begun with other settings"):
        train(replace(job, held_out_data=None), tmp_path / "out")


@pytest.mark.parametrize("kind", ["bert", "gpt2", "bytes"])
def test_tokens_are_shuffled_between_the_special_ones(tmp_path, kind):
    given = {"tokenizer": "bytes"} if kind == "bytes" else {}
    model = str(tiny("gpt2" if kind == "bytes" else kind, tmp_path))
    base = load_base(model, labels=("a", "b") if kind == "bert" else (), **given)
    scrambled = with_scrambled_tokens(base)
    for text in (*TEXTS, "", "a", "\N{HANGUL SYLLABLE GA} \ud800"):
        own, other = base.encode(text), scrambled.encode(text)
        assert sorted(own) == sorted(other) and other == scrambled.encode(text)
        if kind == "bert":
            assert (own[0], own[-1]) == (other[0], other[-1])
        assert own != other or len(own) < 12


def test_texts_of_one_length_are_shuffled_in_different_ways():
    encode = with_scrambled_tokens(load_base("embedded")).encode
    letters = "abcdefghijklmnopqrstuvwxyz"
    first, second = bytes(encode(letters)).decode(), bytes(encode(letters.upper())).decode()
    assert first != letters and first.upper() != second


def test_scrambled_tokens_reach_the_stream():
    base = load_base("embedded")
    own, control = (task_of(base, _text(*TEXTS, scrambled_tokens=flag), RECIPE) for flag in (False, True))
    assert sorted(own.train.tolist() + own.held.tolist()) == sorted(
        control.train.tolist() + control.held.tolist()
    )
    assert not torch.equal(own.train, control.train)
    assert (own.train == control.train).float().mean() < 0.3


def test_a_job_of_several_files_comes_back_from_its_document():
    job = Job(
        data=["a.csv", "b.csv"], text_column=("x", "y"), held_out_data=("c.csv",), control_labels="uniform"
    )
    assert (job.data, job.text_column, job.held_out_data) == (("a.csv", "b.csv"), ("x", "y"), "c.csv")
    assert Job.from_document(json.loads(json.dumps(job.document()))) == job
    assert Job(data=()).data is None


@pytest.mark.parametrize("given", [{"control_labels": "random"}, {"unlabelled": "ignore"}])
def test_choices_that_there_are_not(given):
    with pytest.raises(ValueRangeError, match=r"Invalid `.*': it must be one of "):
        Job(**given)
