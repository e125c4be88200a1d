"""``subspace track``: table, JSON, charts, and a run that goes on."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time

import contract
import pytest
from step_runs import MODULES, write_peft, write_run
from step_runs import run as states_of

TRAJECTORY = {
    "module": contract.TEXT,
    "side": contract.TEXT,
    "init": contract.TEXT,
    "directions": contract.COUNT,
    "to_final": [contract.MAYBE],
    "to_final_isotropic": [contract.MAYBE],
    "to_final_control": [contract.MAYBE],
    "to_next": [contract.MAYBE],
    "to_next_isotropic": [contract.MAYBE],
    "to_next_control": [contract.MAYBE],
    "from_start": [contract.MAYBE],
    "from_start_isotropic": [contract.MAYBE],
    "from_start_control": [contract.MAYBE],
    "moved": [contract.MAYBE],
    "cosine": [contract.MAYBE],
    "norm": [contract.MAYBE],
    "born": [contract.COUNT],
    "flags": [contract.TEXT],
}
BIRTH = {
    "direction": contract.COUNT,
    "energy": contract.NUMBER,
    "born": contract.COUNT,
    "half": contract.MAYBE,
}
TRACK = {
    "schema": "subspace.track/1",
    "headline": contract.TEXT,
    "level": contract.NUMBER,
    "runs": [
        {
            "name": contract.TEXT,
            "steps": [contract.MAYBE],
            "unit": contract.TEXT,
            "start": contract.TEXT,
            "checkpoints": [{"path": contract.TEXT, "step": contract.MAYBE, "step_source": contract.TEXT}],
            "total": [TRAJECTORY],
            "modules": [{**TRAJECTORY, "d": contract.COUNT, "births": [BIRTH]}],
        }
    ],
    "left_out": [contract.TEXT],
    "notes": [contract.TEXT],
}
STEPS = (0, 10, 20, 30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("track") / "r4", states_of(0), STEPS)


def test_json_follows_the_contract(run, folder):
    done = run("track", folder, "--json")
    found = contract.document(done.out.rstrip("\n"))
    contract.check(found, TRACK)
    assert done.code == 0 and done.err == ""
    (one,) = found["runs"]
    assert one["steps"] == list(STEPS) and len(one["modules"]) == 5 * len(MODULES)
    for each in (*one["modules"], *one["total"]):
        assert all(len(each[name]) == 4 for name in ("to_final", "to_next", "from_start", "born", "norm"))
        assert each["to_final"][-1] == pytest.approx(1) and each["to_next"][-1] is None


def test_the_table_is_of_all_modules_and_by_module_where_asked(run, folder):
    done = run("track", folder, "--side", "b")
    header, *lines = done.out.splitlines()
    assert header.split()[:3] == ["step", "side", "directions"] and "module" not in header
    assert len([line for line in lines if " b " in line]) == 4
    assert "4 checkpoints of 6 modules, step 0 to step 30: delta_W " in done.out
    each = list(
        csv.DictReader(io.StringIO(run("track", folder, "--side", "b", "--by", "module", "--csv").out))
    )
    assert len(each) == 24 and {row["module"] for row in each} == set(MODULES)
    some = run("track", folder, "--side", "b", "--modules", "*.1.*q_proj", "--csv").out
    assert [row["module"] for row in csv.DictReader(io.StringIO(some))] == [MODULES[2]] * 4
    one = json.loads(run("track", folder, "--modules", "*.1.*q_proj", "--json").out)["runs"][0]
    assert {row["module"] for row in one["modules"]} == {MODULES[2]}


def test_charts_and_the_document_are_written_and_written_again(run, folder, tmp_path):
    out = tmp_path / "charts"
    for _ in range(2):
        done = run("track", folder, "--side", "b", "-o", out)
        assert done.code == 0
    names = {"track.json", "trajectory.png", "births.png", "modules-b.png"}
    assert {path.name for path in out.iterdir()} == names
    assert all(f"wrote {out / name}" in done.err for name in names)
    assert json.loads((out / "track.json").read_text())["runs"][0]["steps"] == list(STEPS)
    (out / "track.json").write_text("mine")
    refused = run("track", folder, "--side", "b", "-o", out)
    assert refused.code == 1 and "track.json" in refused.err and (out / "track.json").read_text() == "mine"


def test_two_runs_are_numbered(run, folder, tmp_path):
    other = write_run(tmp_path / "other", states_of(1), STEPS)
    done = run("track", folder, other, "--side", "b", "-o", tmp_path / "out")
    assert done.out.splitlines()[0].split()[0] == "run" and "\nRun 1: 4 checkpoints" in done.out
    assert (tmp_path / "out" / "trajectory-run1.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Missing argument 'RUN...'"),
        (("-k", "3"), "-k and --epsilon are of intruder dimensions; give --base with them"),
        (("--watch", "0.01"), "0.01 is not in the range"),
        (("--by", "layer"), "'layer' is not one of 'total', 'module'"),
    ],
)
def test_wrong_use(run, folder, words, message):
    done = run("track", *((folder,) if words else ()), *words)
    assert done.code == 2 and message in done.err.replace("\n", " ")


def test_errors_are_one_line(run, tmp_path):
    for words, name in (
        (("no/such",), "no/such"),
        ((tmp_path,), "No checkpoint in"),
        (("no", "--watch"), "to watch"),
    ):
        done = run("track", *words)
        assert done.code == 1 and done.out == "" and done.err.count("\n") == 1 and name in done.err


def test_a_run_that_is_done_is_not_watched_further(run, folder, tmp_path):
    done_run = write_run(tmp_path / "r4", states_of(0), STEPS)
    write_peft(done_run, states_of(0)[-1])
    (done_run / "run.json").write_text(json.dumps({"schema": "subspace.train/1", "done": True, "step": 30}))
    done = run("track", "--watch", done_run, "--side", "b", "--json")
    assert done.code == 0 and json.loads(done.out)["runs"][0]["steps"] == list(STEPS)
    assert "4 checkpoints up to step 30, cosine with the one before 0." in done.err


@pytest.mark.slow
def test_ctrl_c_ends_a_watch_with_the_result_so_far(tmp_path):
    folder = write_run(tmp_path / "run", states_of(0)[1:3], (10, 20))
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))
    command = [
        sys.executable,
        "-m",
        "subspace",
        "track",
        "--watch",
        "1",
        str(folder),
        "--side",
        "b",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "2 checkpoints up to step 20" in process.stderr.readline()
        write_peft(folder / "checkpoint-30", states_of(0)[3])
        assert "3 checkpoints up to step 30" in process.stderr.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and "stopped: what follows is the result so far" in err
    assert json.loads(out)["runs"][0]["steps"] == [10, 20, 30]
