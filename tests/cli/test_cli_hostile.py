"""Hostile files through the command line: no traceback, no code run, one line that names the file."""

from __future__ import annotations

import csv
import io
import json
import os
import re

import pytest
from hostile_files import BASE, EITHER, ERROR, EVERY, NAMES, OK, lora
from safetensors.numpy import save_file

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")

# what a terminal acts on: control characters but tab and line end, C1, and what turns the direction of writing
_LIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")
# names that a path, a formula or a long word could come of; every text on a figure is tests/plots/test_figure_text.py
_DRAWN = ("paths", "reserved by Windows", "ten thousand letters")
_UNSAFE_ADVICE = re.compile(r"weights_only|safe_globals|allow_pickle")


def _tree(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if not path.is_symlink())


def _checked(done, case, path):
    """What holds of every answer."""
    assert done.code in {OK: (0,), ERROR: (1,), EITHER: (0, 1, 3)}[case.ends], (done.code, done.out, done.err)
    assert not _LIVE.search(done.out + done.err)
    assert not _UNSAFE_ADVICE.search(done.out + done.err)
    assert "Traceback" not in done.out + done.err
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == (done.code == 1), done.err
    if done.code == 1:
        assert not done.out
        assert done.err.splitlines()[-1] == errors[0]
    assert re.search(case.says, done.out + done.err), done.out + done.err


@pytest.fixture
def place(tmp_path):
    """An empty folder, and that no payload wrote into or beside it."""
    folder = tmp_path / "case"
    folder.mkdir()
    yield folder
    assert not list(tmp_path.rglob("fired")) and not list(tmp_path.rglob("*escaped*"))


@pytest.mark.parametrize("name", EVERY)
def test_each_ends_well(name, run, place, tmp_path, monkeypatch):
    case = EVERY[name]
    path = case.make(place)
    monkeypatch.chdir(place.parent)
    before = _tree(place)
    if name.startswith("base: "):
        save_file(lora(), tmp_path / "delta.safetensors")
        words = ("amplify", "--base", path, "--delta", tmp_path / "delta.safetensors", "--scale", 1)
    else:
        words = ("inspect", path)
    _checked(run(*words), case, path)
    assert _tree(place) == before


@pytest.mark.parametrize("name", NAMES)
def test_names_in_documents_are_data(name, run, place, tmp_path):
    """JSON is strict, no cell of a table is a formula, and a figure is drawn under a name of ours."""
    path = NAMES[name].make(place)
    done = run("inspect", path, "--json")
    if done.code:
        return

    def refuse(constant):
        raise AssertionError(constant)

    modules = json.loads(done.out, parse_constant=refuse)["modules"]
    assert modules and not _LIVE.search(done.out)
    table = run("inspect", path, "--csv")
    for row in csv.reader(io.StringIO(table.out)):
        for cell in row:
            assert not cell or (cell[0] not in "=+@\t\r" and not re.match(r"-(?![\d.]|inf)", cell)), cell
    assert not _LIVE.search(table.out)
    if name not in _DRAWN:
        return
    drawn = run("compare", path, path, "--figure", "grid", "-o", tmp_path / "out")
    assert drawn.code in (0, 3), drawn.err
    assert all(re.fullmatch(r"[a-z0-9.-]+", made.name) for made in (tmp_path / "out").rglob("*"))


def test_every_base_is_tried_as_a_base():
    assert all(f"base: {name}" in EVERY for name in BASE) and len(EVERY) > 200
