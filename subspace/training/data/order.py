"""Which examples a step sees, and which no step sees: pure functions, so a run resumes without any saved state.

Randomness is the counter-based Philox, keyed by the caller's seed and by the purpose. Only its raw words are used:
NumPy keeps those the same from release to release, which it does not promise of the methods of a Generator (NEP 19).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from subspace.errors import ShapeError, ValueRangeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["draws", "epoch_batch", "permutation", "split", "split_stream", "window_starts"]

_WINDOWS, _EPOCHS, _SPLIT, _SHUFFLE, _DRAWS = range(5)


def window_starts(n: int, length: int, batch: int, step: int, *, seed: int) -> NDArray[np.int64]:
    """Return where the windows of one step begin in a stream, uniform on [0, n - length], with replacement.

    Parameters
    ----------
    n : int
        Length of the stream.
    length : int
        Length of a window, the last target included; at most `n`.
    batch, step : int
        How many windows, and for which step, counted from 0.
    seed : int, keyword-only
        In [0, 2**64).

    Returns
    -------
    (batch,) array of int64

    Raises
    ------
    ValueRangeError
        If the stream is shorter than a window, or a number is out of its range.

    Examples
    --------
    >>> window_starts(8, 8, 3, 0, seed=0)
    array([0, 0, 0])
    """
    _require(length=(length, 1), batch=(batch, 1), step=(step, 0), seed=(seed, 0))
    if n < length:
        raise ValueRangeError(
            f"The text is too short: {n} tokens, for windows of {length}; give more text, or shorter windows"
        )
    # a remainder of 64 bits favours no start by more than (n - length + 1) / 2**64
    return (_words(batch, _WINDOWS, step, seed) % np.uint64(n - length + 1)).astype(np.int64)


def epoch_batch(n: int, batch: int, step: int, *, seed: int) -> NDArray[np.int64]:
    """Return the indices of one step's examples; every epoch goes through all of them in an order of its own.

    Parameters
    ----------
    n : int
        Number of examples.
    batch, step : int
        Size of a batch, which may exceed `n`, and the step, counted from 0. A batch may end one epoch and begin the
        next.
    seed : int, keyword-only
        In [0, 2**64).

    Returns
    -------
    (batch,) array of int64

    Notes
    -----
    O(n log n) for the first step of an epoch; the order is then remembered, which changes no result.

    Examples
    --------
    >>> sorted(epoch_batch(4, 2, 0, seed=0).tolist() + epoch_batch(4, 2, 1, seed=0).tolist())
    [0, 1, 2, 3]
    """
    _require(n=(n, 1), batch=(batch, 1), step=(step, 0), seed=(seed, 0))
    first, stop = step * batch, (step + 1) * batch
    epochs = range(first // n, -(-stop // n))
    return np.concatenate([_permutation(n, e, seed)[max(first - e * n, 0) : stop - e * n] for e in epochs])


def split(
    n: int, fraction: float | Sequence[int], *, seed: int, labels: Sequence[int] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices to train on and those held out, each ascending.

    Parameters
    ----------
    n : int
        Number of examples.
    fraction : float, or sequence of int
        Held out, in [0, 1). Above 0 at least one is held out and at least one kept, if there are two. A sequence has
        the indices to hold out themselves.
    seed : int, keyword-only
        In [0, 2**64). Pass a fixed number, never the seed of the run: runs that hold out different examples cannot be
        compared, and one that resumes with another seed would be measured on what it has seen.
    labels : sequence of int, keyword-only
        If given, each class is held out in proportion to its size, by rounding that favours neither large nor small
        classes (Webster's method); what is left to choose is random.

    Examples
    --------
    >>> train, held_out = split(10, 0.2, seed=0, labels=[0] * 5 + [1] * 5)
    >>> len(train), (held_out < 5).tolist()
    (8, [True, False])
    """
    _require(n=(n, 1), seed=(seed, 0))
    if isinstance(fraction, Sequence):
        apart = np.isin(np.arange(n), np.asarray(fraction, np.int64))
        return np.flatnonzero(~apart).astype(np.int64), np.flatnonzero(apart).astype(np.int64)
    if not 0 <= fraction < 1:
        raise ValueRangeError(f"Invalid fraction to hold out: {fraction}; it must be in [0, 1), such as 0.05")
    if labels is not None and len(labels) != n:
        raise ShapeError(f"{len(labels)} labels do not fit {n} examples: every example must have one")
    count = min(max(round(fraction * n), 1), n - 1) if fraction > 0 else 0
    order = np.argsort(_words(n, _SPLIT, 0, seed), kind="stable")
    place = _place_in_class(order, np.zeros(n, np.int64) if labels is None else np.asarray(labels))
    order = order[np.argsort(place[order], kind="stable")]
    return np.sort(order[count:]).astype(np.int64), np.sort(order[:count]).astype(np.int64)


