"""One set of lower bounds: pyproject.toml declares it, requirements/minimum.txt is what the tests run on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
# the extras that a user installs; those of the tests and notebooks may be as new as they like
_EXTRAS = ("dask", "data", "gguf", "hf", "hub", "pandas", "ray")
_REQUIREMENT = re.compile(r'^ *(?:[a-z]+ = \[)?"([A-Za-z0-9_-]+)>=([0-9.]+)"', re.MULTILINE)


def _project() -> str:
    return (_ROOT / "pyproject.toml").read_text(encoding="utf-8")


def _declared() -> dict[str, str]:
    dependencies = _project().split("\ndependencies = [")[1].split("\n]")[0]
    extras = _project().split("[project.optional-dependencies]")[1].splitlines()
    chosen = [line for line in extras if line.split(" = ")[0] in _EXTRAS]
    assert len(chosen) == len(_EXTRAS)
    return dict(_REQUIREMENT.findall("\n".join([dependencies, *chosen])))


def test_the_minimum_is_every_lower_bound_and_nothing_else():
    lines = (_ROOT / "requirements" / "minimum.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pinned == _declared()
    assert len(pinned) >= 12


def test_every_dependency_has_a_lower_bound():
    dependencies = _project().split("\ndependencies = [")[1].split("\n]")[0]
    named = [line for line in dependencies.splitlines() if line.strip().startswith('"')]
    assert len(_REQUIREMENT.findall(dependencies)) == len(named)


def test_the_tests_and_the_extras_agree_on_their_lower_bounds():
    test = _project().split("\ntest = [")[1].split("\n]")[0]
    declared = _declared()
    for name, bound in _REQUIREMENT.findall(test):
        assert declared.get(name, bound) == bound, name


@pytest.mark.parametrize("name", ["torch", "nvidia", "triton"])
def test_the_lock_file_leaves_torch_and_its_cuda_to_the_machine(name):
    lock = (_ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    assert "numpy==" in lock
    assert not re.search(rf"^{name}", lock, re.MULTILINE)


def test_the_newest_and_the_oldest_python_are_those_that_the_workflows_test():
    workflow = (_ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    declared = re.findall(r"Programming Language :: Python :: (3\.\d+)", _project())
    assert f'requires-python = ">={declared[0]}"' in _project()
    assert re.findall(r"python: \[(.*)\]", workflow) == [", ".join(f'"{version}"' for version in declared)]
