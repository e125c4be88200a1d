"""Held-out data of their own, several paths of one run, and controls of labels and tokens."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from subspace.errors import FormatError, ValueRangeError
from subspace.training.data import Examples, documentation, load_examples, split
from subspace.training.data.control_text import (
    CONTROLS,
    LABEL_CONTROLS,
    control_examples,
    with_control_labels,
)

WORDS = [f"word{n} and{n} then{n}" for n in range(60)]


@pytest.fixture
def file(tmp_path):
    def made(name, content):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return str(path)

    return made


@pytest.fixture
def reviews(file):
    return file("reviews.csv", "text,label\n" + "".join(f"{w},{'ab'[n % 2]}\n" for n, w in enumerate(WORDS)))


def test_held_out_data_have_the_classes_of_those_that_are_trained_on(file, reviews):
    held = file("held.jsonl", '{"text": "x", "label": "b"}\n{"text": "y", "label": "b"}\n')
    examples = load_examples(reviews, held_out_data=held)
    assert examples.held_out.texts == ("x", "y")
    assert (examples.held_out.labels, examples.held_out.label_names) == ((1, 1), ("a", "b"))
    assert examples.summary() == (
        "60 examples, 2 classes (a 30, b 30); held out: 2 examples, 2 classes (a 0, b 2)"
    )
    both, apart = examples.joined()
    assert (both.texts[60:], both.labels[60:], list(apart)) == (("x", "y"), (1, 1), [60, 61])
    kept, last = split(len(both.texts), apart, seed=0)
    assert (kept.tolist(), last.tolist()) == (list(range(60)), [60, 61])
    assert kept.dtype == last.dtype == np.int64


def test_the_digest_covers_what_is_held_out(file, reviews):
    one, other = file("one.csv", "text,label\nx,a\n"), file("other.csv", "text,label\nx,b\n")
    digests = {load_examples(reviews, held_out_data=held).sha256 for held in (None, one, other, [one, other])}
    assert len(digests) == 4


def test_held_out_data_of_another_kind_are_refused(file, reviews):
    for content, message in [
        (
            "text,label\nx,c\ny,a\n",
            "held-out data have classes that the data to train on do not have: c, .* have a, b",
        ),
        (
            "text\nx\n",
            "held-out data are of another kind: .* has texts without labels, and .* has texts with labels",
        ),
        (
            "sentence1,sentence2,label\nx,y,a\n",
            "has pairs of texts with labels, and .* give `held_out_data`",
        ),
        ("text,label\nx,a\ny,\n", "Labels are missing in 1 of 2 rows"),
    ]:
        with pytest.raises(FormatError, match=message):
            load_examples(reviews, held_out_data=file("held.csv", content))


def test_data_that_are_held_out_from_themselves_are_named(reviews):
    assert (
        "the held-out data are the data that are trained on"
        in load_examples(reviews, held_out_data=reviews).notes
    )


def test_held_out_labels_of_texts_that_are_modelled_are_passed_over(file, reviews):
    examples = load_examples(file("a.txt", "ab"), held_out_data=reviews)
    assert (len(examples.held_out.texts), examples.held_out.labels) == (60, None)
    assert load_examples(None, held_out_data=reviews).texts == documentation().texts


def test_the_notes_on_held_out_data_say_so(file):
    held = file("h.csv", "text;id\nx;1\n")
    notes = load_examples(file("a.txt", "ab"), held_out_data=held).notes
    assert notes == (f"held out: {held} is separated by semicolons",)


def test_several_paths_and_patterns(file, tmp_path):
    for n in range(3):
        file(f"part-{n}.txt", f"text {n}")
    texts = ("text 0", "text 1", "text 2")
    assert load_examples(str(tmp_path / "part-*.txt")).texts == texts
    assert load_examples([str(tmp_path / f"part-{n}.txt") for n in range(3)]).texts == texts
    scrambled = load_examples(f"uniform:{tmp_path}/part-?.txt")
    assert len(scrambled.texts) == 3 and scrambled.texts != texts
    literal = file("odd[1].txt", "as it is")
    assert load_examples(literal).texts == ("as it is",)
    with pytest.raises(Exception, match=r"No such file or directory: .*gone-\*\.txt"):
        load_examples(str(tmp_path / "gone-*.txt"))


def test_all_or_none_of_several_are_of_a_control(file):
    a, b = file("a.txt", "so good"), file("b.txt", "so bad")
    assert len(load_examples([f"scrambled:{a}", f"scrambled:{b}"]).texts) == 2
    with pytest.raises(
        ValueRangeError, match=r"Only some of the data are of a control: .*; give every `data` as the"
    ):
        load_examples([f"scrambled:{a}", b])


@pytest.mark.parametrize("kind", LABEL_CONTROLS)
def test_controls_of_labels_leave_the_texts(reviews, kind):
    own, control = load_examples(reviews), load_examples(reviews, control_labels=kind)
    assert (control.texts, control.label_names, control.sha256) == (own.texts, own.label_names, own.sha256)
    assert control.labels != own.labels and set(control.labels) == {0, 1}
    assert control == load_examples(reviews, control_labels=kind)
    assert control.summary().endswith(f"its labels {LABEL_CONTROLS[kind]}")
    assert f"the labels are {LABEL_CONTROLS[kind]}" in control.notes
    if kind == "shuffled":
        assert Counter(control.labels) == Counter(own.labels)


def test_uniform_labels_favour_no_class():
    rare = Examples("x", ("a",) * 3000, (0,) * 2990 + (1,) * 5 + (2,) * 5, ("x", "y", "z"), (), "")
    counts = Counter(with_control_labels(rare, "uniform").labels)
    assert all(900 < counts[n] < 1100 for n in range(3))


def test_controls_of_labels_and_texts_go_together(reviews):
    both = load_examples(f"scrambled:{reviews}", control_labels="uniform")
    assert both.altered == "its characters shuffled, its labels drawn at random from the classes"
    assert load_examples(f"scrambled:{reviews}", control_labels="shuffled") == load_examples(
        f"scrambled:{reviews}"
    )


def test_held_out_labels_are_left_as_they_are(file, reviews):
    held = file("held.csv", "text,label\n" + "".join(f"{w},a\n" for w in WORDS))
    assert load_examples(reviews, held_out_data=held, control_labels="uniform").held_out.labels == (0,) * 60


def test_texts_without_labels_have_no_control_of_them(file):
    with pytest.raises(FormatError, match=r"no labels, which were to be shuffled among the texts: .*a\.txt"):
        load_examples(file("a.txt", "ab"), control_labels="shuffled")


@pytest.mark.parametrize("kind", [kind for kind in CONTROLS if kind != "scrambled-tokens"])
def test_a_control_alters_every_part_of_an_example(kind):
    texts = tuple(f"{word}\nanswer {word}" for word in WORDS)
    prompts = tuple(f"{word}\n" for word in WORDS)
    asked = Examples("x", texts, None, (), (), "", prompts=prompts)
    control = control_examples(asked, kind)
    assert control.texts == control_examples(Examples("x", texts, None, (), (), ""), kind).texts
    assert all(text.startswith(prompt) for text, prompt in zip(control.texts, control.prompts, strict=True))
    assert (
        control.prompts != prompts and "answer" not in "".join(control.prompts[::9])
    ) or kind == "scrambled-words"

    turns = tuple(({"role": "user", "content": w}, {"role": "assistant", "content": None}) for w in WORDS)
    chat = control_examples(Examples("x", tuple(WORDS), None, (), (), "", messages=turns), kind)
    assert [turn["role"] for turn in chat.messages[0]] == ["user", "assistant"]
    assert chat.messages[0][0]["content"] != WORDS[0] and chat.texts[0] == chat.messages[0][0]["content"]

    pairs = Examples("x", tuple(WORDS), (0, 1) * 30, ("a", "b"), (), "", seconds=prompts)
    control = control_examples(pairs, kind)
    assert control.texts != pairs.texts and control.seconds != pairs.seconds


def test_tokens_are_left_to_the_tokenizer(file):
    path = file("a.txt", "to be or not")
    control = load_examples(f"scrambled-tokens:{path}", held_out_data=path)
    assert control.scrambled_tokens and control.held_out.scrambled_tokens
    assert control.texts == load_examples(path).texts
    assert control.summary().count("its tokens shuffled") == 2
    with pytest.raises(ValueRangeError, match="tokens of the held-out data alone cannot be shuffled"):
        load_examples(path, held_out_data=f"scrambled-tokens:{path}")
    turns = [{"role": "user", "content": "a"}]
    chat = file("chat.jsonl", json.dumps({"messages": turns}))
    with pytest.raises(FormatError, match=r"tokens of conversations cannot be shuffled .* scrambled-words"):
        load_examples(f"scrambled-tokens:{chat}")
