"""Which adapters a study trains, and how."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from subspace.errors import InconclusiveError, ValueRangeError
from subspace.text import listed, shown

__all__ = [
    "BUDGET",
    "EMBEDDED",
    "RANKS",
    "Plan",
    "Projections",
    "Recipe",
    "Run",
    "base_folder",
    "planned",
    "projections",
]

EMBEDDED = "embedded"
DEFAULT_STEPS = 200  # the embedded base has learned most of what it can; 30 s on one core

# names of q, k, v and o in families of models
_FAMILIES = (
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    ("q_proj", "k_proj", "v_proj", "out_proj"),
    ("query", "key", "value", "attention.output.dense"),
    ("q_lin", "k_lin", "v_lin", "out_lin"),
    ("query_proj", "key_proj", "value_proj", "attention.output.dense"),
    ("q", "k", "v", "o"),
    ("c_attn[q]", "c_attn[k]", "c_attn[v]", "attn.c_proj"),
)
_FUSED = ".c_attn"  # GPT-2 and its relatives: q, k and v one above another


@dataclass(frozen=True)
class Recipe:
    """How every run of a study is trained.

    Attributes
    ----------
    steps : number of optimiser steps
    batch : windows per step
    length : tokens per window
    lr : peak learning rate
    alpha : delta_W = alpha / r * B A, the same for every rank
    """

    steps: int
    batch: int = 16
    length: int = 128
    lr: float = 3e-3
    alpha: float = 16.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueRangeError(f"Invalid `steps` {self.steps}: it must be at least 1")


@dataclass(frozen=True)
class Projections:
    """Ends of the names of a model's attention projections; ``c_attn[q]`` is the first third of a fused layer."""

    q: str
    k: str
    v: str
    o: str


@dataclass(frozen=True)
class Run:
    """One adapter to train.

    Attributes
    ----------
    name : name of its folder
    rank : LoRA rank r
    seed : seed of its start and of the order of its data
    weights : the projections that it adapts, such as "qv"
    """

    name: str
    rank: int
    seed: int = 0
    weights: str = "qv"


@dataclass(frozen=True)
class Plan:
    """What a study trains, and on what.

    Attributes
    ----------
    model : "embedded", or a model as ``subspace train`` takes it
    data : a path as ``subspace train`` takes it; None: Python's own help topics
    recipe : how every run is trained
    names : names of the model's projections
    full : whether tables 5 and 6 are made too
    """

    model: str
    data: str | None
    recipe: Recipe
    names: Projections
    full: bool = False

    @property
    def fused(self) -> bool:
        """Whether q, k and v are groups of one layer."""
        return self.names.q.endswith("[q]")

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs: three for the figures and table 7, and for the full study those of tables 5 and 6.

        Groups of a fused layer cannot be adapted together with another layer: the last run of table 5 is left out then.
        """
        runs = (*_MAIN, *(_FULL if self.full else ()))
        return tuple(run for run in runs if not self.fused or run.weights == "o" or "o" not in run.weights)

    @property
    def budget(self) -> tuple[str, ...]:
        """Names of the runs of table 5."""
        return tuple(name for name in BUDGET if any(run.name == name for run in self.runs))

    @property
    def lowest(self) -> Run:
        """The run whose amplification stands for the paper's r = 4."""
        return next((run for run in self.runs if run.rank == 4 and run.weights == "qv"), _MAIN[0])

    def targets(self, run: Run) -> tuple[str, ...]:
        """Return the ends of the names of the layers that a run adapts."""
        names = (getattr(self.names, letter).partition("[")[0] for letter in run.weights)
        return tuple(dict.fromkeys(names))

    def groups(self, run: Run) -> tuple[bool, ...] | None:
        """Return which groups of a fused layer a run adapts, None where the layers are whole."""
        return tuple(letter in run.weights for letter in "qkv") if self.fused and run.weights != "o" else None

    def settings(self) -> dict[str, object]:
        """Return everything that must be the same for a study to go on, as plain values by name."""
        return {"model": self.model, "data": self.data, **vars(self.recipe), "names": vars(self.names)}


