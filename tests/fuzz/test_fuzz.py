"""Seeded damage to valid files of every container: each is read or refused in one line, and no warning escapes."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from inside_containers import changed_inside, damage
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
        TARGETS[name](damage(seeds[seed % len(seeds)], seed))


def test_a_finding_is_found(monkeypatch):
    """The target does not swallow what a user would see as a traceback."""
    broken = TARGETS["npy"]._replace(read=lambda path: path.read_bytes()[2**40])
    with pytest.raises(IndexError):
        broken(b"")


@pytest.mark.parametrize("name", ["torch-zip", "npz", "npy", "safetensors"])
def test_damage_inside_a_container_leaves_the_container_whole(name):
    """Only the text that is put in is what a reader objects to, not a length, a table or a checksum around it."""
    target, rng = TARGETS[name], random.Random(0)
    for content in target.seeds():
        same = changed_inside(content, lambda part: part, rng)
        target(same)
        longer = changed_inside(content, lambda part: part + b" " * 64, rng)
        assert len(longer) > len(same) or name in ("torch-zip", "npz")  # which may be packed
        target(longer)


def test_the_lines_that_inputs_reach():
    run = Path(__file__).with_name("run.py")
    done = subprocess.run(
        [sys.executable, run, "--lines", "--target", "yaml"], capture_output=True, text=True, check=True
    )
    first, file, total = done.stdout.splitlines()
    assert first.startswith("yaml: ") and "_yaml_settings.py: " in file
    assert float(total.split()[1].rstrip("%")) > 80


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
