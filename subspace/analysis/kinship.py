"""Whether two adapters can be checkpoints of one run: rows of A that agree one by one, and the cosine of updates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from subspace.adapters import Adapter, match_modules
from subspace.adapters.update import DenseUpdate, LowRankUpdate
from subspace.flags import Flag
from subspace.geometry.row_alignment import Alignment, combined, row_alignment, start_verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters import Update

__all__ = ["NEAR", "Kinship", "Signature", "kinship", "signature"]

_MOST = 24  # modules that are looked at
_BUDGET = 1 << 24  # numbers that are held of one adapter
_ENOUGH = 7.0  # largest z from which a start in common would show
NEAR = 0.9  # cosine of neighbouring checkpoints; two runs of one task stay below
_UNLIKE = 0.1  # cosine below which two updates have learned nothing in common

Verdict: TypeAlias = Literal["equal", "one_run", "cannot_tell", "common_start", "different"]


@dataclass(frozen=True, eq=False)
class Signature:
    """Some modules of an adapter, as they were stored, to tell whose checkpoint it is.

    Attributes
    ----------
    modules : name -> A and B with the scale; of a dense update the matrix and None
    names : of all modules of the adapter
    """

    modules: Mapping[str, tuple[NDArray[Any], NDArray[Any] | None, float]]
    names: tuple[str, ...]

    @property
    def untrained(self) -> bool:
        """Whether every update is zero, as before the first step."""
        return all(not A.any() or (B is not None and not B.any()) for A, B, _ in self.modules.values())


@dataclass(frozen=True)
class Kinship:
    """What the numbers show of two adapters.

    Attributes
    ----------
    verdict : "equal", "one_run", "cannot_tell" (the rows of A are too few, the cosine is neither near 1 nor near 0),
        "common_start" (one start, and nothing learned in common), or "different"
    z, largest : alignment of the rows of A over the modules, and the most that it can be; NaN without rows to permute
    cosine : of the two updates, NaN where one of them is zero
    """

    verdict: Verdict
    z: float = math.nan
    largest: float = math.nan
    cosine: float = math.nan


def signature(adapter: Adapter) -> Signature:
    """Some evenly spaced modules of an adapter: all of a small one; its files are read for these alone."""
    names = list(adapter)
    size = max([1, *map(_numbers, adapter.values())])
    most = max(1, min(_MOST, _BUDGET // size, len(names)))
    chosen = [names[n] for n in dict.fromkeys(np.linspace(0, len(names) - 1, most).round().astype(int))]
    found = {name: _stored(adapter[name]) for name in chosen}
    adapter.release()
    return Signature(found, tuple(names))


def kinship(one: Signature, other: Signature) -> Kinship:
    """Whether two adapters can be checkpoints of one run.

    Notes
    -----
    Along one run the rows of A keep their numbers, so that they agree one by one (`geometry.row_alignment`), as do
    those of two runs from one start, whose updates then tell them apart. A cosine of .9 is more than two runs of one
    task reach, and is enough by itself.
    """
    pairs = [(one.modules[a], other.modules[b]) for a, b in _pairs(one, other)]
    if not pairs or not all(_fit(*pair) for pair in pairs):
        return Kinship("different")
    alignment = combined([_alignment(*pair) for pair in pairs])
    cosine = _cosine(pairs)
    return Kinship(_verdict(pairs, alignment, cosine), alignment.z, alignment.largest, cosine)


def _verdict(pairs: list[tuple[_Stored, _Stored]], alignment: Alignment, cosine: float) -> Verdict:
    if all(_same(one, other) for one, other in pairs):
        return "equal"
    if cosine >= NEAR:
        return "one_run"
    unlike = cosine < _UNLIKE  # False without a cosine, as of a start
    if start_verdict(alignment) == "common":
        return "common_start" if unlike else "one_run"
    if alignment.largest >= _ENOUGH or unlike:
        return "different"
    return "cannot_tell"


_Stored: TypeAlias = "tuple[NDArray[Any], NDArray[Any] | None, float]"


def _numbers(update: Update) -> int:
    if isinstance(update, DenseUpdate):
        return update.d_in * update.d_out
    return update.r * (update.d_in + update.d_out)


def _stored(update: Update) -> _Stored:
    scale = 1.0 if update.scale.value is None else update.scale.value
    if isinstance(update, LowRankUpdate):
        if Flag.COMPOSED not in update.flags:
            return update.A, update.B, scale
        with np.errstate(all="ignore"):  # what is not finite gives no cosine
            return update.B @ update.A, None, scale
    return update.matrix.load(), None, scale


def _pairs(one: Signature, other: Signature) -> list[tuple[str, str]]:
    if one.names == other.names:
        return [(name, name) for name in one.modules if name in other.modules]
    matched = match_modules(list(one.modules), list(other.modules))
    return matched.pairs


def _fit(one: _Stored, other: _Stored) -> bool:
    kinds = (one[1] is None) == (other[1] is None)
    return kinds and one[0].shape[1] == other[0].shape[1] and _rows(one) == _rows(other)


def _rows(stored: _Stored) -> int:
    A, B, _ = stored
    return len(A if B is None else B)


def _same(one: _Stored, other: _Stored) -> bool:
    return one[2] == other[2] and all(
        a is b is None or (a is not None and b is not None and np.array_equal(a, b))
        for a, b in zip(one[:2], other[:2], strict=True)
    )


def _alignment(one: _Stored, other: _Stored) -> Alignment:
    finite = np.isfinite(one[0]).all() and np.isfinite(other[0]).all()
    if one[1] is None or other[1] is None or not finite:
        return Alignment(math.nan, 0.0, 0)
    return row_alignment(one[0], other[0])


def _cosine(pairs: list[tuple[_Stored, _Stored]]) -> float:
    """Of the updates of all modules together, each with its scale."""
    inner = np.array([_inners(one, other) for one, other in pairs], dtype=np.float64).sum(axis=0)
    size = math.sqrt(inner[1]) * math.sqrt(inner[2]) if inner[1] > 0 and inner[2] > 0 else 0.0
    return float(inner[0] / size) if 0 < size < math.inf else math.nan


def _inners(one: _Stored, other: _Stored) -> tuple[float, float, float]:
    return _inner(one, other), _inner(one, one), _inner(other, other)


def _inner(one: _Stored, other: _Stored) -> float:
    A, B, s = (None if each is None else np.asarray(each, dtype=np.float64) for each in one)
    A_, B_, s_ = (None if each is None else np.asarray(each, dtype=np.float64) for each in other)
    assert A is not None and A_ is not None and s is not None and s_ is not None
    with np.errstate(all="ignore"):  # what is not finite gives no cosine
        product = np.vdot(A, A_) if B is None or B_ is None else np.vdot(B.T @ B_, A @ A_.T)
        return float(s * s_ * product)
