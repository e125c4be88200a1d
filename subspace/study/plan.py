"""Which adapters a study trains, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from subspace.errors import InconclusiveError, ValueRangeError
from subspace.study import other_code
from subspace.study.projections import Projections, projections
from subspace.study.runs import BARELY, BARELY_TABLES, BUDGET, DOSE, MAIN, SCRAMBLED, TABLES, Run
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.training.job import Job

__all__ = ["BARELY_STEPS", "DEFAULT_STEPS", "EMBEDDED", "Plan", "Recipe", "base_folder", "planned"]

EMBEDDED = "embedded"
# the figures and verdicts are those of 200 steps of 16 x 128 tokens, for a quarter of the time
DEFAULT_STEPS = 150
BARELY_STEPS = 4

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
    batch: int = 8
    length: int = 64
    lr: float = 3e-3
    alpha: float = 16.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueRangeError(f"Invalid `steps` {self.steps}: it must be at least 1")


@dataclass(frozen=True)
class Plan:
    """What a study trains, and on what.

    Attributes
    ----------
    model : "embedded", or a model as ``subspace train`` takes it
    data : a path as ``subspace train`` takes it; None: Python's own help topics
    recipe : how every run is trained
    names : names of the model's projections
    full : whether tables 5 and 6, and dose and response, are made too
    headers : whether there are C headers on this machine to train on as another text
    """

    model: str
    data: str | None
    recipe: Recipe
    names: Projections
    full: bool = False
    headers: bool = False

    paper: ClassVar[str] = "lora"

    @property
    def fused(self) -> bool:
        """Whether q, k and v are groups of one layer."""
        return self.names.q.endswith("[q]")

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs: those of the figures and table 7 with their controls; of a full study also all others.

        Groups of a fused layer cannot be adapted together with another layer: the last run of table 5 is left out then.
        """
        runs = (*MAIN, *SCRAMBLED, *BARELY, *((*TABLES, *DOSE, *BARELY_TABLES) if self.full else ()))
        kept = (run for run in runs if not self.fused or run.weights == "o" or "o" not in run.weights)
        return tuple(run for run in kept if self.headers or run.text != "c-headers")

    def run(self, name: str) -> Run:
        """Return the run of that name."""
        return next(run for run in self.runs if run.name == name)

    def has(self, name: str) -> bool:
        """Return whether a run of that name is trained."""
        return any(run.name == name for run in self.runs)

    def steps(self, run: Run) -> int:
        """Return how many steps a run has."""
        return min(BARELY_STEPS, self.recipe.steps) if run.barely else self.recipe.steps

    def batch(self, run: Run) -> int:
        """Return how many windows a step of a run has."""
        return max(1, self.recipe.batch // 2) if run.light else self.recipe.batch

    def text(self, run: Run, folder: Path) -> str | None:
        """Return what a run is trained on, as ``subspace train --data`` takes it; `folder` is the study's."""
        if not run.text:
            return self.data
        if run.text == "c-headers":
            return str(folder / other_code.NAME)
        return run.text if self.data is None else f"{run.text}:{self.data}"

    @property
    def budget(self) -> tuple[str, ...]:
        """Names of the runs of table 5."""
        return tuple(name for name in BUDGET if self.has(name))

    @property
    def lowest(self) -> Run:
        """The run whose amplification stands for the paper's r = 4."""
        return self.run("r4" if self.has("r4") else "r8")

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

    def job(self, run: Run, folder: Path) -> Job:
        """Return the training job of a run; `folder` is the study's."""
        from subspace.training.job import Job
        from subspace.training.methods.lora import LoRA
        from subspace.training.recipe import Recipe as Training

        groups, how = self.groups(run), self.recipe
        return Job(
            model=self.model,
            data=self.text(run, folder),
            method=LoRA(r=run.rank, alpha=how.alpha, seed=run.seed, groups=groups),
            targets=self.targets(run),
            recipe=Training(
                steps=self.steps(run),
                batch=self.batch(run),
                length=how.length,
                lr=how.lr,
                seed=run.seed,
                data_seed=run.seed,
                held_out=Training.held_out if run.held_out else 0.0,
            ),
            # loralib's format keeps the groups of a fused layer apart, which PEFT's does not
            format="loralib" if groups else "peft",
            threads=1,
            accounts=False,
        )

    def prepare(self, folder: Path) -> None:
        """Write the text of C headers, where a run is trained on it."""
        if self.headers:
            other_code.write(folder)

    def words(self) -> list[str]:
        """Return the words of the command that makes the study, after ``subspace reproduce``, without its folder."""
        words = ["--model", self.model] if self.model != EMBEDDED else []
        words += ["--data", self.data] if self.data is not None else []
        words += ["--steps", str(self.recipe.steps)] if self.recipe.steps != DEFAULT_STEPS else []
        return [*words, *(["--full"] if self.full else [])]


def planned(
    model: str = EMBEDDED, data: str | None = None, *, full: bool = False, steps: int | None = None
) -> Plan:
    """Return the plan of a study.

    Parameters
    ----------
    model, data : as ``subspace train`` takes them
    full : make tables 5 and 6, and dose and response, too
    steps : optimiser steps of every run; by default as many as the embedded base needs

    Raises
    ------
    SubspaceError : there is no such model
    InconclusiveError : the model's query and value projections are not known, or too narrow

    Examples
    --------
    >>> [run.name for run in planned().runs][:5]
    ['r8', 'r64', 'r64-seed1', 'scrambled-r64', 'scrambled-r8']
    """
    recipe = Recipe(DEFAULT_STEPS if steps is None else steps)
    modules = _modules(model)
    # other code is another text only where the text is documentation of code
    headers = full and data is None and other_code.found()
    plan = Plan(model, data, recipe, projections(modules, model), full, headers)
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
