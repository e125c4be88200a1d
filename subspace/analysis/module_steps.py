"""One module at every checkpoint of a run: the spans of its sides, and the sizes of its updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from subspace.adapters.update import DenseUpdate, LowRankUpdate
from subspace.analysis.damage import damaged
from subspace.analysis.frames import dimension, is_untrained, spanning
from subspace.analysis.step_numbers import Numbers, StepNumbers
from subspace.errors import ValueRangeError
from subspace.flags import Flag
from subspace.geometry.agreement import frames_of
from subspace.geometry.spectrum import energy_rank
from subspace.geometry.trajectory import path_of

if TYPE_CHECKING:
    from subspace.adapters import Update
    from subspace.geometry.frame import Frame
    from subspace.geometry.lapack import Floats

__all__ = ["ENERGY", "ModuleSteps", "SidePath", "module_steps"]

ENERGY = 0.9  # of delta_W in the directions of left and right that phi is of
_CARRIED = (Flag.DORA, Flag.FUSED, Flag.COMPOSED, Flag.DENSE, Flag.SCALE_UNKNOWN)
Key: TypeAlias = tuple[str, str]  # side, init


class SidePath(NamedTuple):
    """One side of a module along a run.

    Attributes
    ----------
    path, counts : all directions of each step, as `geometry.trajectory` has them
    start, start_counts : the same of the start alone, (1, k, d) and (1,)
    energy : (K,) share of the squared singular values of the leading directions of the last step, K of which phi is of
    """

    path: Floats
    counts: np.ndarray
    start: Floats
    start_counts: np.ndarray
    energy: Floats

    @property
    def leading(self) -> int:
        """How many directions phi is of, at the last step."""
        return len(self.energy)

    @property
    def d(self) -> int:
        """Dimension of the space."""
        return int(self.path.shape[2])

    def cut(self, dtype: type = np.float64) -> SidePath:
        """The leading directions alone, as phi is of."""
        k = self.leading
        return SidePath(
            self.path[:, :k].astype(dtype, copy=False),
            np.minimum(self.counts, k),
            self.start[:, :k].astype(dtype, copy=False),
            np.minimum(self.start_counts, k),
            self.energy,
        )


@dataclass(frozen=True, eq=False)
class ModuleSteps:
    """One module at every checkpoint.

    Attributes
    ----------
    module : its name
    sides : (side, init) -> its path
    numbers : of its updates as wholes
    shape : (d_out, d_in)
    flags : what to know before reading the numbers
    bad : files with numbers that are not finite
    """

    module: str
    sides: Mapping[Key, SidePath]
    numbers: Numbers
    shape: tuple[int, int]
    flags: tuple[Flag, ...] = ()
    bad: tuple[str, ...] = ()


@dataclass
class _Steps:
    """What is asked of one module, while its checkpoints are read one after the other."""

    updates: Sequence[Update | None]
    paths: Sequence[str]
    start: Update | None
    sides: tuple[str, ...]
    directions: int | None
    removed: bool
    flags: dict[Flag, None] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)

    def removable(self) -> list[str]:
        """The sides that the start is removed from: a, and all where its B is not zero."""
        start = self.start
        if not self.removed or not all(
            _removable(update, start) for update in self.updates if update is not None
        ):
            return []
        assert start is not None
        return [side for side in self.sides if side == "a" or not is_untrained(start)]

    def frames(self, n: int | None, start: Update | None = None) -> dict[str, Frame]:
        """Of a checkpoint, or with None of the start; without `start`, where one is given."""
        update = self.start if n is None else self.updates[n]
        if update is None:
            return {}
        wanted = self.removable() if start is not None else self._wanted(update)
        try:
            return frames_of(spanning(update, wanted, start=start, directions=self._most(update)))
        except ValueRangeError:
            # looked for only now, as most files are sound and this reads every number once more
            bad = damaged([("the start" if n is None else self.paths[n], update)])
            if not bad:
                raise
            self.bad += bad
            self.flags[Flag.NOT_FINITE] = None
            return {}

    def _wanted(self, update: Update) -> list[str]:
        if isinstance(update, DenseUpdate):
            return [] if is_untrained(update) else list(self.sides)
        # what B = 0 leaves of an update are the rows of A
        return ["a"] if is_untrained(update) else list(dict.fromkeys((*self.sides, "a", "b")))

    def _most(self, update: Update) -> int | None:
        if not isinstance(update, DenseUpdate):
            return None
        return self.directions or max(1, -(-min(update.d_in, update.d_out) // 10))


def module_steps(
    updates: Sequence[Update | None],
    paths: Sequence[str],
    *,
    start: Update | None,
    sides: tuple[str, ...],
    directions: int | None,
    removed: bool,
) -> ModuleSteps:
    """One module at every checkpoint of a run.

    Parameters
    ----------
    updates : of every checkpoint, None where it lacks the module; the last is there
    paths : of the checkpoints
    start : the update that the run began with, or the first that was saved
    sides : of `frames.SIDES`
    directions : how many leading directions phi is of; None: all on sides a and b, and on left and right those with
        90 % of the energy
    removed : whether the start is also to be removed, as it is that of the run

    Notes
    -----
    Every factor is read once. The directions of all checkpoints are held in float64, T r (d_in + d_out) numbers for
    each pair of sides.
    """
    last = updates[-1]
    assert last is not None
    fitting = [u if u is not None and (u.d_out, u.d_in) == (last.d_out, last.d_in) else None for u in updates]
    asked = _Steps(fitting, paths, start, sides, directions, removed)
    if any(a is not b for a, b in zip(fitting, updates, strict=True)):
        asked.flags[Flag.SHAPE_DIFFERS] = None
    numbers = StepNumbers(last, start, len(updates))
    final = asked.frames(len(updates) - 1)
    numbers.begin(final.get("a"), final.get("b"))
    spans: dict[Key, list[_Span | None]] = {(side, "kept"): [] for side in sides}
    removable = asked.removable()
    spans |= {(side, "removed"): [] for side in removable}
    for n, update in enumerate(fitting):
        found = final if n == len(updates) - 1 else asked.frames(n)
        if update is not None:
            numbers.add(n, update, found.get("a"), found.get("b"))
        less = asked.frames(n, start) if removable and update is not None and update is not start else {}
        for (side, init), each in spans.items():
            each.append(_span((found if init == "kept" else less).get(side)))
    begun = {side: _span(frame) for side, frame in asked.frames(None).items()}
    carried = dict.fromkeys(flag for u in fitting if u is not None for flag in u.flags if flag in _CARRIED)
    return ModuleSteps(
        last.module,
        {
            key: _side_path(
                each,
                begun.get(key[0]) if key[1] == "kept" else None,
                dimension(last, key[0]),
                key,
                directions,
            )
            for key, each in spans.items()
        },
        numbers.found(),
        (last.d_out, last.d_in),
        (*carried, *asked.flags),
        tuple(dict.fromkeys(asked.bad)),
    )


def _removable(update: Update, start: Update | None) -> bool:
    """Whether a start can be subtracted from an update: factors that were trained as such, of the same shapes."""
    lora = isinstance(update, LowRankUpdate) and isinstance(start, LowRankUpdate)
    if not lora or start is None or Flag.COMPOSED in update.flags:
        return False
    return (update.r, update.d_in, update.d_out) == (start.r, start.d_in, start.d_out)


class _Span(NamedTuple):
    rows: Floats
    S: Floats


def _span(frame: Frame | None) -> _Span | None:
    return _Span(frame.vectors().T, frame.S) if frame is not None and frame.k else None


def _side_path(
    spans: Sequence[_Span | None], start: _Span | None, d: int, key: Key, directions: int | None
) -> SidePath:
    last = spans[-1]
    path, counts = path_of([None if each is None else each.rows for each in spans], d)
    begun, begun_counts = path_of([None if start is None else start.rows], d)
    energy = np.zeros(0) if last is None else _energy(last.S, key[0], directions)
    return SidePath(path, counts, begun, begun_counts, energy)


def _energy(S: Floats, side: str, directions: int | None) -> Floats:
    """Share of the squared singular values of each of the leading directions that phi is of."""
    k = directions or (len(S) if side in ("a", "b") else int(energy_rank(S, ENERGY)))
    shares = (S / S[0]) ** 2
    return np.asarray(shares[:k] / shares.sum())
