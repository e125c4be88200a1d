"""Seeded damage to valid files of every container: each is read or refused in one line, and no warning escapes."""

import subprocess
import sys
from pathlib import Path

import pytest
from mutation import damaged
from targets import TARGETS

FEW = 80


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_read(name):
    for content in TARGETS[name].seeds():
        TARGETS[name](content)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files(name):
    seeds = TARGETS[name].seeds()
    for seed in range(FEW):
        TARGETS[name](damaged(seeds[seed % len(seeds)], seed))


def test_a_finding_is_found(monkeypatch):
    """The target does not swallow what a user would see as a traceback."""
    broken = TARGETS["npy"]._replace(read=lambda path: path.read_bytes()[2**40])
    with pytest.raises(IndexError):
        broken(b"")


@pytest.mark.slow
def test_the_command_fuzzes_every_reader():
    run = Path(__file__).with_name("run.py")
    done = subprocess.run(
        [sys.executable, run, "--seconds", "120"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "case", sorted((Path(__file__).parent / "cases").iterdir()), ids=lambda path: path.name
)
def test_what_a_fuzzer_once_found(case):
    """Named after the target and what was wrong."""
    name = next(name for name in sorted(TARGETS, key=len, reverse=True) if case.name.startswith(f"{name}-"))
    TARGETS[name](case.read_bytes())
