"""The result of `spectrum`: how many directions each module uses, and what rank is advised."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from subspace.errors import InconclusiveError
from subspace.flags import Flag
from subspace.results.columns import Column, column, derived, row
from subspace.results.result import Result, Row
from subspace.results.tested_ranks import MeasuredRanks
from subspace.text import counted, listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ModuleSpectrum", "Spectrum"]

_PLAIN = re.compile(r"[\w.]+", re.ASCII)
_BASE = frozenset({"sigma_over_W", "norm_over_W", "above_W"})


@row
class ModuleSpectrum(Row):
    """The singular values of one module's delta_W, counted; a number that does not exist is None, with a flag."""

    module: str = column("Name of the module")
    r: int = column("Declared rank r; of a dense delta_W the largest that its shape allows")
    d_in: int = column("Columns of delta_W", place="record", default=0)
    d_out: int = column("Rows of delta_W", place="record", default=0)
    scale: float | None = column(
        "Factor between B A and delta_W; None where the file does not say it", place="record", default=None
    )
    norm_delta_W: float | None = column(
        "Frobenius norm of delta_W, the scale included", label="norm ΔW", drop=8, default=None
    )
    sigma: np.ndarray = column(
        "Singular values of delta_W above rounding, descending; of B A where the scale is unknown",
        place="json",
        default_factory=lambda: np.zeros(0),
    )
    rank: int | None = column("Numerical rank of delta_W", default=None)
    stable_rank: float | None = column(
        "Stable rank, ||delta_W||_F^2 / ||delta_W||_2^2", label="stable rank", drop=9, default=None
    )
    entropy_rank: float | None = column(
        "Exponential of the entropy of the normalised singular values (Roy & Vetterli 2007)",
        label="entropy rank",
        drop=10,
        default=None,
    )
    participation: float | None = column(
        "Participation ratio, (sum sigma^2)^2 / sum sigma^4", drop=11, default=None
    )
    energy_rank: Mapping[str, int | None] = column(
        "Least number of directions that hold this share of ||delta_W||_F^2",
        place="record",
        default_factory=lambda: dict.fromkeys(("0.9", "0.95", "0.99")),
    )

    @property
    @derived(label="95 % energy")
    def energy_95(self) -> int | None:
        """Least number of directions that hold 95 % of ||delta_W||_F^2."""
        return self.energy_rank.get("0.95")

    knee: int | None = column(
        "Number of directions before the knee of log sigma: the point farthest below the chord from the first to the "
        "last, by at least a quarter of the drop; None where there is no knee",
        default=None,
    )
    gavish_donoho: int | None = column(
        "Number of singular values above the optimal hard threshold for noise of unknown strength (Gavish & Donoho "
        "2014): the median of the r values is taken for noise, so at least half of them are cut",
        label="Gavish-Donoho",
        default=None,
    )
    null: str = column(
        "What above_random is counted against: random factors, random B, or a random matrix, of the same norms and "
        "shapes",
        place="record",
        default="",
    )
    random_sigma: float | None = column(
        "What the largest singular value of that random update exceeds in 5 % of draws",
        place="record",
        default=None,
    )
    above_random: int | None = column(
        "Number of singular values above random_sigma", label="above random", default=None
    )
    base_key: str | None = column(
        "Name of the base weight in its file",
        place="record",
        absent=lambda row: row.base_key is None,
        default=None,
    )
    norm_over_W: float | None = column("||delta_W||_F / ||W||_F", label="norm ΔW / W", default=None)
    sigma_over_W: float | None = column(
        "Largest singular value of delta_W over that of W", label="σ1 ΔW / W", default=None
    )
    above_W: int | None = column(
        "Number of singular values of delta_W above W's of the number in W_index",
        label="above W",
        default=None,
    )
    sigma_W: np.ndarray | None = column(
        "Leading singular values of W, descending; all but the first are lower bounds",
        place="json",
        absent=lambda row: row.sigma_W is None,
        default=None,
    )
    W_index: int | None = column(
        "Which singular value of W, from 1, above_W is counted against: the rank of delta_W, 256 at most",
        place="record",
        default=None,
    )
    advised_rank: int | None = column(
        "Rank that the chosen rule advises, at least 1", label="advised", default=None
    )
    why: str = column("Why that rank, in words", place="record", default="")
    flags: tuple[Flag, ...] = column("What to know before reading the row, see the list of flags", default=())


