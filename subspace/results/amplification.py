"""The result of `amplify`: table 7 of the LoRA paper, per module and rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.flags import Flag
from subspace.results.result import Result, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Amplification", "ModuleAmplification", "RankAmplification"]


@dataclass(frozen=True)
class RankAmplification:
    """One column group of table 7.

    Attributes
    ----------
    r : how many directions
    proj_delta_W : ||U_r^T W V_r||_F with delta_W's top r directions
    proj_W : the same with W's own, the root of the sum of its top r squared singular values
    proj_W_error : its estimated relative error (0 where W was factored in full)
    proj_random : root mean square over random frames, exact
    proj_random_sd : its spread from one random pair of frames to the next
    amplification : ||delta_W||_F / proj_delta_W; None without a scale
    over_random : proj_delta_W / proj_random
    """

    r: int
    proj_delta_W: float | None
    proj_W: float
    proj_W_error: float
    proj_random: float
    proj_random_sd: float
    amplification: float | None
    over_random: float | None


@dataclass(frozen=True, eq=False)
class ModuleAmplification:
    """Table 7 of one module: norms, and one `RankAmplification` per rank.

    `norm_whole` is of DoRA's whole change, magnitudes included; None of any other update.
    """

    module: str
    d_out: int
    d_in: int
    scale: float | None
    scale_source: str
    norm_W: float
    norm_delta_W: float | None
    ranks: tuple[RankAmplification, ...]
    base_key: str
    orientation: str
    flags: tuple[Flag, ...] = ()
    norm_whole: float | None = None

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat dictionary per rank."""
        names = [
            "module",
            "d_out",
            "d_in",
            "scale",
            "scale_source",
            "norm_W",
            "norm_delta_W",
            "base_key",
            "orientation",
        ]
        head = {name: getattr(self, name) for name in names}
        if Flag.DORA in self.flags:
            head["norm_whole"] = self.norm_whole
        return [plain({**head, **vars(rank), "flags": ";".join(self.flags)}) for rank in self.ranks]


@dataclass(frozen=True, eq=False)
class Amplification(Result):
    """Table 7 for every module of an adapter that its base has."""

    base: str
    delta: str
    modules: tuple[ModuleAmplification, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Amplification of {len(self.modules)} modules: {self.headline()}>"

    def records(self) -> list[dict[str, Any]]:
        """Return one flat dictionary per module and rank."""
        return [row for module in self.modules for row in module.rows()]

    def columns(self) -> list[str]:
        """Columns of the short table."""
        return [
            "module",
            "r",
            "norm_W",
            "norm_delta_W",
            "proj_delta_W",
            "proj_W",
            "proj_W_error",
            "proj_random",
            "proj_random_sd",
            "over_random",
            "amplification",
            "flags",
        ]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the projections of W at each module's largest rank, beside W's own and random ones; return the axes."""
        from subspace.plots import projections

        return projections(self, ax=ax)

    def headline(self) -> str:
        """Return the median factor and the median projection over random, at the largest rank asked for."""
        last = [module.ranks[-1] for module in self.modules if module.ranks]
        over = [rank.over_random for rank in last if rank.over_random is not None]
        factors = [rank.amplification for rank in last if rank.amplification is not None]
        if not over:
            return "No module has an amplification factor."
        told = f"the directions of delta_W carry {np.median(over):.3g} times as much of W as random ones (median)"
        if factors:
            told = f"amplification {np.median(factors):.3g} (median of {len(factors)} modules); {told}"
        else:
            told = f"amplification unknown, since the scale is; {told}"
        return f"At r = {_range([rank.r for rank in last])}: {told}."


def _range(ranks: list[int]) -> str:
    low, high = min(ranks), max(ranks)
    return str(low) if low == high else f"{low}..{high}"