def split_stream(n: int, fraction: float, *, pieces: int = 200) -> tuple[list[slice], list[slice]]:
    """Return the parts of a stream to train on and those held out: every k-th piece, ``k = round(1 / fraction)``.

    Parameters
    ----------
    n : int
        Length of the stream.
    fraction : float
        To hold out, in [0, 0.5]; about ``1 / k`` is held out.
    pieces : int, keyword-only
        Number of equal pieces, at most `n` and at least k. Neighbours that are kept are joined.

    Raises
    ------
    ValueRangeError
        If the stream has fewer than k tokens, so that nothing can be held out, or a number is out of its range.

    Examples
    --------
    >>> split_stream(100, 0.25, pieces=4)
    ([slice(0, 50, None), slice(75, 100, None)], [slice(50, 75, None)])
    """
    _require(n=(n, 1), pieces=(pieces, 1))
    if not 0 <= fraction <= 0.5:
        raise ValueRangeError(
            f"Invalid fraction to hold out: {fraction}; it must be in [0, 0.5], such as 0.05"
        )
    if fraction == 0:
        return [slice(0, n)], []
    if (k := round(min(1 / fraction, n + 1))) > n:
        raise ValueRangeError(
            f"The text is too short to hold out {fraction} of it: {n} tokens; give more text, or give `held_out` as 0"
        )
    pieces = min(max(pieces, k), n)
    size, longer = divmod(n, pieces)
    ends = [i * size + min(i, longer) for i in range(pieces + 1)]
    held = [slice(ends[i], ends[i + 1]) for i in range(k // 2, pieces, k)]
    begins, stops = [0, *(part.stop for part in held)], [*(part.start for part in held), n]
    return [slice(a, b) for a, b in zip(begins, stops, strict=True) if a < b], held


def permutation(n: int, *, seed: int) -> NDArray[np.int64]:
    """Return the numbers below `n` in an order that the seed decides.

    Examples
    --------
    >>> sorted(permutation(4, seed=0).tolist())
    [0, 1, 2, 3]
    """
    _require(n=(n, 0), seed=(seed, 0))
    return np.argsort(_words(n, _SHUFFLE, 0, seed), kind="stable").astype(np.int64)


def draws(n: int, below: int, *, seed: int) -> NDArray[np.int64]:
    """Return `n` uniform numbers in [0, below), which the seed decides.

    Examples
    --------
    >>> draws(3, 1, seed=0).tolist()
    [0, 0, 0]
    """
    _require(n=(n, 0), below=(below, 1), seed=(seed, 0))
    # a remainder of 64 bits favours no number by more than below / 2**64
    return (_words(n, _DRAWS, 0, seed) % np.uint64(below)).astype(np.int64)


def _place_in_class(order: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Where each example stands among those of its class, in (0, 1); the order within a class is that of `order`."""
    grouped = order[np.argsort(classes[order], kind="stable")]
    _, sizes = np.unique(classes, return_counts=True)
    place = np.empty(len(order))
    place[grouped] = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    return place


@lru_cache(maxsize=4)
def _permutation(n: int, epoch: int, seed: int) -> NDArray[np.int64]:
    order = np.argsort(_words(n, _EPOCHS, epoch, seed), kind="stable").astype(np.int64)
    order.setflags(write=False)
    return order


def _words(count: int, purpose: int, step: int, seed: int) -> NDArray[np.uint64]:
    """Raw words of one stream; the step is the counter's second word, so streams are 2**64 blocks apart."""
    key, counter = np.array([seed, purpose], np.uint64), np.array([0, step, 0, 0], np.uint64)
    words: NDArray[np.uint64] = np.random.Philox(key=key, counter=counter).random_raw(count)
    return words


def _require(**least: tuple[int, int]) -> None:
    for name, (value, smallest) in least.items():
        if not smallest <= value < 2**64:
            raise ValueRangeError(f"Invalid `{name}` {value}: it must be in [{smallest}, 2**64)")
