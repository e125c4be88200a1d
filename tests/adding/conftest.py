"""A copy of the package, into which a test drops the files that CONTRIBUTING.md shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import guide
import pytest

import subspace

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def package(tmp_path_factory) -> Path:
    """A copy of the package, without the weights that only training needs."""
    copied = tmp_path_factory.mktemp("copy") / "subspace"
    ignored = shutil.ignore_patterns("*.safetensors", "__pycache__")
    shutil.copytree(Path(subspace.__file__).parent, copied, ignore=ignored)
    return copied


@pytest.fixture
def drop(package) -> Iterator[Callable[[str], None]]:
    """Give a function that puts the files of a section of the guide in place; they go when the test ends."""
    added: list[Path] = []

    def put(heading: str) -> None:
        for name, text in guide.files(heading).items():
            place = package.parent / name
            assert not place.exists()
            place.write_text(text, encoding="utf-8")
            added.append(place)

    yield put
    for place in added:
        place.unlink()


@pytest.fixture
def run(package, tmp_path) -> Run:
    """Run Python with the copy of the package, in an empty folder."""

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(package.parent)}
        command = [sys.executable, *map(str, words)]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return call


@pytest.fixture
def adapters(tmp_path) -> Path:
    """A folder with two PEFT adapters, a and b, of two modules each."""
    import numpy as np

    from subspace.training import save_peft

    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        pairs = {f"l.{n}.q": (rng.standard_normal((2, 16)), rng.standard_normal((16, 2))) for n in range(2)}
        save_peft(tmp_path / name, pairs, alpha=4)
    return tmp_path