@dataclass(frozen=True, eq=False)
class Spectrum(Result[ModuleSpectrum]):
    """How many directions each module of an adapter uses, and what rank is advised.

    Attributes
    ----------
    path : of the adapter
    base : of the base weights, None without
    rule : by which ranks are advised, such as "energy 0.95" or "tested"
    modules : one row per module
    evaluated : what the candidate ranks did to the held-out loss, None where nothing was tested
    missing : modules that the base does not have
    notes : what to know before reading the numbers
    """

    SCHEMA: ClassVar[str] = "subspace.spectrum/1"
    ROW: ClassVar[type[Row]] = ModuleSpectrum

    path: str
    rule: str
    modules: tuple[ModuleSpectrum, ...]
    base: str | None = None
    evaluated: MeasuredRanks | None = None
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Spectrum of {counted(len(self.modules), 'module')}: {self.headline()}>"

    def document(self) -> dict[str, Any]:
        """Return the JSON document ``subspace.spectrum/1``."""
        return {
            "schema": self.SCHEMA,
            "path": self.path,
            "base": self.base,
            "headline": self.headline(),
            "rule": self.rule,
            "modules": [each.document() for each in self.modules],
            "evaluated": None if self.evaluated is None else self.evaluated.document(),
            "missing": list(self.missing),
            "notes": list(self.notes),
        }

    def table_columns(self) -> list[Column]:
        """Return the columns of the short table, those of the base only where there is one."""
        return [each for each in super().table_columns() if self.base is not None or each.name not in _BASE]

    def ranks(self) -> dict[str, int]:
        """Return module -> rank advised, 1 for an untrained one; a module with numbers that are not finite has none."""
        return {
            each.module: each.advised_rank or 1
            for each in self.modules
            if each.advised_rank or Flag.UNTRAINED in each.flags
        }

    def rank_pattern(self) -> dict[str, int]:
        """Return the ranks as `truncate` takes them as `ranks`, and PEFT as rank_pattern: pattern -> rank.

        Patterns are names of modules, and anchored where a name would match the end of another.
        """
        from subspace.adapters.naming.peft_patterns import Patterns

        ranks = self.ranks()
        if all(_PLAIN.fullmatch(name) for name in ranks):
            found = Patterns(ranks, where="ranks")
            if all(found.match(name) == rank for name, rank in ranks.items()):
                return ranks
        return {f"^{re.escape(name)}$": rank for name, rank in ranks.items()}

    def peft_config(self) -> dict[str, Any]:
        """Return fields of a PEFT LoraConfig that train the same modules at these ranks, under the same scales.

        Raises
        ------
        InconclusiveError : a scale is unknown
        """
        from subspace.adapters.layer import alpha_of
        from subspace.adapters.writers._rank_patterns import patterns_for

        ranks = self.ranks()
        scales = {each.module: each.scale for each in self.modules if each.module in ranks}
        unknown = [module for module, scale in scales.items() if scale is None]
        if unknown:
            raise InconclusiveError(
                f"The scale of delta_W is unknown, in {listed(unknown)}, so there is no lora_alpha that keeps it; give "
                "`scale`"
            )
        alphas = {
            module: alpha_of(scale or 0.0, ranks[module], rslora=False) for module, scale in scales.items()
        }
        r, rank_pattern = patterns_for(ranks)
        alpha, alpha_pattern = patterns_for(alphas)
        return {
            "r": r,
            "lora_alpha": alpha,
            "rank_pattern": rank_pattern,
            "alpha_pattern": alpha_pattern,
            "use_rslora": False,
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the singular values of every module with the ranks advised and return the axes."""
        from subspace.plots import rank_map

        return rank_map(self, ax=ax)

    def headline(self) -> str:
        """Return how many directions half of the modules need, what the test found, and what is advised."""
        return " ".join(self.facts())

    def facts(self) -> tuple[str, ...]:
        """Return the sentences of the headline, each of which stands alone."""
        rows = [each for each in self.modules if each.energy_95 is not None]
        if not rows:
            return ("No module has a spectrum.",)
        tested = () if self.evaluated is None else self.evaluated.facts()
        return (
            _energy_fact(rows, len(self)),
            *tested,
            f"Ranks are advised by the rule {self.rule}: {_advice(rows)}.",
        )


def _energy_fact(rows: list[ModuleSpectrum], total: int) -> str:
    needed = _median([each.energy_95 for each in rows if each.energy_95 is not None])
    of = {each.r for each in rows}
    at = f"r = {min(of)}" if len(of) == 1 else f"r = {min(of)} to {max(of)}"
    one = "the module needs" if total == 1 else "the one module that is trained needs"
    who = one if len(rows) == 1 else "half of the modules need no more than"
    random = [each.above_random for each in rows if each.above_random is not None]
    above = ""
    if random:
        count = _median(random)
        typical = "" if len(random) == 1 else " in the median module"
        above = f"; {count} {'stands' if count == 1 else 'stand'} above random {_kind(rows)} of the same size{typical}"
    return f"At {at}, {who} {counted(needed, 'direction')} for 95 % of ||delta_W||^2{above}."


def _kind(rows: list[ModuleSpectrum]) -> str:
    kinds = {each.null.removeprefix("random ") for each in rows if each.null}
    return kinds.pop() if len(kinds) == 1 else "updates"


def _median(counts: list[int]) -> int:
    """The least of the counts that half of them do not exceed."""
    return sorted(counts)[(len(counts) - 1) // 2]


def _advice(rows: list[ModuleSpectrum]) -> str:
    ranks = [each.advised_rank for each in rows if each.advised_rank is not None]
    whole = sum(each.rank or 0 for each in rows)
    low, high = min(ranks), max(ranks)
    extent = str(low) if low == high else f"{low} to {high}"
    return f"{extent}, {sum(ranks)} of {whole} directions in all"
