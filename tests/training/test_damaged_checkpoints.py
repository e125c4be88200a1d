"""Checkpoints that a disk has damaged: found, named, and passed over for the one before; never gone on from."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from test_run import _job, _same_run
from tiny_models import TEXTS, tiny

import subspace
from subspace.training import train

pytest.importorskip("transformers")

_FILES = ("optimizer.safetensors", "adapter_model.safetensors", "adapter_config.json", "SHA256SUMS")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of which three of six steps are done, with checkpoints at 2 and 3; and the same, undisturbed."""
    folder = tmp_path_factory.mktemp("runs")
    tiny("llama", folder / "model")
    (folder / "text.txt").write_text("\n".join(TEXTS * 30), encoding="utf-8")
    train(_its_job(folder), folder / "whole")
    asked = iter([False, False, True])
    with pytest.raises(KeyboardInterrupt):
        train(_its_job(folder), folder / "begun", stopping=lambda: next(asked))
    return folder


def _its_job(folder):
    return _job(folder / "model", str(folder / "text.txt"), save_every=2)


def _zeroed(raw):
    middle, n = len(raw) // 2, min(1000, len(raw) // 3)
    return raw[:middle] + bytes(n) + raw[middle + n :]


def _flipped(place):
    def flip(raw):
        at = int(place * (len(raw) - 1))
        return raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :]

    return flip


_DAMAGES = {
    "zeroed": _zeroed,
    "all zero": lambda raw: bytes(len(raw)),
    "cut": lambda raw: raw[: len(raw) * 2 // 3],
    "empty": lambda raw: b"",
    "a bit at its beginning": _flipped(0.0),
    "a bit in its middle": _flipped(0.5),
    "a bit at its end": _flipped(1.0),
    "longer": lambda raw: raw + b"x",
}


@pytest.mark.parametrize("name", _FILES)
@pytest.mark.parametrize("damage", _DAMAGES)
def test_the_run_goes_on_from_the_checkpoint_before_it(place, tmp_path, name, damage):
    out, notes = tmp_path / "out", []
    shutil.copytree(place / "begun", out)
    file = out / "checkpoint-3" / name
    file.write_bytes(_DAMAGES[damage](file.read_bytes()))
    with pytest.raises(KeyboardInterrupt, match="saved at step 3"):
        train(_its_job(place), out, tell=notes.append, stopping=lambda: True)
    found = name if name != "SHA256SUMS" else ""
    assert any("checkpoint-3 is damaged and was passed over: " + found in note for note in notes), notes
    assert "resuming from step 2 of 6" in notes


def test_it_goes_on_to_the_same_bits(place, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(place / "begun", out)
    state = out / "checkpoint-3/optimizer.safetensors"
    state.write_bytes(_zeroed(state.read_bytes()))
    assert train(_its_job(place), out).resumed == 2
    _same_run(place / "whole", out)
    assert not [*out.rglob("SHA256SUMS"), *out.rglob("optimizer*")]


def test_a_file_that_is_gone_is_damage_too(place, tmp_path):
    for name in _FILES[1:]:
        out, notes = tmp_path / name, []
        shutil.copytree(place / "begun", out)
        (out / "checkpoint-3" / name).unlink()
        with pytest.raises(KeyboardInterrupt):
            train(_its_job(place), out, tell=notes.append, stopping=lambda: True)
        assert any("checkpoint-3 is damaged and was passed over" in note for note in notes), name


def test_where_none_is_good_one_line_says_so_and_what_to_do(place, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(place / "begun", out)
    for step in (2, 3):
        state = out / f"checkpoint-{step}/optimizer.safetensors"
        state.write_bytes(_zeroed(state.read_bytes()))
    with pytest.raises(
        subspace.SubspaceError,
        match=r"^The checkpoint .*checkpoint-3 is damaged: optimizer.safetensors is not what was written; there is no "
        r"good one before it: remove it, or begin anew with `overwrite`$",
    ):
        train(_its_job(place), out)
    for step in (2, 3):
        shutil.rmtree(out / f"checkpoint-{step}")
    assert train(_its_job(place), out).resumed == 0
    _same_run(place / "whole", out)


def test_the_last_two_states_are_kept_and_others_can_verify_them(place):
    begun = place / "begun"
    assert sorted(path.parent.name for path in begun.glob("*/optimizer.safetensors")) == [
        "checkpoint-2",
        "checkpoint-3",
    ]
    if shutil.which("sha256sum"):
        command = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
        for step in (2, 3):
            subprocess.run(command, cwd=begun / f"checkpoint-{step}", check=True, capture_output=True)


def test_a_damaged_log_is_named(place, tmp_path):
    out, notes = tmp_path / "out", []
    shutil.copytree(place / "begun", out)
    log = out / "log.jsonl"
    first, second, third = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(first + bytes(len(second)) + third)
    with pytest.raises(KeyboardInterrupt):
        train(_its_job(place), out, tell=notes.append, stopping=lambda: True)
    assert "the log is damaged: the rows of steps 2 to 3 are lost" in notes
