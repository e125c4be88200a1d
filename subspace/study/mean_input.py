"""How much of the first direction of A is the mean input of its module, and what two adapters share without it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.geometry.frame import row_frame
from subspace.geometry.input_directions import direction_inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters import Adapter
    from subspace.results.inputs import Inputs
    from subspace.study.plan import Plan

__all__ = ["MeanInput", "mean_input", "read_inputs"]

_TOKENS = 8192
_GROUP = re.compile(r"\[[^\]]*\]$")  # of a fused layer, whose input is that of the layer


class MeanInput(NamedTuple):
    """Of each module: figure 3 and the mean input.

    Attributes
    ----------
    first, second : squared cosine of the first direction of either A with the mean input
    isotropic : the same of an isotropic direction, 1 / d
    phi_11 : phi(1, 1) of the two
    without : the same after the mean input is projected out of the rows of both
    """

    first: list[float]
    second: list[float]
    isotropic: list[float]
    phi_11: list[float]
    without: list[float]


def read_inputs(plan: Plan) -> Inputs:
    """Return what the modules that a study adapts are given on the text that it trains on.

    Raises
    ------
    SubspaceError : the model or the data cannot be read
    """
    from subspace.analysis.inputs import inputs
    from subspace.training.data import load_examples

    examples = load_examples(plan.data)
    return inputs(plan.model, examples, targets=plan.targets(plan.run("r8")), tokens=_TOKENS, eigenpairs=1)


def mean_input(inputs: Inputs, first: Adapter, second: Adapter) -> MeanInput:
    """Return how much of two adapters' first directions is the mean input, in the modules that both have.

    Parameters
    ----------
    inputs : of the base, for the modules of the adapters
    first, second : of low rank
    """
    found = list(_modules(inputs, first, second))
    return MeanInput(*([each[n] for each in found] for n in range(5)))


def _modules(
    inputs: Inputs, first: Adapter, second: Adapter
) -> Iterator[tuple[float, float, float, float, float]]:
    for module in (name for name in first if name in second):
        moment = inputs.moment(_GROUP.sub("", module))
        factors = [_A(adapter, module) for adapter in (first, second)]
        if not np.any(moment.mean) or not all(np.any(A) for A in factors):
            continue
        one, other = (_first(A) for A in factors)
        mean = moment.mean / np.linalg.norm(moment.mean)
        along = [float(direction_inputs(v[:, None], [1.0], moment).along_mean[0]) for v in (one, other)]
        rest = [_first(A - np.outer(A @ mean, mean)) for A in factors]
        yield along[0], along[1], 1 / moment.d, float(one @ other) ** 2, float(rest[0] @ rest[1]) ** 2


def _A(adapter: Adapter, module: str) -> NDArray[np.float64]:
    update: Any = adapter[module]
    return np.asarray(update.A, dtype=np.float64)


def _first(A: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first right singular vector of a matrix."""
    return np.asarray(row_frame(A).vectors()[:, 0])
