"""Small adapters on disk, and the command line called in this process or in one of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from subspace.cli import main
from subspace.training import save_base, save_peft

D, MODULES = 32, [f"model.layers.{n}.self_attn.{p}_proj" for n in range(3) for p in "qv"]


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys, monkeypatch) -> Callable[..., Done]:
    """Call ``subspace ...`` in this process."""

    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["subspace", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture
def run_apart(tmp_path) -> Callable[..., Done]:
    """Call ``python -m subspace ...`` as a shell does."""

    def call(*words: object, **options: object) -> Done:
        command = [sys.executable, "-m", "subspace", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, **options)
        return Done(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """Two PEFT adapters that share one direction per module, their start, a pair without a scale, and their base."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(1)
    common = {m: (rng.standard_normal((D, 1)), rng.standard_normal((1, D))) for m in MODULES}

    def factors(r, row):
        """The common direction stands in another row of either A, as it does after training from different starts."""
        return {
            m: (
                np.insert(rng.standard_normal((r - 1, D)), row, 9 * a, axis=0),
                np.insert(rng.standard_normal((D, r - 1)), row, 9 * b[:, 0], axis=1),
            )
            for m, (b, a) in common.items()
        }

    first = factors(4, 0)
    save_peft(folder / "first", first, alpha=8)
    save_peft(folder / "second", factors(6, 3), alpha=8)
    save_peft(
        folder / "start",
        {m: (0.01 * rng.standard_normal(A.shape), 0 * B) for m, (A, B) in first.items()},
        alpha=8,
    )
    save_base(folder / "base.safetensors", {f"{m}.weight": rng.standard_normal((D, D)) for m in MODULES})
    A, B = first[MODULES[0]]
    np.savez(folder / "pair.npz", A=A, B=B)
    np.save(folder / "W.npy", rng.standard_normal((D, D)))
    np.save(folder / "dW.npy", B @ A)
    return folder
