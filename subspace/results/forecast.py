"""What to expect of the sum of several adapters before it is made: how their updates meet, per module and in total."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from subspace.flags import Flag
from subspace.results.cells import plain
from subspace.results.columns import column, row
from subspace.results.result import Row

__all__ = ["Forecast", "ModuleForecast", "PairForecast"]

_PHI = "||U_1.T U_2||_F^2 / min(k_1, k_2) of whole spans"


@row
class ModuleForecast(Row):
    """How the weighted updates of several adapters meet in one module, or in all of them.

    Updates are weight times scale times ``B A``. Of more than two adapters, cosines and overlaps are means over pairs.
    Levels "isotropic" are of independent isotropic directions with the same singular values; those of a control are of
    pairs of modules of these adapters whose jobs differ. Numbers of all modules together take the inner products of all
    of them; overlaps are means over modules, STI is their sum.
    """

    module: str = column("Name of the module")
    adapters: int = column("How many of the adapters change the module", place="record")
    energy_ratio: float | None = column(
        "||sum of updates||_F^2 / sum of ||update||_F^2: 1 orthogonal, above 1 reinforcing, below 1 cancelling",
        label="energy ratio",
        range="[0, adapters]",
        default=None,
    )
    energy_ratio_sd: float | None = column(
        "Standard deviation of energy_ratio around 1 for isotropic directions", place="record", default=None
    )
    cosine: float | None = column(
        "Signed cosine of two updates in the Frobenius inner product", range="[-1, 1]", default=None
    )
    cosine_sd: float | None = column(
        "Standard deviation of cosine around 0 for isotropic directions", place="record", default=None
    )
    cosine_strongest: float | None = column(
        "Cosine of the pair that has the largest absolute value",
        place="record",
        range="[-1, 1]",
        default=None,
    )
    norm_ratio: float | None = column(
        "Norm of the largest update over that of the smallest",
        label="norm ratio",
        range="[1, inf)",
        drop=1,
        default=None,
    )
    overlap: float | None = column(
        f"Mean of both sides of phi_full, {_PHI}", place="record", range="[0, 1]", default=None
    )
    overlap_control: float | None = column("Mean of both sides of the control", place="record", default=None)
    overlap_chance: float | None = column(
        "Mean of both sides for isotropic spans", place="record", default=None
    )
    overlap_left: float | None = column(
        f"phi_full of the directions that are written, {_PHI}",
        label="overlap left",
        range="[0, 1]",
        default=None,
    )
    overlap_left_control: float | None = column(
        "The same of pairs of modules of one kind in other layers", label="control left", drop=2, default=None
    )
    overlap_left_chance: float | None = column("The same of isotropic spans", place="record", default=None)
    overlap_left_most: float | None = column("The largest over pairs", place="record", default=None)
    overlap_right: float | None = column(
        f"phi_full of the directions that are read, {_PHI}",
        label="overlap right",
        range="[0, 1]",
        default=None,
    )
    overlap_right_control: float | None = column(
        "The same of pairs of modules that read the same input, or of one kind in other layers where none do",
        label="control right",
        drop=2,
        default=None,
    )
    overlap_right_chance: float | None = column("The same of isotropic spans", place="record", default=None)
    overlap_right_most: float | None = column("The largest over pairs", place="record", default=None)
    control_left: str | None = column("Kind of the control on the left: layers", place="record", default=None)
    control_right: str | None = column(
        "Kind of the control on the right: same_input or layers", place="record", default=None
    )
    sti: float | None = column(
        "Singular task interference: sum of |(U.T U - I) Sigma (V.T V - I)| over all entries (arXiv 2412.00081; the "
        "1-norm meant is that of entries)",
        label="STI",
        range="[0, inf)",
        default=None,
    )
    sti_random: float | None = column(
        "Mean STI of isotropic directions with the same singular values",
        label="STI random",
        drop=2,
        default=None,
    )
    sti_random_sd: float | None = column(
        "Standard deviation of STI over those draws", place="record", default=None
    )
    cosine_functional: float | None = column(
        "Signed cosine of the outputs of two updates on the measured inputs",
        label="cosine of outputs",
        range="[-1, 1]",
        absent=lambda row: row.cosine_functional is None,
        default=None,
    )
    cosine_functional_sd: float | None = column(
        "Standard deviation of cosine_functional around 0 where the directions that are written are isotropic",
        place="record",
        absent=lambda row: row.cosine_functional is None,
        default=None,
    )
    energy_ratio_functional: float | None = column(
        "The energy ratio of the outputs on the measured inputs",
        place="record",
        absent=lambda row: row.cosine_functional is None,
        default=None,
    )
    output_ratio: float | None = column(
        "Size (root mean square) of the largest of the updates' outputs on the measured inputs over the smallest",
        label="output ratio",
        range="[1, inf)",
        absent=lambda row: row.cosine_functional is None,
        default=None,
    )
    flags: tuple[Flag, ...] = column("What to know before reading the row, see the list of flags", default=())


@dataclass(frozen=True, kw_only=True)
class PairForecast:
    """How two of the adapters meet in all modules that both change; None where a number does not exist.

    Attributes
    ----------
    first, second : numbers of the adapters among those of the forecast
    cosine, cosine_functional : of all modules together, signed
    energy_ratio : of the sum of these two
    norm_ratio, output_ratio : norm of the second over that of the first; the same of their outputs on measured inputs
    overlap_left, overlap_right : phi_full, mean over modules
    overlap_left_control, overlap_right_control : of the matched controls, mean over modules
    overlap_left_chance, overlap_right_chance : of isotropic spans, mean over modules
    """

    first: int
    second: int
    cosine: float | None
    cosine_functional: float | None
    energy_ratio: float | None
    norm_ratio: float | None
    output_ratio: float | None
    overlap_left: float | None
    overlap_right: float | None
    overlap_left_control: float | None
    overlap_right_control: float | None
    overlap_left_chance: float | None
    overlap_right_chance: float | None


@dataclass(frozen=True, eq=False)
class Forecast:
    """What to expect of the sum of several adapters.

    Attributes
    ----------
    paths : of the adapters
    weights : of each
    total : all modules together; its `module` is "all modules"
    modules : one row per module, in natural order
    pairs : one row per pair of adapters, of all modules together
    notes : what to know before reading the numbers
    """

    paths: tuple[str, ...]
    weights: tuple[float, ...]
    total: ModuleForecast
    modules: tuple[ModuleForecast, ...]
    pairs: tuple[PairForecast, ...]
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the object that a JSON document holds of it, without its modules."""
        total = {key: value for key, value in self.total.document().items() if key != "module"}
        pairs = [
            {**asdict(pair), "first": self.paths[pair.first], "second": self.paths[pair.second]}
            for pair in self.pairs
        ]
        found: dict[str, Any] = plain({**total, "weights": list(self.weights), "pairs": pairs})
        return found
