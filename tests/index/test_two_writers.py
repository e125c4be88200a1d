"""Real processes that add at once, and that are killed while they add."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from indexes import assert_same

from subspace.index import Index

ADD = "import sys; from subspace.index import Index\nwith Index(sys.argv[1]) as index: index.add(sys.argv[2:])\n"


def _adding(folder, paths):
    return subprocess.Popen(
        [sys.executable, "-c", ADD, folder, *map(str, paths)], stderr=subprocess.PIPE, text=True
    )


def _ended(process):
    error = process.communicate(timeout=240)[1]
    return process.returncode, error


@pytest.fixture(scope="module")
def expected(planted, tmp_path_factory):
    index = Index(tmp_path_factory.mktemp("expected") / "index")
    index.add(planted.paths)
    return index


def test_processes_add_at_once(tmp_path, planted, expected):
    """Three of them, to a folder that none has made yet; some adapters are added by two."""
    parts = planted.paths[:30], planted.paths[20:50], planted.paths[40:]
    processes = [_adding(tmp_path / "index", part) for part in parts]
    assert [_ended(process) for process in processes] == [(0, "")] * 3
    with Index(tmp_path / "index") as index:
        assert len(index) == 60
        assert not index.repair().notes
        assert_same(index, expected)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_at_random_points_and_resumed_it_is_as_if_never_killed(tmp_path, planted, expected):
    rng, folder, kills = random.Random(0), tmp_path / "index", 0
    started = time.monotonic()
    done = _adding(tmp_path / "timed", planted.paths)
    assert _ended(done) == (0, "")
    whole = time.monotonic() - started
    while kills < 30:
        count = rng.randrange(10, 61)
        process = _adding(folder, planted.paths[:count])
        time.sleep(rng.uniform(0.3, 1.0) * whole * count / 60)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        code, error = _ended(process)
        assert code in (0, -signal.SIGKILL), error
        if rng.random() < 0.2 and (folder / "manifest.sqlite").exists():
            with Index(folder) as index:
                done = index.repair()
                assert not (done.rebuilt or done.dropped)  # a kill leaves nothing that is damaged
                index.remove(rng.sample(range(len(index)), k=min(8, len(index))))
    with Index(folder) as index:
        index.add(planted.paths)
        done = index.repair()
        assert not (done.rebuilt or done.dropped)
        assert_same(index, expected)
        assert sorted(m.path for m in index.members) == sorted(m.path for m in expected.members)
        files = {path.name for path in folder.rglob("*") if path.is_file() and path.suffix == ".safetensors"}
        assert files == {f"{key}.safetensors" for key in index.keys}
        assert not [path for path in folder.rglob(".subspace-*") if path.suffix == ".tmp"]