_MAIN = (Run("r8", 8), Run("r64", 64), Run("r64-seed1", 64, seed=1))
_FULL = (
    *(Run(f"r{rank}", rank) for rank in (1, 2, 4)),  # table 6; r4 is table 5's q and v too
    *(Run(f"{weight}-r8", 8, weights=weight) for weight in "qkvo"),
    Run("qk-r4", 4, weights="qk"),
    Run("qkvo-r2", 2, weights="qkvo"),
)

BUDGET = ("q-r8", "k-r8", "v-r8", "o-r8", "qk-r4", "r4", "qkvo-r2")
RANKS = ("r1", "r2", "r4", "r8", "r64")


def planned(
    model: str = EMBEDDED, data: str | None = None, *, full: bool = False, steps: int | None = None
) -> Plan:
    """Return the plan of a study.

    Parameters
    ----------
    model, data : as ``subspace train`` takes them
    full : make tables 5 and 6 too
    steps : optimiser steps of every run; by default as many as the embedded base needs

    Raises
    ------
    SubspaceError : there is no such model
    InconclusiveError : the model's query and value projections are not known, or too narrow

    Examples
    --------
    >>> [run.name for run in planned().runs]
    ['r8', 'r64', 'r64-seed1']
    """
    recipe = Recipe(DEFAULT_STEPS if steps is None else steps)
    modules = _modules(model)
    plan = Plan(model, data, recipe, projections(modules, model), full)
    _require_room(plan, modules)
    return plan


def _require_room(plan: Plan, modules: Mapping[str, int]) -> None:
    """Refuse a model with a projection that is smaller than the rank it is to be given."""
    for run in plan.runs:
        for letter in run.weights:
            end = getattr(plan.names, letter)
            small = {m: d for m, d in modules.items() if (m == end or m.endswith(f".{end}")) and d < run.rank}
            for module, d in small.items():
                raise InconclusiveError(
                    f"The model {shown(plan.model)} is too narrow: {shown(module)} has dimension {d}, and the study "
                    f"trains r = {run.rank}; choose a wider model"
                )


def base_folder(model: str) -> Path:
    """Return the directory of a model's weights.

    Raises
    ------
    FileError : there is no such model
    """
    if model == EMBEDDED:
        from subspace.training.embedded import FOLDER

        return FOLDER
    from subspace.training.models.model_directory import directory_of

    return directory_of(model)


def _modules(model: str) -> dict[str, int]:
    """The base's modules with their smaller dimension, of a fused q, k, v each third by its own."""
    from subspace.adapters import load_base

    base = load_base(base_folder(model))
    found: dict[str, int] = {}
    for name, key in base.modules.items():
        shape = base.tensors.layout[key].shape
        fused = name.endswith(_FUSED) and len(shape) == 2 and max(shape) == 3 * min(shape)
        for part in [f"{name}[{letter}]" for letter in "qkv"] if fused else [name]:
            found[part] = min(shape, default=0)
    return found


def projections(modules: Iterable[str], model: str) -> Projections:
    """Return the names of a model's projections: those of the first family of which it has all four.

    Raises
    ------
    InconclusiveError : it has none

    Examples
    --------
    >>> projections(["layer.0.query", "layer.0.key", "layer.0.value", "layer.0.attention.output.dense"], "bert").v
    'value'
    """
    known = list(modules)
    for family in _FAMILIES:
        ends = [re.compile(rf"(?:^|\.){re.escape(name)}$") for name in family]
        if all(any(end.search(module) for module in known) for end in ends):
            return Projections(*family)
    raise InconclusiveError(
        f"The projections of {shown(model)} are not known: a study needs a model whose q, k, v and o are layers of "
        f"their own, or a GPT-2, with names such as {'; '.join(', '.join(family) for family in _FAMILIES)}, and it has "
        f"{listed(known)}; choose another model"
    )
