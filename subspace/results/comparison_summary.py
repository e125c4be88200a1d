"""What a comparison says of two adapters as wholes: the size of the effect, the start, and what the layers show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from subspace.results.nulls import ISOTROPIC

__all__ = ["ReferenceTest", "Relation", "SideSummary", "Start", "WholeUpdate"]

Start: TypeAlias = Literal["common", "different", "cannot_tell"]
Relation: TypeAlias = Literal["same_adapter", "same_run", "common_start"]


@dataclass(frozen=True)
class WholeUpdate:
    """All compared modules together, each update with its scale.

    Attributes
    ----------
    cosine : signed cosine of the two whole updates, in [-1, 1]
    cosine_isotropic_sd : its standard deviation for isotropic random updates, whose mean is 0
    energy_first_in_second : share of the squared norm of the first that lies inside both spans of the second
    energy_first_in_second_isotropic : its mean for isotropic random spans
    energy_second_in_first, energy_second_in_first_isotropic : the same of the second in the first
    null : what the levels are of
    cosine_functional : signed cosine of the outputs of the two on the inputs of their modules; None without inputs
    """

    cosine: float
    cosine_isotropic_sd: float
    energy_first_in_second: float | None
    energy_first_in_second_isotropic: float | None
    energy_second_in_first: float | None
    energy_second_in_first_isotropic: float | None
    null: str = ISOTROPIC
    cosine_functional: float | None = None


@dataclass(frozen=True)
class SideSummary:
    """One side of all modules.

    Attributes
    ----------
    start : of side a, whether the two runs began from one random start: "common", "different" or "cannot_tell"; None on
        the other sides
    start_z : alignment of the rows of both A's over all modules, in standard deviations over row permutations
    layers_p : p-value of the mean phi(1, 1) of equal layers against permuted ones; it says that the module matters,
        never that the tasks are alike
    layers_p_floor : the least p-value that so many layers can give
    """

    start: Start | None = None
    start_z: float | None = None
    layers_p: float | None = None
    layers_p_floor: float | None = None


@dataclass(frozen=True)
class ReferenceTest:
    """One measure of the pair against the same measure of reference adapters, those of other tasks on one base.

    Attributes
    ----------
    measure : "cosine", "phi_11_a" or "phi_11_b", of all modules together
    value : of the two adapters
    first_with_controls, second_with_controls : of the first and of the second adapter with each reference adapter
    p : the larger of both p-values (1 + number at least as similar) / (n + 1), the second adapter exchanged for the
        reference adapters and the first
    p_floor : the least value of p, 1 / (n + 1)
    p_permuted : share of all pairs among the n + 2 adapters that are at least as similar as this one
    p_permuted_floor : the least value of p_permuted
    null : "reference adapters"
    """

    measure: str
    value: float
    first_with_controls: tuple[float, ...]
    second_with_controls: tuple[float, ...]
    p: float
    p_floor: float
    p_permuted: float
    p_permuted_floor: float
    null: str = "reference adapters"
