"""What is measured on the runs: intruder dimensions, the loss on the task, and the loss on the text of pre-training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters import Adapter, load_adapter, load_base
from subspace.adapters.update import Factor, LowRankUpdate, Scale, Update
from subspace.analysis.evaluate import evaluate
from subspace.study.papers.intruders._planned import RATES, method_of
from subspace.study.papers.intruders._spectra import EPSILON, Base, Leading, random_update
from subspace.study.plan import base_folder
from subspace.study.study_folder import run_record

if TYPE_CHECKING:
    from subspace.results.evaluation import Evaluation, MeasuredUpdate
    from subspace.study.tuned_plan import TunedPlan, TunedRun

__all__ = ["LAMBDAS", "Effect", "Loss", "Measures", "Mitigation", "measured"]

LAMBDAS = (0.9, 0.7, 0.5, 0.3, 0.0)
WINDOWS = 64  # of each text
_AT_ONCE = 4  # runs that are evaluated together, so that the base is not evaluated with each
_TASK, _TEXT = "task", "pretraining"


@dataclass(frozen=True)
class Loss:
    """A loss, and its difference from a reference with the 95 % interval of a paired bootstrap; in nats."""

    loss: float
    difference: float
    low: float
    high: float

    @classmethod
    def of(cls, row: MeasuredUpdate) -> Loss:
        """Return that of a row of an evaluation; the reference itself has the difference 0."""
        given = (row.loss_difference, row.loss_low, row.loss_high)
        return cls(row.loss, *(0.0 if each is None else each for each in given))


@dataclass(frozen=True, eq=False)
class Effect:
    """What one update does to the matrices and to the losses.

    Attributes
    ----------
    matrices : what each looks like
    task, pretraining : losses, with the difference from the base
    """

    matrices: tuple[Leading, ...]
    task: Loss
    pretraining: Loss

    def intruders(self, epsilon: float = EPSILON) -> int:
        """Return how many there are in all matrices."""
        return sum(each.intruders(epsilon) for each in self.matrices)

    @property
    def forgetting(self) -> float:
        """By how many nats the loss on the text of pre-training rises."""
        return self.pretraining.difference

    @property
    def relative_norm(self) -> float:
        """``||delta_W||_F / ||W||_F`` over all matrices together."""
        squares = [(each.norm_delta_W**2, each.norm_W**2) for each in self.matrices]
        delta, W = (sum(each) for each in zip(*squares, strict=True))
        return float((delta / W) ** 0.5) if W else 0.0

    @property
    def outgrown(self) -> float:
        """The largest singular value of delta_W over W's K-th, in the median over matrices."""
        return float(np.median([each.S_delta[0] / each.edge for each in self.matrices]))


@dataclass(frozen=True)
class Mitigation:
    """Losses as the top intruder of every matrix is weakened, or the whole update to the same norm.

    Attributes
    ----------
    weakened, shrunk : lambda -> (loss on the task, loss on the text of pre-training), differences from lambda = 1
    task, pretraining : what the whole update changes, from the base
    matrices : how many have an intruder
    """

    weakened: Mapping[float, tuple[Loss, Loss]]
    shrunk: Mapping[float, tuple[Loss, Loss]]
    task: Loss
    pretraining: Loss
    matrices: int


@dataclass(frozen=True, eq=False)
class Measures:
    """Everything that figures, tables and findings are computed from.

    Attributes
    ----------
    plan : of the study
    runs : content of each run's ``run.json``, by the run's name
    trained, random : what each run does, and random updates of the same singular values, by the run's name
    mitigated : by the run's name
    base : losses of the base alone: on the task, on the text of pre-training
    """

    plan: TunedPlan
    runs: Mapping[str, Mapping[str, Any]]
    trained: Mapping[str, Effect]
    random: Mapping[str, Effect]
    mitigated: Mapping[str, Mitigation]
    base: tuple[float, float]

    def at(self, method: str, *, barely: bool = False, seed: int = 0) -> list[TunedRun]:
        """Return the runs of a method, by their learning rates."""
        runs = (run for run in self.plan.runs if (run.barely, run.seed) == (barely, seed))
        return sorted((run for run in runs if method_of(run) == method), key=lambda run: run.lr)

    def best(self, method: str, *, barely: bool = False) -> TunedRun:
        """Return the run of a method with the lowest loss on the task."""
        return min(self.at(method, barely=barely), key=lambda run: self.trained[run.name].task.loss)


def measured(
    plan: TunedPlan, folder: Path, *, progress: Callable[[int, int], None] | None = None
) -> Measures:
    """Return what is measured on the trained runs of a plan.

    Raises
    ------
    SubspaceError : something cannot be read
    """
    return _Measuring(plan, folder, progress or (lambda *_: None)).all()


