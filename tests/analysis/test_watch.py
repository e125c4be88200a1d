"""A run that is followed while it goes on; the clock is the test's."""

from __future__ import annotations

import json
import os

import pytest
from step_runs import run, write_peft

import subspace
from subspace.analysis.watch import watched

OLD = 1_000_000_000  # a time of long ago: nobody writes there any more


def _aged(folder):
    for path in folder.rglob("*"):
        os.utime(path, (OLD, OLD))
    return folder


def _done(folder):
    (folder / "run.json").write_text(
        json.dumps({"schema": "subspace.train/1", "done": True, "step": 30, "written": []})
    )


class _Later:
    """Does one thing at each wait, and stops a test that waits for ever."""

    def __init__(self, *deeds):
        self.deeds, self.waits = list(deeds), []

    def __call__(self, seconds):
        self.waits.append(seconds)
        if not self.deeds:
            raise KeyboardInterrupt
        self.deeds.pop(0)()


def _steps(found):
    return [each.runs[0].steps for each in found]


def test_new_checkpoints_are_taken_in_as_they_come_until_the_run_is_done(tmp_path):
    folder, states = tmp_path / "r4", run(0)
    folder.mkdir()

    def saved(n):
        return lambda: _aged(write_peft(folder / f"checkpoint-{10 * n}", states[n]))

    def ended():
        _aged(write_peft(folder, states[3]))
        _done(folder)

    later = _Later(saved(1), lambda: None, saved(2), ended)
    found = list(watched(str(folder), every=3, waiting=later, side="b", controls="none"))
    assert _steps(found) == [(10,), (10, 20), (10, 20, 30)]
    assert later.waits == [3] * 4 and not later.deeds
    whole = subspace.track(str(folder), side="b", controls="none")
    assert found[-1].document() == whole.document()


def test_what_is_half_written_is_waited_for(tmp_path):
    folder, states = tmp_path / "run", run(0)
    _aged(write_peft(folder / "checkpoint-10", states[1]))
    new = folder / "checkpoint-20"

    def begun():  # the weights, cut short, and no configuration yet
        write_peft(new, states[2])
        (new / "adapter_config.json").rename(tmp_path / "config")
        weights = new / "adapter_model.safetensors"
        (tmp_path / "whole").write_bytes(weights.read_bytes())
        weights.write_bytes(weights.read_bytes()[:200])

    def weights_done():
        (new / "adapter_model.safetensors").write_bytes((tmp_path / "whole").read_bytes())
        _aged(new)

    def config_done():
        (tmp_path / "config").rename(new / "adapter_config.json")
        _aged(new)

    later = _Later(begun, weights_done, config_done)
    found, notes = [], []
    with pytest.raises(KeyboardInterrupt):
        for each in watched(str(folder), waiting=later, side="b", controls="none"):
            found.append(each.runs[0].steps)
            notes += each.notes
    assert found == [(10,), (10, 20)] and not any("left out" in note for note in notes)


def test_a_file_that_was_written_this_moment_is_not_taken_yet(tmp_path):
    write_peft(tmp_path / "run" / "checkpoint-10", run(0)[1])
    later = _Later(lambda: _aged(tmp_path / "run"))
    found = []
    with pytest.raises(KeyboardInterrupt):
        found += watched(str(tmp_path / "run"), waiting=later, side="b")
    assert later.waits and len(found) <= 1


def test_a_path_that_does_not_exist_is_not_waited_for(tmp_path):
    with pytest.raises(subspace.SubspaceError, match=r"Nothing to watch: .* is no path that exists"):
        next(watched(str(tmp_path / "nowhere")))


def test_a_run_that_is_done_is_read_once(tmp_path):
    folder = write_peft(tmp_path / "run", run(0)[3])
    _done(folder)
    later = _Later()
    assert _steps(watched(str(folder), waiting=later, side="b")) == [(30,)] and not later.waits
