"""Measures of what a model does on examples, each a function of sums over the examples, so that it can be resampled.

A measure is one object in `MEASURES`; a result has a column of its name, of its difference and of its interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from subspace.training.measures import macro_f1

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.training.outcomes import Outcomes

__all__ = ["MEASURES", "Measure"]


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes
    ----------
    name : of its column
    columns : outcomes -> (n, k), what each example adds to k sums; None where the measure does not exist
    value : (..., k) sums -> (...) values
    """

    name: str
    columns: Callable[[Outcomes], NDArray[np.float64] | None]
    value: Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(sums[..., 0] / sums[..., 1])


def _losses(found: Outcomes) -> NDArray[np.float64]:
    return np.stack([found.losses * found.weights, found.weights], axis=1)


def _right(found: Outcomes) -> NDArray[np.float64]:
    return np.stack([found.right, found.weights], axis=1)


def _by_class(found: Outcomes) -> NDArray[np.float64] | None:
    """Per class, for each example: whether it is rightly of it, is of it, and was predicted to be."""
    if found.labels is None or found.predicted is None:
        return None
    classes = np.arange(1 + max(found.labels.max(), found.predicted.max()))
    true, guessed = (each[:, None] == classes for each in (found.labels, found.predicted))
    return np.concatenate([true & guessed, true, guessed], axis=1).astype(np.float64)


def _macro_f1(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(macro_f1(*np.split(sums, 3, axis=-1)))


MEASURES = (
    Measure("loss", _losses, _ratio),
    Measure("accuracy", _right, _ratio),
    Measure("macro_f1", _by_class, _macro_f1),
)
