"""How did an adapter come to be? phi with the end, the next and the start, over the checkpoints of a run.

Similarity to the end as in the LoRA paper's phi(i, j) (arXiv 2106.09685v2, section 7.2), the birth of the directions of
the last checkpoint, and of intruder dimensions (arXiv 2410.21228), each next to isotropic random spans and controls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from subspace.analysis.checkpoint_files import Checkpoint, checkpoints_in
from subspace.analysis.controls import kinds_of
from subspace.analysis.frames import SIDES
from subspace.analysis.resolve import Loading
from subspace.analysis.tracked_runs import Asked, tracked
from subspace.errors import ValueRangeError
from subspace.results.track import Track
from subspace.text import shown

__all__ = ["track"]


def track(
    source: Any,
    *,
    side: str | Sequence[str] = "all",
    directions: int | None = None,
    init: Any = None,
    controls: str = "all",
    by: str = "total",
    k: int = 10,
    epsilon: float = 0.5,
    base: Any = None,
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    layout: str | None = None,
    rename: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Track:
    """Follow an adapter over the checkpoints of its run: when it points where it ends, and when directions appear.

    Parameters
    ----------
    source : the folder of a run, of `subspace train` or with checkpoints of PEFT, MLX, kohya or diffusers; or several
        folders or checkpoints in a list, each as `load_adapter` takes it; or a mapping of steps to these
    side : "a" (rows of A), "b" (columns of B), "left" or "right" (of delta_W), several of them, or "all"
    directions : how many leading directions phi is of; None: all on sides a and b, and on left and right those with
        90 % of the energy of the last checkpoint
    init : the adapter before training, where no checkpoint is that; it is the start, and is removed on further rows
    controls : which matched controls to measure: "same-input", "layers", "all" or "none", as in `compare`
    by : rows of "total", all modules together, or of each "module"; the runs of the result have both
    base : base weights, as `load_base` takes them: intruder dimensions are counted
    k, epsilon : of intruder dimensions, as `intruders` takes them
    scale, adapter_name, enable_lora, layout, rename : how all checkpoints are read, as `load_adapter` takes them
    progress : called with (modules done, modules in all)

    Returns
    -------
    Track
        Of one run or more: checkpoints whose numbers show another run are not joined.

    Raises
    ------
    FileError : there is no checkpoint
    InconclusiveError : no run has a checkpoint with a direction
    SubspaceError : a file cannot be read

    Notes
    -----
    Each factor is read once, and the directions of a few modules at all checkpoints are in memory. That checkpoints are
    of one run is told by at most 24 of their modules, which are read once more.

    References
    ----------
    Hu et al., arXiv 2106.09685v2, equation 4. Shuttleworth et al., arXiv 2410.21228, definition 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> A, B = np.eye(2, 6), np.eye(5, 2)
    >>> steps = {n: {"A": A, "B": B * [1.0, strength]} for n, strength in ((1, 0.1), (2, 0.2), (3, 2.0))}
    >>> track(steps, side="right", directions=1).runs[0].total[0].to_final
    (0.0, 0.0, 1.0)
    """
    asked = asked_for(side, directions, init, controls, by, k, epsilon, base)
    loading = Loading(base, scale, adapter_name, enable_lora, rename, layout)
    checkpoints, notes = checkpoints_of(source)
    return tracked(checkpoints, notes, asked, loading, progress)


def checkpoints_of(source: Any) -> tuple[list[Checkpoint], list[str]]:
    """The checkpoints in what `track` takes as its source; see `checkpoints_in`."""
    if isinstance(source, Mapping) and source and all(isinstance(step, int) for step in source):
        return checkpoints_in([_AtStep(step, each) for step, each in sorted(source.items())])
    return checkpoints_in(source if isinstance(source, list | tuple) else [source])


@dataclass(frozen=True)
class _AtStep:
    """An adapter in memory, or a path, with its step."""

    step: int
    source: Any


def asked_for(
    side: str | Sequence[str],
    directions: int | None,
    init: Any,
    controls: str,
    by: str,
    k: int,
    epsilon: float,
    base: Any,
) -> Asked:
    """What the parameters of `track` ask for.

    Raises
    ------
    ValueRangeError : one is out of its range
    """
    sides = SIDES if side == "all" else (side,) if isinstance(side, str) else tuple(dict.fromkeys(side))
    unknown = [each for each in sides if each not in SIDES]
    if unknown or not sides:
        raise ValueRangeError(
            f"Unknown side {shown(repr(unknown[0] if unknown else ''))}: `side` is one of {', '.join(SIDES)} or all"
        )
    if directions is not None and directions < 1:
        raise ValueRangeError(
            f"{directions} directions are too few: give `directions` a number of at least 1, or none"
        )
    if by not in ("total", "module"):
        raise ValueRangeError(f"Unknown rows {shown(repr(by))}: `by` is total or module")
    if k < 1:
        raise ValueRangeError(f"k = {k} is too small: give `k` a whole number of at least 1")
    if not 0 < epsilon <= 1:
        raise ValueRangeError(f"Invalid threshold {epsilon}: give `epsilon` a number in (0, 1], such as 0.5")
    return Asked(sides, directions, init, kinds_of(controls), by, k, epsilon, base)
