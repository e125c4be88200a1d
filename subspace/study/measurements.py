"""What is measured on the adapters of a study, by the same functions that a user calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters import load_adapter
from subspace.analysis.amplify import amplify
from subspace.analysis.compare import compare
from subspace.checkpoints.peft_files import factor_keys
from subspace.study.plan import Plan, base_folder
from subspace.study.study_folder import run_record

if TYPE_CHECKING:
    from subspace.adapters import Adapter
    from subspace.results.amplification import Amplification, ModuleAmplification
    from subspace.results.comparison import Comparison
    from subspace.results.module_comparison import ModuleComparison

__all__ = ["Measures", "measured", "random_pair"]

_SIDES = ("a", "b")


@dataclass(frozen=True, eq=False)
class Measures:
    """Everything that figures, tables and findings are computed from.

    Attributes
    ----------
    plan : of the study
    runs : content of each run's ``run.json``, by the run's name
    ranks : r = 8 against r = 64, sides A and B, with the starts kept and removed
    seeds : r = 64 against r = 64 of another seed, in the same ways
    random : two random Gaussian matrices per module, of the shapes of `seeds`
    against_base : W against each adapter (figure 8), by the run's name
    amplified : table 7, by the run's name
    """

    plan: Plan
    runs: Mapping[str, Mapping[str, Any]]
    ranks: Comparison
    seeds: Comparison
    random: Comparison
    against_base: Mapping[str, Comparison]
    amplified: Mapping[str, Amplification]

    def kind(self, module: str) -> tuple[str, str]:
        """Return which projection a module is ("q", "k", "v", "o" or ""), and the rest of its name, its layer."""
        for letter, name in vars(self.plan.names).items():
            if module == name or module.endswith(f".{name}"):
                return letter, module.removesuffix(name)
        return "", module

    def gain(self, run: str) -> float | None:
        """Return by how many nats a run lowered the held-out loss; None where that is not known."""
        held_out = self.runs[run].get("held_out") or {}
        before, after = (held_out.get(when, {}).get("loss") for when in ("before", "after"))
        return None if before is None or after is None else before - after


def rows_of(comparison: Comparison, side: str = "a", init: str = "kept") -> list[ModuleComparison]:
    """Return the rows of one side that have a score."""
    return [row for row in comparison.modules if (row.side, row.init) == (side, init) and row.phi.size]


def ranked(amplified: Amplification) -> Iterator[tuple[ModuleAmplification, Any]]:
    """Yield the modules that have a factor, each with its row at the adapter's own rank."""
    for module in amplified.modules:
        if module.ranks:
            yield module, module.ranks[-1]


def measured(plan: Plan, folder: Path, *, progress: Callable[[int, int], None] | None = None) -> Measures:
    """Return what is measured on the trained adapters of a plan.

    Parameters
    ----------
    plan : whose runs are done
    folder : of the runs
    progress : called with (measures done, measures in all)

    Raises
    ------
    SubspaceError : an adapter cannot be read, or is untrained
    """
    tables = {
        run.name: _adapter(plan, run.name, folder)
        for run in plan.runs
        if run.weights == "qv" and run.rank > 1
    }
    base, done, total = base_folder(plan.model), 0, 3 + 2 * len(tables)

    def tick(result: Any) -> Any:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)
        return result

    def compared(first: str, second: str) -> Comparison:
        sides = [_adapter(plan, name, folder) for name in (first, second)]
        starts = [_adapter(plan, name, folder, start=True) for name in (first, second)]
        return compare(*sides, side=_SIDES, init=tuple(starts))

    seeds = tick(compared("r64", "r64-seed1"))
    return Measures(
        plan=plan,
        runs={run.name: run_record(folder / run.name) for run in plan.runs},
        ranks=tick(compared("r8", "r64")),
        seeds=seeds,
        random=tick(compare(*random_pair(seeds))),
        against_base={name: tick(compare(base, adapter)) for name, adapter in tables.items()},
        amplified={name: tick(amplify(base, adapter)) for name, adapter in tables.items()},
    )


def _adapter(plan: Plan, name: str, folder: Path, *, start: bool = False) -> Path | Adapter:
    """The adapter of a run, or its start; of a fused layer its groups, with the scale that loralib's format lacks."""
    run = next(run for run in plan.runs if run.name == name)
    path = folder / name / "start" if start else folder / name
    groups = plan.groups(run)
    if groups is None:
        return path
    return load_adapter(path, scale=plan.recipe.alpha / run.rank, enable_lora=groups)


def random_pair(seeds: Comparison, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two adapters of random Gaussian numbers with the modules, ranks and dimensions of a comparison.

    References
    ----------
    Hu et al., arXiv 2106.09685v2, figure 4, right.
    """
    rng = np.random.default_rng(seed)
    pair: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    d_out = {row.module: row.d for row in rows_of(seeds, "b")}
    for row in rows_of(seeds):
        for tensors, r in zip(pair, (row.r_first, row.r_second), strict=True):
            a, b = factor_keys(row.module)
            tensors[a] = rng.standard_normal((r, row.d))
            tensors[b] = rng.standard_normal((d_out.get(row.module, row.d), r))
    return pair