class _Measuring:
    """The measures of one study, which are counted as they are taken."""

    def __init__(self, plan: TunedPlan, folder: Path, progress: Callable[[int, int], None]) -> None:
        self.plan, self.folder, self.progress = plan, folder, progress
        self.weights = load_base(base_folder(plan.model))
        self.base = Base(self.weights)
        self.chosen = [run.name for run in plan.runs if _mitigated(run)]
        self.done, self.total = 0, len(plan.runs) + len(self.chosen)

    def all(self) -> Measures:
        trained: dict[str, Effect] = {}
        random: dict[str, Effect] = {}
        losses = (0.0, 0.0)
        for some in _in_groups([run.name for run in self.plan.runs], _AT_ONCE):
            losses = self.effects(some, trained, random)
        mitigated = {name: self.mitigated(name, trained[name]) for name in self.chosen}
        runs = {run.name: run_record(self.folder / run.name) for run in self.plan.runs}
        return Measures(self.plan, runs, trained, random, mitigated, losses)

    def effects(
        self, names: Sequence[str], trained: dict[str, Effect], random: dict[str, Effect]
    ) -> tuple[float, float]:
        """Add what some runs do, and random updates in their place; return the losses of the base."""
        updates: dict[str, Adapter] = {}
        matrices: dict[str, tuple[Leading, ...]] = {}
        for name in names:
            updates[name] = own = self.adapter(name)
            matrices[name] = tuple(self.base.leading(own))
            drawn = self.random(own, matrices[name], seed=len(trained) + len(updates))
            updates[f"random {name}"] = drawn
            matrices[f"random {name}"] = tuple(self.base.leading(drawn))
            self.tick()
        found = self.evaluated(updates)
        for name in names:
            trained[name], random[name] = (
                _effect(matrices[key], found, key) for key in (name, f"random {name}")
            )
        return found["base", _TASK].loss, found["base", _TEXT].loss

    def adapter(self, name: str) -> Adapter:
        """The updates of a run, of the matrices that it changed."""
        loaded = load_adapter(self.folder / name, base=self.weights)
        return _of(name, (update for update in loaded.values() if not _unchanged(update)))

    def random(self, own: Adapter, matrices: Iterable[Leading], *, seed: int) -> Adapter:
        rng = np.random.default_rng(seed)
        shapes = {module: (update.d_out, update.d_in) for module, update in own.items()}
        return _of("random", (random_update(each, shapes[each.module], rng) for each in matrices))

    def mitigated(self, name: str, effect: Effect) -> Mitigation:
        own = self.adapter(name)
        updates = {"whole": own}
        for by in LAMBDAS:
            updates[f"weakened {by}"] = weakened = self.weakened(own, effect, by)
            updates[f"shrunk {by}"] = _shrunk(own, weakened)
        found = self.evaluated(updates, reference="whole")
        pairs = {
            (kind, by): (Loss.of(found[f"{kind} {by}", _TASK]), Loss.of(found[f"{kind} {by}", _TEXT]))
            for kind in ("weakened", "shrunk")
            for by in LAMBDAS
        }
        self.tick()
        return Mitigation(
            weakened={by: pairs["weakened", by] for by in LAMBDAS},
            shrunk={by: pairs["shrunk", by] for by in LAMBDAS},
            task=effect.task,
            pretraining=effect.pretraining,
            matrices=sum(each.top_intruder() is not None for each in effect.matrices),
        )

    def weakened(self, own: Adapter, effect: Effect, by: float) -> Adapter:
        """The run with `by` of the top intruder of every matrix left."""
        less = {each.module: each.weakened(by) for each in effect.matrices}
        return _of("weakened", (_sum(update, less.get(module)) for module, update in own.items()))

    def evaluated(self, updates: Mapping[str, Adapter], *, reference: str = "base") -> Evaluation:
        plan = self.plan
        given: dict[str, Any] = {"most": WINDOWS, "length": plan.length, "reference": reference}
        task = evaluate(plan.model, updates, {_TASK: plan.data}, held_out=_held_out(), **given)
        text = evaluate(plan.model, updates, {_TEXT: plan.pretraining_text}, held_out=1, **given)
        return _together(task, text)

    def tick(self) -> None:
        self.done += 1
        self.progress(self.done, self.total)


def _in_groups(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (names[k : k + size] for k in range(0, len(names), size))


def _held_out() -> float:
    from subspace.training.recipe import Recipe

    return Recipe.held_out


def _mitigated(run: TunedRun) -> bool:
    """At the largest rate, where there are most intruders to weaken."""
    return run.rank is not None and run.lr == RATES[-1] and not run.barely and run.seed == 0


def _together(first: Evaluation, second: Evaluation) -> Evaluation:
    return replace(first, modules=first.modules + second.modules, data=first.data + second.data)


def _effect(matrices: tuple[Leading, ...], found: Evaluation, name: str) -> Effect:
    return Effect(matrices, Loss.of(found[name, _TASK]), Loss.of(found[name, _TEXT]))


def _of(name: str, updates: Iterable[Update]) -> Adapter:
    """Updates in memory as an adapter."""
    return Adapter(name, "updates", "memory", {update.module: update for update in updates})


def _unchanged(update: Update) -> bool:
    return not update.delta_W().any()


def _sum(update: Update, more: LowRankUpdate | None) -> Update:
    """A sum of two updates of one module, as one of a higher rank, or as a matrix."""
    if more is None:
        return update
    if isinstance(update, LowRankUpdate):
        scale = update.scale.value or 0.0
        A, B = np.vstack([update.A, more.A]), np.hstack([scale * update.B, more.B])
        return LowRankUpdate(update.module, Factor.of(A), Factor.of(B), Scale(1.0, "computed"))
    return replace(update, matrix=Factor.of(update.delta_W() + more.delta_W()), scale=Scale(1.0, "computed"))


def _shrunk(own: Adapter, weakened: Adapter) -> Adapter:
    """The update as a whole, each matrix times a number such that its norm is that of the weakened one."""

    def each() -> Iterator[Update]:
        for module, update in own.items():
            ratio = np.linalg.norm(weakened[module].delta_W()) / np.linalg.norm(update.delta_W())
            yield update.scaled(Scale(float(ratio) * (update.scale.value or 0.0), "computed"))

    return _of("shrunk", each())
