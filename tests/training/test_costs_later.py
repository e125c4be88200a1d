"""The costs of a run that is done, measured later, with the values in its files and without training again."""

from __future__ import annotations

import json

import pytest
from test_run import _job
from tiny_models import TEXTS, tiny

import subspace
from subspace.training import IA3, Full, LoRA, train
from subspace.training import run as runs

pytest.importorskip("transformers")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(TEXTS * 30), encoding="utf-8")
    return str(path)


@pytest.fixture
def labelled(tmp_path):
    rows = [f"{text}\t{n % 2}" for n in range(20) for text in TEXTS[: 1 + n % 2]]
    path = tmp_path / "rows.tsv"
    path.write_text("\n".join(["document\tlabel", *rows]) + "\n", encoding="utf-8")
    return str(path)


def _written(out):
    return {
        path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name != "run.json"
    }


def test_the_costs_of_a_run_that_is_done_are_measured_once_and_nothing_is_trained(
    tmp_path, text, monkeypatch
):
    folder, notes = tiny("llama", tmp_path / "model"), []
    train(_job(folder, text), tmp_path / "out")
    before, record = _written(tmp_path / "out"), json.loads((tmp_path / "out/run.json").read_text())
    done = train(_job(folder, text, accounts=True), tmp_path / "out", tell=notes.append)
    assert done.files == () and notes == [] and _written(tmp_path / "out") == before
    after = json.loads((tmp_path / "out/run.json").read_text())
    assert after == {**record, "accounts": after["accounts"]} == done.record
    assert after["accounts"]["run"]["trainable"] == record["trainable"]
    assert 0 < after["accounts"]["merged_difference"] < 1e-4  # of the trained values: at the start it is 0
    monkeypatch.setattr(runs._Training, "measure_costs", lambda *given: pytest.fail("they are known"))
    assert train(_job(folder, text, accounts=True), tmp_path / "out").record == after
    assert not list(tmp_path.rglob(".subspace*"))


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("llama", {"method": LoRA(r=2), "keep": ("model.norm",), "targets": ("q_proj", "embed_tokens")}),
        ("gpt2", {"method": LoRA(r=2, groups=(True, False, True))}),
        ("gpt2", {"method": LoRA(r=2, groups=(True, False, True)), "format": "loralib"}),
        ("gpt2", {"method": LoRA(r=2), "format": "loralib", "keep": ("ln_f",)}),
        ("gpt2", {"method": Full()}),
        ("t5", {"method": Full()}),
        ("llama", {"method": IA3(), "targets": ("k_proj", "down_proj")}),
        ("bert", {}),
    ],
)
def test_the_trained_values_are_put_back(kind, given, tmp_path, text, labelled, monkeypatch):
    folder, measured, notes = tiny(kind, tmp_path / "model"), [], []
    data = labelled if kind == "bert" else text
    train(_job(folder, data, **given), tmp_path / "out")

    def account(self, *given):
        measured.append({name for name, content in self._files().items() if content != written[name]})

    written = _written(tmp_path / "out")
    monkeypatch.setattr(runs._Training, "_account", account)
    train(_job(folder, data, accounts=True, **given), tmp_path / "out", tell=notes.append)
    assert notes == [] and measured == [set()]


def test_what_cannot_be_measured_is_a_note_and_the_run_stays_done(tmp_path, text, monkeypatch):
    folder, notes = tiny("llama", tmp_path / "model"), []
    train(_job(folder, text), tmp_path / "out")
    # the values are put back under other names than those that the files have
    monkeypatch.setattr("subspace.training.trained_values.PREFIX", "other.")
    done = train(_job(folder, text, accounts=True), tmp_path / "out", tell=notes.append)
    assert done.resumed == 6 and "accounts" not in done.record
    assert len(notes) == 1
    assert notes[0].startswith("the costs of this run were not measured: The trained values in ")


def test_a_result_that_is_damaged_is_no_result(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    train(_job(folder, text), tmp_path / "out")
    path = tmp_path / "out/adapter_model.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[:2000] + bytes(1000) + raw[3000:])
    with pytest.raises(
        subspace.SubspaceError,
        match=r"The result of the run is damaged: .*adapter_model.safetensors is not what was",
    ):
        train(_job(folder, text), tmp_path / "out")
    path.unlink()
    train(_job(folder, text), tmp_path / "out")
    assert path.read_bytes() == raw
    config = tmp_path / "out/adapter_config.json"
    config.write_text(config.read_text() + "\n")  # which users edit
    assert train(_job(folder, text), tmp_path / "out").files == ()
