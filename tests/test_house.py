"""The house rules that tools can check: style, types, import contracts, no unsafe reading."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]


def _passes(tool: str, *arguments: str) -> None:
    command = [Path(sys.executable).with_name(tool), *arguments]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_check():
    _passes("ruff", "check", ".")


def test_ruff_format():
    _passes("ruff", "format", "--check", ".")


@pytest.mark.slow
def test_mypy_strict():
    _passes("mypy", "subspace")


def test_import_contracts():
    _passes("lint-imports")


def test_functions_and_files_stay_short():
    import ast

    for path in (_ROOT / "subspace").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 320, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                assert length <= 45, f"{path}: {node.name} has {length} lines"


def test_no_unsafe_reading():
    unsafe = re.compile(r"weights_only\s*=\s*False|pickle\.loads?\(|allow_pickle\s*=\s*True|\.unsafe_load")
    for path in (_ROOT / "subspace").rglob("*.py"):
        assert not unsafe.search(path.read_text(encoding="utf-8")), path
