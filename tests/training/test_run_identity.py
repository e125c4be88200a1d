"""What makes two runs the same: the content of model and data, and not the paths under which they are found."""

from __future__ import annotations

import gzip
import json
import shutil

import pytest
from test_run import _job
from tiny_models import TEXTS, tiny

import subspace
from subspace.training import Job, LoRA, train
from subspace.training.content import examples_sha256, model_sha256
from subspace.training.data import load_examples
from subspace.training.older_settings import completed

pytest.importorskip("transformers")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory, the current one, with a model, a text, and a run of which one step is done."""
    tiny("llama", tmp_path / "model")
    (tmp_path / "text.txt").write_text("\n".join(TEXTS * 30), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt, match=r"^saved at step 1; run the same command to go on$"):
        train(_job("model", "text.txt"), "out", stopping=lambda: True)
    return tmp_path


def _step_more(model, data, *, told):
    """Do one step more, and return how many were done before."""
    with pytest.raises(KeyboardInterrupt):
        train(_job(model, data), "out", stopping=lambda: True, tell=told.append)
    return int(next(note for note in told if note.startswith("resuming from step")).split()[3])


def test_a_run_goes_on_however_the_paths_are_spelled(place):
    (place / "link").symlink_to("model")
    spellings = [("model/", "./text.txt"), (place / "model", str(place / "text.txt")), ("link", "text.txt")]
    steps = [_step_more(model, data, told=[]) for model, data in spellings]
    assert steps == [1, 2, 3]
    # moved, and the text packed
    shutil.move(place / "model", place / "moved")
    (place / "text.txt.gz").write_bytes(gzip.compress((place / "text.txt").read_bytes()))
    (place / "text.txt").unlink()
    done = train(_job("moved", "text.txt.gz"), "out")
    assert done.resumed == 4 and done.record["settings"]["model"] == "model"
    assert train(_job(place / "moved", "text.txt.gz"), "out").files == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "scrambled:text.txt"}, r"other settings: data text\.txt, now scrambled:text\.txt; choose"),
        ({"data": "other.txt"}, r"data text\.txt, now other\.txt, data_sha256 \w+.*; choose"),
        ({"model": "other"}, r"other settings: model model, now other; choose"),
    ],
)
def test_another_content_is_refused_under_any_path(place, change, message):
    tiny("llama", place / "other", seed=1)
    (place / "other.txt").write_text("other text\n" * 300)
    given = {"model": "model", "data": "text.txt", **change}
    with pytest.raises(subspace.SubspaceError, match=message):
        train(_job(given["model"], given["data"]), "out")


def test_the_same_bytes_read_as_texts_of_another_number_are_other_data(place):
    (place / "one").mkdir()
    (place / "two").mkdir()
    (place / "one/a.txt").write_text("ab" * 300)
    for name in ("a.txt", "b.txt"):
        (place / "two" / name).write_text("ab" * 150)
    one, two = (load_examples(name) for name in ("one", "two"))
    assert one.sha256 == two.sha256 and examples_sha256(one) != examples_sha256(two)


def test_held_out_texts_count_by_their_content(place):
    for name, text in (("a.txt", "one"), ("b.txt", "one"), ("c.txt", "two")):
        (place / name).write_text(text * 300)
    a, b, c = (examples_sha256(load_examples("text.txt", held_out_data=f"{name}.txt")) for name in "abc")
    assert a == b != c


def test_what_lies_in_the_directory_of_a_model_and_is_no_part_of_it_does_not_count(place):
    before = model_sha256("model")
    (place / "model/README.txt").write_text("read me")
    (place / "model/generation_config.json").write_text("{}")
    (place / "model/sub.json").mkdir()
    assert model_sha256("model") == model_sha256(str(place / "model/")) == before
    (place / "model/tokenizer.json").write_text("{}")
    assert model_sha256("model") != before
    with pytest.raises(
        subspace.SubspaceError, match=r"The model model has changed since the run in out began"
    ):
        train(_job("model", "text.txt"), "out")


def test_a_classifier_has_one_base_for_all_seeds(tmp_path):
    rows = [f"{text}\t{n % 2}" for n in range(10) for text in TEXTS[: 1 + n % 2]]
    (tmp_path / "rows.tsv").write_text("\n".join(["document\tlabel", *rows]) + "\n")
    model = tiny("bert", tmp_path / "model")
    records = []
    for seed in (0, 1):
        job = _job(model, str(tmp_path / "rows.tsv"), method=LoRA(r=2, seed=seed))
        with pytest.raises(KeyboardInterrupt):
            train(job, tmp_path / str(seed), stopping=lambda: True)
        records.append(json.loads((tmp_path / str(seed) / "run.json").read_text()))
    assert records[0]["kept"] and records[0]["settings"]["method"] != records[1]["settings"]["method"]
    assert len({record["settings"]["model_sha256"] for record in records}) == 1


def test_a_run_that_an_older_version_began_goes_on(place, monkeypatch):
    from subspace.training import content
    from subspace.training.models import load_base
    from subspace.training.run_checks import fingerprint

    with monkeypatch.context() as patch:
        patch.setattr(content, "content_of", lambda model, examples: {"data_sha256": examples.sha256})
        with pytest.raises(KeyboardInterrupt):
            train(_job("model", "text.txt"), "old", stopping=lambda: True)
    path = place / "old/run.json"
    record = json.loads(path.read_text())
    assert "model_sha256" not in record["settings"]
    record["computed"]["base"] = fingerprint(load_base("model").model)
    path.write_text(json.dumps(record))
    shutil.copytree(place / "model", place / "kept")
    tiny("llama", place / "model", seed=1)
    with pytest.raises(
        subspace.SubspaceError, match="The weights of model have changed since this run began; put"
    ):
        train(_job("model", "text.txt"), "old")
    shutil.rmtree(place / "model")
    (place / "kept").rename(place / "model")
    assert train(_job("model", "text.txt"), "old").resumed == 1


def test_settings_that_an_older_version_did_not_have_are_those_by_default():
    now = Job(method=LoRA(r=4)).settings()
    begun = {name: value for name, value in now.items() if name != "clip"}
    begun["method"] = {name: value for name, value in now["method"].items() if name != "rslora"}
    assert completed(begun, now) == now
    assert completed({"a": 1}, {"a": 2, "b": 3}) == {"a": 1}
