"""Spectra of the updates of an adapter in their order, small ones of one shape at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from subspace.adapters.update import DenseUpdate, LowRankUpdate, Update
from subspace.analysis.frames import dense_noise
from subspace.errors import ValueRangeError
from subspace.flags import Flag
from subspace.geometry import batched, lapack
from subspace.geometry.frame import product_frames
from subspace.geometry.frobenius import frobenius
from subspace.geometry.rounding import float64_noise

__all__ = ["Spectrum", "spectra"]

_SMALL = 4096  # numbers of A and B below which the calls cost more than the arithmetic
_MOST = 512  # of small updates held at once


class Spectrum(NamedTuple):
    """Singular values of B @ A above its numerical rank, and the norms of the factors, None of a dense update."""

    S: np.ndarray
    norm_A: float | None
    norm_B: float | None


def spectra(updates: Iterable[Update]) -> Iterator[tuple[Update, Spectrum | None]]:
    """Every update with its spectrum, None where a number is not finite or an update is not defined without a base."""
    small: list[LowRankUpdate] = []
    for update in updates:
        if isinstance(update, LowRankUpdate) and update.r * (update.d_in + update.d_out) <= _SMALL:
            small.append(update)
            if len(small) == _MOST:
                yield from _together(small)
                small = []
        else:
            yield from _together(small)
            small = []
            yield update, _alone(update)
    yield from _together(small)


def _together(updates: list[LowRankUpdate]) -> Iterator[tuple[Update, Spectrum | None]]:
    found: dict[int, Spectrum | None] = {}
    alike: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for n, update in enumerate(updates):
        alike[update.d_out, update.r, update.d_in].append(n)
    for places in alike.values():
        A, B = (np.stack(each) for each in zip(*((updates[n].A, updates[n].B) for n in places), strict=True))
        found.update(zip(places, _stacked(A, B), strict=True))
    return ((update, found[n]) for n, update in enumerate(updates))


def _stacked(A: np.ndarray, B: np.ndarray) -> list[Spectrum | None]:
    """Spectra of the pairs A (n, r, d_in), B (n, d_out, r)."""
    finite = np.isfinite(A).all(axis=(1, 2)) & np.isfinite(B).all(axis=(1, 2))
    # only then widened: some NaN of float32 would cause a warning
    A, B = A[finite].astype(np.float64), B[finite].astype(np.float64)
    norms = batched.norms(A).tolist(), batched.norms(B).tolist()
    computed = (
        Spectrum(*parts) if np.isfinite(parts[0]).all() else None
        for parts in zip(batched.singular_values(B, A), *norms, strict=True)
    )
    return [next(computed) if good else None for good in finite.tolist()]


def _alone(update: Update) -> Spectrum | None:
    if isinstance(update, DenseUpdate) and Flag.NEEDS_BASE in update.flags:
        return None
    try:
        if isinstance(update, LowRankUpdate):
            A, B = lapack.as_float64(update.A), lapack.as_float64(update.B)
            return Spectrum(product_frames(B, A)[0].S, frobenius(A), frobenius(B))
        M = lapack.as_float64(update.matrix.load())
        S = lapack.singular_values(M)
    except ValueRangeError:
        return None
    noise = max(dense_noise(update, M), float64_noise(M.shape, S.max(initial=0.0)))
    return Spectrum(S[noise < S], None, None)
