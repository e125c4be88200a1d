"""Adapters to try things on: a small base, trained on the same lessons at two ranks and from two seeds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from subspace.checkpoints.atomic_writing import write_whole
from subspace.checkpoints.folder_swap import entries
from subspace.errors import FileError
from subspace.text import listed, shown
from subspace.training.linear import Lesson, trained
from subspace.training.save_adapter import base_content, peft_contents

__all__ = ["ADAPTERS", "LESSONS", "make", "require_own_folder"]

LESSONS = {"q_proj": (6.0, 3.0, 1.5), "v_proj": (8.0,)}
ADAPTERS = {"a_r8": (8, 1), "a_r64": (64, 2), "b_r64": (64, 3)}
_WIDTH, _LAYERS, _ALPHA = 256, 3, 16.0


def require_own_folder(folder: str | os.PathLike[str]) -> None:
    """Check that a folder is new, empty, or that of an earlier demo.

    Raises
    ------
    FileError : it holds something else, or is a file
    """
    place = Path(folder)
    try:
        held = entries(place) if os.path.lexists(place) else []
    except OSError as error:
        raise FileError(f"Cannot use {shown(place)} as a folder: {error.strerror}; give another") from error
    if held and not {"base.safetensors", *ADAPTERS} <= set(held):
        raise FileError(
            f"The folder {shown(place)} is not empty: it holds {listed(held)}; give another folder for the demo"
        )


def make(
    folder: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
) -> dict[str, Path]:
    """Write ``base.safetensors`` and the PEFT directories a_r8, a_r64 and b_r64 in one step; return their paths.

    Every q_proj learns an update of rank 3, every v_proj one of rank 1 (`LESSONS`); ranks and seeds of the adapters are
    those of `ADAPTERS`. Each adapter's start is written as ``<name>-start``.

    Parameters
    ----------
    folder : where they are written; made where it is missing
    progress : called with (done, in all), in trained layers

    Raises
    ------
    FileError : the directory cannot be written
    """
    folder = Path(folder)
    lessons = {
        f"model.layers.{layer}.self_attn.{name}": Lesson.planted(
            _WIDTH, _WIDTH, strengths=strengths, seed=10 * layer + n
        )
        for layer in range(_LAYERS)
        for n, (name, strengths) in enumerate(LESSONS.items())
    }
    base = {f"{module}.weight": lesson.W for module, lesson in lessons.items()}
    paths = {"base": folder / "base.safetensors", **{name: folder / name for name in ADAPTERS}}
    contents = {paths["base"]: base_content(base)}
    total = len(ADAPTERS) * len(lessons)
    for n, (name, (r, seed)) in enumerate(ADAPTERS.items()):
        factors, starts = {}, {}
        for k, (module, lesson) in enumerate(lessons.items()):
            A, B, A_0 = trained(lesson, r, alpha=_ALPHA, seed=1000 * seed + k)
            factors[module], starts[module] = (A, B), (A_0, 0 * B)
            if progress is not None:
                progress(n * len(lessons) + k + 1, total)
        contents |= peft_contents(paths[name], factors, alpha=_ALPHA)
        contents |= peft_contents(folder / f"{name}-start", starts, alpha=_ALPHA)
    write_whole(contents)
    return paths
