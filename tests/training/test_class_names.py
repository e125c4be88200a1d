"""Classes by name: which classifier of a base is kept, what is held out of each class, and pairs of texts."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tiny_models import TEXTS, edit_config, tiny

from subspace.training import Full, Job, Recipe, train
from subspace.training.data import Examples
from subspace.training.models.label_names import in_order_of, stored_names
from subspace.training.tasks import task_of

transformers = pytest.importorskip("transformers")

from subspace.training.models import load_base  # noqa: E402

LABELS = ("north", "south", "east")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny("bert", tmp_path_factory.mktemp("bases") / "bert")


def _classifier(bert, folder, labels, *, kind="BertForSequenceClassification"):
    """A trained classifier as others save it: random, but from another seed than ours."""
    torch.manual_seed(11)
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}
    model = getattr(transformers, kind).from_pretrained(bert, **named)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bert / name, folder)
    return model.eval()


def _numbered(count):
    return [f"LABEL_{n}" for n in range(count)]


@pytest.mark.parametrize(
    ("names", "labels", "order"),
    [
        (LABELS[::-1], LABELS, LABELS[::-1]),
        (("NORTH", "East", "south"), LABELS, ("north", "east", "south")),
        (_numbered(3), LABELS, LABELS),
        (_numbered(2), ("neg", "pos"), ("neg", "pos")),
    ],
)
def test_a_classifier_of_these_classes_is_kept_and_read_by_name(bert, tmp_path, names, labels, order):
    model = _classifier(bert, tmp_path, names)
    base = load_base(str(tmp_path), labels=labels)
    assert base.heads == () and base.labels == tuple(order)
    assert torch.equal(base.model.classifier.weight, model.classifier.weight)
    assert "is not trained; name it in `keep`" in base.notes[0]
    examples = Examples("x.tsv", tuple(TEXTS), (0, 1, len(labels) - 1), tuple(labels), (), "")
    task = task_of(base, examples, Recipe(held_out=0.0, batch=3))
    assert [task.labels[n] for n in range(3)] == [
        order.index(labels[each]) for each in (0, 1, len(labels) - 1)
    ]
    ids = base.encode.tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    wanted = torch.tensor([order.index(labels[each]) for each in (0, 1, len(labels) - 1)])
    expected = model(**ids, labels=wanted).loss
    torch.testing.assert_close(task.loss(base.model, 0), expected, rtol=1e-4, atol=1e-6)


def test_the_numbers_that_stand_for_names_are_said(bert, tmp_path):
    _classifier(bert, tmp_path, _numbered(2))
    assert "id2label" not in json.loads((tmp_path / "config.json").read_text())
    base = load_base(str(tmp_path), labels=("neg", "pos"))
    assert "whose classes LABEL_0, LABEL_1 are taken as neg, pos" in base.notes[0]
    assert base.model.config.id2label == {0: "neg", 1: "pos"}


@pytest.mark.parametrize(
    ("names", "labels", "why"),
    [
        (LABELS, ("north", "south"), "its classes are north, south, east, and the data have north, south"),
        (LABELS, ("a", "b", "c"), "its classes are north, south, east, and the data have a, b, c"),
        (_numbered(2), LABELS, "its classes are LABEL_0, LABEL_1, and the data have north, south, east"),
    ],
)
def test_why_a_classifier_is_not_kept_is_said(bert, tmp_path, names, labels, why):
    model = _classifier(bert, tmp_path, names)
    base = load_base(str(tmp_path), labels=labels)
    assert base.heads == ("classifier",) and base.labels == tuple(labels)
    assert f"the base's classifier is not kept: {why}" in base.notes
    assert not torch.equal(base.model.classifier.weight[:2], model.classifier.weight[:2])


def test_a_classifier_of_tokens_is_none_of_texts(bert, tmp_path):
    _classifier(bert, tmp_path, _numbered(2), kind="BertForTokenClassification")
    base = load_base(str(tmp_path), labels=("neg", "pos"))
    assert "classifier" in base.heads
    assert any("not kept: it is not one of whole texts, and the data have neg, pos" in n for n in base.notes)


def test_a_base_without_a_classifier_has_nothing_that_is_not_kept(bert):
    base = load_base(str(bert), labels=("neg", "pos"))
    assert "started at random" in base.notes[0] and not any("not kept" in note for note in base.notes)


def test_names_in_a_configuration():
    assert stored_names({"id2label": {"10": "k", "9": "j"}}) == ["j", "k"]
    assert stored_names({"num_labels": 3}) == _numbered(3)
    assert stored_names({"num_labels": "x"}) == [] and stored_names({"architectures": ["BertModel"]}) == []
    assert in_order_of(["a", "A"], ["a", "A"]) == ("a", "A") and in_order_of(["a", "A"], ["A", "b"]) is None


def _table(path, rows, columns=("document", "label")):
    path.write_text("\n".join("\t".join(map(str, row)) for row in (columns, *rows)) + "\n", encoding="utf-8")
    return str(path)


def _job(model, data, **given):
    recipe = Recipe(steps=2, batch=4, length=16, dtype="float32", held_out=0.2)
    return Job(
        **{"model": str(model), "data": data, "recipe": recipe, "threads": 1, "accounts": False, **given}
    )


def test_each_class_is_held_out_in_its_share_and_named_in_the_record(bert, tmp_path):
    rows = [(TEXTS[n % 3], label) for label, count in (("a", 70), ("b", 25), ("c", 5)) for n in range(count)]
    notes = []
    done = train(
        _job(bert, _table(tmp_path / "rows.tsv", rows), method=Full()), tmp_path / "out", tell=notes.append
    )
    assert done.record["label_names"] == ["a", "b", "c"]
    assert done.record["classes"] == {
        "a": {"trained": 56, "held_out": 14}, "b": {"trained": 20, "held_out": 5}, "c": {"trained": 4, "held_out": 1},
    }  # fmt: skip
    saved = json.loads((tmp_path / "out/config.json").read_text())
    assert saved["id2label"] == {"0": "a", "1": "b", "2": "c"}
    assert not any("held out" in note for note in notes)
    rows += [(TEXTS[0], "d")] * 2
    done = train(_job(bert, _table(tmp_path / "rows.tsv", rows)), tmp_path / "more", tell=notes.append)
    assert done.record["classes"]["d"] == {"trained": 2, "held_out": 0}
    assert any(
        "no example of these classes is held out, so they are not measured: d" in note for note in notes
    )


def test_texts_that_are_cut_are_counted(bert, tmp_path):
    rows = [(TEXTS[0] if n % 2 else "void", n % 4 // 2) for n in range(20)]
    notes = []
    done = train(_job(bert, _table(tmp_path / "rows.tsv", rows)), tmp_path / "out", tell=notes.append)
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    long, short = (len(tokenizer(text)["input_ids"]) for text in (TEXTS[0], "void"))
    cut = done.record["cut"]
    assert (cut["texts"], cut["of"], cut["median_tokens"], cut["longest_tokens"]) == (10, 20, long, long)
    assert cut["tokens_lost"] == 10 * (long - 16)
    assert cut["share_lost"] == pytest.approx((long - 16) / (long + short))
    assert any(f"10 of 20 texts were cut at 16 tokens: they have {long} tokens (median)" in n for n in notes)


@pytest.mark.parametrize("types", [2, 1])
def test_a_pair_of_texts_is_encoded_as_the_tokenizer_does(bert, tmp_path, types):
    """With the kind of each token where the model has kinds, and without where it has one."""
    folder = shutil.copytree(bert, tmp_path / "bert")
    if types == 1:
        tiny("bert", folder, type_vocab_size=1)
    path = folder / "tokenizer.json"
    made = json.loads(path.read_text())
    made["post_processor"]["pair"] = [
        *({"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}),
        *({"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}),
        {"SpecialToken": {"id": "</s>", "type_id": 1}},
    ]
    path.write_text(json.dumps(made))
    path = folder / "tokenizer_config.json"
    names = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    path.write_text(json.dumps({**json.loads(path.read_text()), **names}))
    edit_config(folder, id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1})
    base = load_base(str(folder), labels=("no", "yes"))
    firsts, seconds = (TEXTS[0], "void"), ("the deep", "the earth")
    examples = Examples("x", firsts, (0, 1), ("no", "yes"), (), "", seconds=seconds)
    task = task_of(base, examples, Recipe(held_out=0.0, batch=2))
    tokenizer = base.encode.tokenizer
    encoded = tokenizer(list(firsts), list(seconds), padding=True, return_tensors="pt")
    kinds = {"token_type_ids": encoded["token_type_ids"]} if types == 2 else {}
    assert (task.types is not None) is (types == 2) and encoded["token_type_ids"].any()
    found = task._logits(base.model, [0, 1])[0]
    expected = base.model(
        input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], **kinds
    ).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    short = load_base(str(folder), labels=("no", "yes"), length=20).encode.encoded(TEXTS[0], TEXTS[2])
    assert len(short.ids) == 20 < short.length and short.ids.count(2) == 2
    in_bytes = load_base(str(folder), labels=("no", "yes"), tokenizer="bytes")
    assert bytes(in_bytes.encode.encoded("a", "b").ids) == b"a\nb"
    # GPT-2's tokenizer puts nothing between two texts
    plain = load_base(str(tiny("gpt2", tmp_path / "gpt2")), labels=("no", "yes"), length=20).encode
    assert plain.encoded("a", "b").ids == plain.encoded("a\nb").ids
