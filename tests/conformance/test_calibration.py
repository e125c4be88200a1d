"""The calibration suite with few draws, and its saved table: no test claims more than its level."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
_SAVED = _BENCHMARKS / "calibration.csv"


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The table of ``--quick``."""
    out = tmp_path_factory.mktemp("calibration") / "quick.csv"
    command = [sys.executable, str(_BENCHMARKS / "calibration.py"), "--quick", "--out", str(out)]
    subprocess.run(command, check=True, cwd=_BENCHMARKS, capture_output=True)
    return read(out)


def read(path):
    with path.open(encoding="utf-8", newline="") as table:
        return [{**row, "rate": float(row["rate"])} for row in csv.DictReader(table)]


@pytest.fixture(params=["quick", "saved"])
def table(request):
    """What this code gives with few draws, and the table that is saved with it."""
    return read(_SAVED) if request.param == "saved" else request.getfixturevalue("quick")


def rates(table, **wanted):
    return [row["rate"] for row in table if all(row[key] == value for key, value in wanted.items())]


def test_both_have_the_same_cases(quick):
    kept = ("test", "case", "shape", "inputs", "moved", "stored", "level", "size")
    assert [[row[key] for key in kept] for row in quick] == [
        [row[key] for key in kept] for row in read(_SAVED)
    ]


def test_no_test_claims_more_than_its_level(table):
    tested = [row for row in table if row["size"]]
    assert len(tested) > 200
    assert {row["test"] for row in tested} == {row["test"] for row in table}
    assert [row for row in tested if row["reading"] == "above"] == []


@pytest.mark.parametrize(
    ("inputs", "least", "most"),
    [
        ("isotropic", 0, 0.2),
        ("k^-0.5", 0, 0.2),
        ("k^-1", 0.2, 0.65),
        ("isotropic, mean 30 %", 0.3, 0.75),
        ("isotropic, mean 70 %", 0.75, 1),
        ("k^-2", 0.75, 1),
    ],
)
def test_inputs_alone_make_isotropic_tests_reject(table, inputs, least, most):
    """r = 8, d = 128, rank-3 updates in the span of the inputs, nothing in common but those."""
    case = {"case": "shared inputs alone", "shape": "8 8 128", "moved": "1.2", "level": "0.05"}
    (found,) = rates(table, inputs=inputs, **case)
    assert least <= found <= most


def test_row_alignment_takes_no_inputs_for_a_start(table):
    mine = [row for row in table if row["test"] == "row alignment"]
    assert len(mine) > 500
    for row in mine:
        if "different: " in row["case"] and "called common" in row["case"]:
            assert row["rate"] == 0, row
        if "common: module called different" in row["case"]:
            assert row["rate"] == 0, row
        # of two rows a module gives a sign, and 12 signs are not enough
        if "common: file called common" in row["case"] and not row["shape"].startswith("2 "):
            assert row["rate"] >= (0.8 if row["shape"] == "4 4 8" else 1), row


def test_references_that_were_trained_less_make_any_pair_look_alike(table):
    for n in (19, 39):
        case = {"case": "p of second", "shape": f"4 4 64, {n} references"}
        assert rates(table, moved="pair 1.73, others 0.35", **case)[0] > 0.4
        assert rates(table, moved="pair 0.35, others 1.73", **case)[0] < 0.05


def test_layers_with_inputs_of_their_own_stand_out_without_a_common_task(table):
    name = "unrelated learning, inputs of each layer's own"
    assert rates(table, case=name, shape="4 4 64, 32 layers", level="0.05")[0] > 0.9
