"""The house rules that plain Python can check; style, types and import contracts are ``nox -s check``."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("folder", ["formats", "writers", "naming/writers"])
def test_files_found_by_being_there_do_not_import_each_other(folder):
    """Only the private helpers beside them, whose names begin with an underscore."""
    package = f"subspace.adapters.{folder.replace('/', '.')}"
    for path in (_ROOT / "subspace" / "adapters" / folder).glob("*.py"):
        for name in _imported(path):
            rest = name.removeprefix(f"{package}.")
            assert rest == name or rest.startswith("_") or path.name == "__init__.py", (
                f"{path} imports {name}"
            )


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_functions_and_files_stay_short():
    for path in (_ROOT / "subspace").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        # the list of all flags with their sentences is one table
        assert text.count("\n") <= 320 or path.name == "flags.py", path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                assert length <= 45, f"{path}: {node.name} has {length} lines"


def test_no_unsafe_reading():
    unsafe = re.compile(r"weights_only\s*=\s*False|pickle\.loads?\(|allow_pickle\s*=\s*True|\.unsafe_load")
    for path in (_ROOT / "subspace").rglob("*.py"):
        assert not unsafe.search(path.read_text(encoding="utf-8")), path


def test_package_changelog_and_citation_name_one_version():
    package = (_ROOT / "subspace" / "__init__.py").read_text(encoding="utf-8")
    (version,) = re.findall(r'^__version__ = "(.+)"$', package, re.MULTILINE)
    changelog = (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\d\S*) - \d{4}-\d{2}-\d{2}$", changelog, re.MULTILINE)[0] == version
    assert f"\nversion: {version}\n" in (_ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_every_test_that_security_promises_is_there():
    text = (_ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"tests/[a-z_/]+\.py", text)
    assert len(named) > 10
    for path in named:
        assert (_ROOT / path).is_file(), path


def test_what_tests_import_has_a_name_of_its_own():
    """A helper is found by its name alone, from any folder of tests."""
    names = [path.name for path in (_ROOT / "tests").rglob("*.py") if not path.name.startswith("test_")]
    helpers = [name for name in names if name != "conftest.py"]
    assert len(set(helpers)) == len(helpers), sorted({name for name in helpers if helpers.count(name) > 1})
