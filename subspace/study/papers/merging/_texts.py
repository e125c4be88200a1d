"""The eight texts of the study, made from what comes with Python and NumPy: six to learn from, and two nulls."""

from __future__ import annotations

import sys
import sysconfig
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from subspace.checkpoints.atomic_writing import write_whole
from subspace.study import other_code

__all__ = ["NULLS", "TEXTS", "path_of", "write"]

_MOST = 250_000  # characters of each
# name -> the control of the first text that it is
NULLS = {"words": "scrambled-words", "noise": "uniform"}


def path_of(name: str, folder: Path) -> str:
    """Return a text as ``subspace train --data`` takes it; `folder` is the study's."""
    own = name if name in TEXTS else next(iter(TEXTS))
    path = str(folder / "texts" / f"{own}.txt")
    return f"{NULLS[name]}:{path}" if name in NULLS else path


def write(folder: Path) -> None:
    """Write the texts that are not there yet into a study's folder.

    Raises
    ------
    FileError : they cannot be written, or Python comes without its help topics
    """
    missing = {name: make for name, make in TEXTS.items() if not Path(path_of(name, folder)).exists()}
    if missing:
        (folder / "texts").mkdir(parents=True, exist_ok=True)
        write_whole({Path(path_of(name, folder)): make()[:_MOST].encode() for name, make in missing.items()})


def _topics(half: int) -> str:
    """Every second of Python's help topics."""
    from subspace.training.data.pydoc import documentation

    parts = documentation().texts[0].split("\n\n\n")
    return "\n\n\n".join(parts[half::2])


def _headers() -> str:
    return other_code.text().decode("utf-8", "replace")


def _sources() -> str:
    """Modules of Python's library, in the order of their names."""
    whole = ""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        with suppress(OSError, UnicodeDecodeError):
            whole += path.read_text(encoding="utf-8") + "\n"
        if len(whole) >= _MOST:
            break
    return whole


def _numbers() -> str:
    """Lines of arithmetic sequences."""
    rng = np.random.default_rng(0)
    starts, steps = rng.integers(0, 500, 12_000), rng.integers(1, 30, 12_000)
    lines = (
        ", ".join(str(start + k * step) for k in range(8)) for start, step in zip(starts, steps, strict=True)
    )
    return "\n".join(lines)


def _characters() -> str:
    """Code points and names of characters, in a seeded order."""
    points = [point for point in range(sys.maxunicode) if _named(point)]
    order = np.random.default_rng(0).permutation(len(points))[:8000]
    return "\n".join(f"{points[n]:05X} {unicodedata.name(chr(points[n])).lower()}" for n in order)


def _named(point: int) -> bool:
    """Whether a character has a name of its own, which is not its number."""
    name = unicodedata.name(chr(point), "")
    return bool(name) and not name.endswith(f"{point:04X}") and "HANGUL SYLLABLE" not in name


TEXTS: Mapping[str, Callable[[], str]] = {
    "topics": lambda: _topics(0),
    "topics-2": lambda: _topics(1),
    "headers": _headers,
    "sources": _sources,
    "numbers": _numbers,
    "characters": _characters,
}
