"""The canonical form of an update, of factors or of a whole matrix."""

from __future__ import annotations

import numpy as np

from subspace.adapters.update import DenseUpdate, Update
from subspace.flags import Flag
from subspace.geometry.canonical import Canonical, canonical

__all__ = ["form_of"]

_OF_DENSE = 10  # of a matrix without factors, one direction in so many


def form_of(update: Update) -> Canonical:
    """The canonical form of an update, its scale left out.

    That of a matrix without factors has no `a` and `b`, nor has that of a product of several trained factors, whose A
    and B were not trained themselves.

    Raises
    ------
    ValueRangeError : a number is not finite
    InconclusiveError : the matrix is defined by base weights that were not given

    Notes
    -----
    A dense update is cut where its singular values are rounding of the stored numbers, see `geometry.rounding`, and at
    a tenth of its dimension: a span that fills the space contains any other.

    Examples
    --------
    >>> from subspace.adapters import load_adapter
    >>> adapter = load_adapter({"q.lora_A": np.eye(2, 4), "q.lora_B": 3 * np.eye(3, 2)})
    >>> form_of(adapter["q"]).S
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
    most = max(1, min(M.shape) // _OF_DENSE)
    frame = dense_frame(M, side="right", k=most, resolution=update.matrix.resolution, noise=noise)
    V = frame.vectors()
    return Canonical(V.T, (M @ V / frame.S).T, frame.S)
