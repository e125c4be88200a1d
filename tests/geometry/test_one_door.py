"""Only one file may call LAPACK: the one that looks for infinities first."""

import re
from pathlib import Path

import pytest

import subspace

PACKAGE = Path(subspace.__file__).parent
DOOR = PACKAGE / "geometry" / "lapack.py"
FACTORISATIONS = re.compile(
    r"linalg\.(svd|eigh|qr|eigvalsh|svdvals|cholesky|eig|eigvals|pinv|lstsq|matrix_rank)\b"
)
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != DOOR)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_file_factors_a_matrix(path):
    found = FACTORISATIONS.search(path.read_text(encoding="utf-8"))
    assert found is None, f"{path.name} calls {found.group() if found else ''}; use subspace.geometry.lapack"


def test_the_pattern_finds_what_it_looks_for():
    assert FACTORISATIONS.search(DOOR.read_text(encoding="utf-8"))
