"""Tables on a terminal fit it, never cut a number, and say what they left out."""

from __future__ import annotations

import io
import re
import time

import numpy as np
import pytest
from rich.console import Console

import subspace
from subspace.cli import progress
from subspace.cli.terminal import draw
from subspace.results.cells import cell
from subspace.results.columns import Column

_COLUMNS = [Column("module", "", "module"), Column("r", "", "r")]


def _drawn(result, width: int) -> list[str]:
    out = io.StringIO()
    columns = result.table_columns()
    rows = [[cell(record[column.name]) for column in columns] for record in result.records()]
    draw(columns, rows, Console(file=out, width=width, highlight=False))
    return out.getvalue().splitlines()


@pytest.fixture(scope="module")
def result():
    rng = np.random.default_rng(0)
    W = {f"model.layers.{n}.q.weight": rng.standard_normal((32, 32)) for n in (0, 1, 10)}
    factors = {}
    for module in [key.removesuffix(".weight") for key in W]:
        factors[f"{module}.lora_A"] = rng.standard_normal((4, 32))
        factors[f"{module}.lora_B"] = rng.standard_normal((32, 4))
    return subspace.amplify(W, factors, scale=1.0)


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_it_fits_and_keeps_every_number_whole(result, width):
    lines = _drawn(result, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for record in result.records():
        assert cell(record["amplification"]) in text
        assert cell(record["proj_delta_W"]) in text


def test_the_shared_beginning_of_names_is_said_once(result):
    lines = _drawn(result, 120)
    assert lines[0] == "modules of model.layers"
    assert [line.split()[0] for line in lines[-3:]] == ["0.q", "1.q", "10.q"]


def test_what_does_not_fit_is_named(result):
    assert "not shown for lack of width: proj_random_sd" in " ".join(_drawn(result, 70)[-2:])
    assert "not shown" not in _drawn(result, 200)[-1]


def test_names_of_strangers_are_no_markup(result):
    out = io.StringIO()
    draw(_COLUMNS, [["[red]x[/red].a", "1"], ["[red]x[/red].b", "2"]], Console(file=out, width=80))
    assert out.getvalue().splitlines()[0] == "modules of [red]x[/red]"


def test_no_rows_is_no_table():
    out = io.StringIO()
    draw(_COLUMNS, [], Console(file=out, width=80))
    assert out.getvalue().strip() == ""


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_says_how_many_steps_are_done_and_how_long_the_rest_takes(monkeypatch):
    screen = _Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(progress, "_PATIENCE", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    with progress.Progress("measuring") as bar:
        for done in range(1, 21):
            bar(done, 40)
            time.sleep(0.05)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert re.search(r"measuring .*\d+/40 0:00:0[0-9]", text)
