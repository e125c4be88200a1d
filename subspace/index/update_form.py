"""The canonical form of an update of a file, whichever way it is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.adapters.update import DenseUpdate, Update
from subspace.flags import Flag
from subspace.geometry.canonical import Canonical, canonical

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["MOST_OF_DENSE", "canonical_of"]

MOST_OF_DENSE = (
    10  # of a matrix without factors, one direction in so many: a whole space would contain any other
)


def canonical_of(update: Update) -> Canonical:
    """The canonical form of an update; its scale is left out.

    A matrix without factors is cut to the leading tenth of its directions that stand above the rounding of its numbers.
    A product of several trained factors has no A and B of its own.

    Raises
    ------
    InconclusiveError
        If it is defined by base weights that were not given.
    ValueRangeError
        If a number is not finite.

    Examples
    --------
    >>> from subspace.adapters import load_adapter
    >>> adapter = load_adapter({"q.lora_A": np.eye(2, 4), "q.lora_B": 3 * np.eye(3, 2)})
    >>> canonical_of(adapter["q"]).S
    array([3., 3.])
    """
    if isinstance(update, DenseUpdate):
        return _dense(update)
    form = canonical(update.B, update.A)
    if Flag.COMPOSED in update.flags:
        return Canonical(form.right[: form.k], form.left[: form.k], form.S)
    return form


def _dense(update: DenseUpdate) -> Canonical:
    from subspace.geometry.dense_frames import dense_frame
    from subspace.geometry.rounding import stored_noise

    M = update.matrix.load().astype(np.float64)
    stored = M if update.matrix.stored is None else update.matrix.stored()
    # a matrix that is computed in float64 from other numbers has no rounding of its own
    noise = 0.0 if update.matrix.numbers is not None else stored_noise(stored, update.matrix.resolution)
    most = max(1, min(M.shape) // MOST_OF_DENSE)
    frame = dense_frame(M, side="right", k=most, resolution=update.matrix.resolution, noise=noise)
    right = frame.vectors().T
    left: Floats = (M @ right.T / frame.S).T
    return Canonical(right, left, frame.S)
