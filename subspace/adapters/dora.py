"""DoRA with its magnitudes: how much it changes a weight, of which ``scale * B @ A`` is only the direction part.

``W' = m * (W + delta_W) / ||W + delta_W||``, with a number m for each output (or, in OneTrainer's files, each input)
and the norm of that row (or column), so the base weight is needed.

References
----------
Liu et al., arXiv 2402.09353, equation 5. huggingface/peft 0.21.2, tuners/lora/variants.py: ``DoraLinearVariant``;
KohakuBlueleaf/LyCORIS 4.1, lycoris/functional/general.py: ``weight_decompose``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.update import LowRankUpdate, Update, known
from subspace.checkpoints.peft_files import PREFIX
from subspace.flags import Flag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.base.weights import BaseWeight

__all__ = ["changes", "magnitudes", "norm_whole", "whole_change"]

_PREFIXES = ("", PREFIX)
_SUFFIXES = (
    ".lora_magnitude_vector", ".lora_magnitude_vector.weight", ".lora_magnitude_vector.default.weight",
    ".lora_magnitude_vector.default", ".dora_scale", ".magnitude", ".m",
)  # fmt: skip
_ROWS = 512


def norm_whole(update: Update, adapter: Adapter, weight: BaseWeight) -> float | None:
    """Frobenius norm of the whole change ``W' - W``; None where the file has no magnitudes, or some that do not fit.

    Notes
    -----
    W is widened 512 rows at a time, or whole where the magnitudes are of its columns.
    """
    found = changes(update, adapter, weight)
    if found is None:
        return None
    total = sum(float((change * change).sum()) for _, _, change in found)
    return math.sqrt(total) if math.isfinite(total) else None


def changes(
    update: Update, adapter: Adapter, weight: BaseWeight
) -> Iterator[tuple[int, int, NDArray[np.float64]]] | None:
    """Starts, stops and rows of the whole change ``W' - W``; None where `norm_whole` is None for want of numbers.

    Notes
    -----
    In pieces of 512 rows, or whole where the magnitudes are of columns. Numbers may be NaN or infinite, without a
    warning.
    """
    found = magnitudes(update, adapter)
    if found is None or update.scale.value is None:
        return None
    m, by_row = found
    if m.size != weight.shape[0 if by_row else 1]:
        return None
    return _changes(weight.factor().load(), update, m, by_row=by_row)


def _changes(
    W: NDArray[Any], update: Update, m: NDArray[Any], *, by_row: bool
) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
    for start, stop in _pieces(len(W)) if by_row else [(0, len(W))]:
        own = m[start:stop] if by_row else m
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            change = whole_change(W[start:stop], _rows(update, start, stop), own, by_row=by_row)
            yield start, stop, change


def whole_change(
    W: NDArray[Any], delta_W: NDArray[Any], m: NDArray[Any], *, by_row: bool = True
) -> NDArray[np.float64]:
    """``m * (W + delta_W) / ||W + delta_W|| - W`` (d_out, d_in); NaN where a row or column of W + delta_W is zero.

    Parameters
    ----------
    m : one number for each row, or for each column

    Examples
    --------
    Twice the norm of a row that keeps its direction is that row once more.

    >>> whole_change(np.array([[3.0, 4.0]]), np.zeros((1, 2)), np.array([10.0]))
    array([[3., 4.]])
    """
    V = W.astype(np.float64) + delta_W
    norms = np.sqrt((V * V).sum(axis=1 if by_row else 0, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):  # a row of zeros has no direction
        change: NDArray[np.float64] = V * (m.astype(np.float64).reshape(norms.shape) / norms) - W
    return change


def magnitudes(update: Update, adapter: Adapter) -> tuple[NDArray[Any], bool] | None:
    """The magnitudes of a module, and whether they are of its rows: (1, in) of LyCORIS and OneTrainer is of columns.

    None where the file has none for the whole layer.
    """
    if adapter.tensors is None or Flag.DORA not in update.flags or update.rows is not None:
        return None
    module = adapter.stored_names.get(update.module, update.module)
    for prefix in _PREFIXES:
        for suffix in _SUFFIXES:
            key = f"{prefix}{module}{suffix}"
            if key in adapter.tensors.layout:
                m = adapter.tensors.read(key)
                return m.reshape(-1), suffix != ".dora_scale" or m.shape[:1] != (1,) or m.size == 1
    return None


def _pieces(rows: int) -> Iterator[tuple[int, int]]:
    for start in range(0, rows, _ROWS):
        yield start, min(rows, start + _ROWS)


def _rows(update: Update, start: int, stop: int) -> NDArray[np.float64]:
    scale = known(update.scale, update.module)
    if isinstance(update, LowRankUpdate):
        return scale * (update.B[start:stop].astype(np.float64) @ update.A.astype(np.float64))
    return scale * update.matrix.rows(start, stop).load().astype(np.float64)
