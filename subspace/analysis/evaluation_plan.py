"""An evaluation, step by step: the model for some data, what is put onto it, and what it then does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters import BaseWeights, load_base
from subspace.analysis.applied_updates import applied
from subspace.analysis.evaluated_data import Settings, base_for, examples_of, task_and_examples
from subspace.analysis.paired_rows import paired_rows
from subspace.analysis.resolve import Loading
from subspace.analysis.update_variants import Variant, variants_of
from subspace.analysis.weight_changes import Change, changes_of
from subspace.errors import SubspaceError, ValueRangeError
from subspace.results.evaluation import Evaluation, MeasuredAdapter, MeasuredData, MeasuredUpdate
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from subspace.training.data import Examples
    from subspace.training.models import Base
    from subspace.training.outcomes import Outcomes

__all__ = ["EvaluationPlan", "in_words"]

_FEW = 20  # examples, below which an interval is rough


@dataclass(frozen=True)
class EvaluationPlan:
    """What is evaluated, and how; fields as the parameters of `evaluate`, resolved."""

    model: Any
    sources: Mapping[str, Any]
    settings: Settings
    loading: Loading
    ranks: tuple[int, ...]
    merge: tuple[Any, ...]
    reference: str
    dtype: str
    device: str
    seed: int
    resamples: int
    progress: Callable[[int, int], None]

    def carried_out(self, data: Mapping[str, Any]) -> Evaluation:
        """Return the result on data by name."""
        return _Evaluating(self).result(data)


@dataclass
class _Loaded:
    """A model for one kind of data, and what is put onto it."""

    labels: tuple[str, ...] | None
    base: Base
    variants: list[Variant]
    changes: list[dict[str, list[Change]]] = field(default_factory=list)
    kept: list[tuple[str, ...]] = field(default_factory=list)


class _Evaluating:
    """One evaluation; a model is loaded again only for data with other classes."""

    def __init__(self, plan: EvaluationPlan) -> None:
        self.plan = plan
        self.loaded: _Loaded | None = None
        self.rows: list[MeasuredUpdate] = []
        self.data: list[MeasuredData] = []
        self.adapters: dict[str, MeasuredAdapter] = {}
        self.notes: dict[str, None] = {}

    def result(self, data: Mapping[str, Any]) -> Evaluation:
        """Measure on each of the data."""
        for name, each in data.items():
            self._measure(name, each)
        assert self.loaded is not None
        return Evaluation(
            model=self.loaded.base.name,
            reference=self.plan.reference,
            modules=tuple(self.rows),
            adapters=tuple(self.adapters.values()),
            data=tuple(self.data),
            resamples=self.plan.resamples,
            seed=self.plan.seed,
            notes=tuple(self.notes),
        )

    def _note(self, *notes: str) -> None:
        self.notes |= dict.fromkeys(notes)

    def _measure(self, name: str, data: Any) -> None:
        plan = self.plan
        examples = examples_of(data, plan.settings)
        loaded = self._load(examples)
        task, chosen, fraction = task_and_examples(loaded.base, examples, data, plan.settings)
        self._note(*examples.notes, *getattr(task, "notes", ()))
        found = [self._outcomes(loaded, k, task, chosen) for k in range(len(loaded.variants))]
        for variant, each in zip(loaded.variants, found, strict=True):
            if not np.isfinite(each.losses).all():
                raise ValueRangeError(
                    f"The loss is not finite with {shown(variant.name)} on {shown(name)}; check the numbers of the "
                    "adapter and of the model, or give `dtype` float32"
                )
        facts = _described(name, examples, fraction, found[0])
        if facts.examples < _FEW:
            self._note(
                f"Only {counted(facts.examples, facts.noun)} of {shown(name)}, so the intervals are rough"
            )
        self.data.append(facts)
        self.rows += paired_rows(
            loaded.variants,
            found,
            data=name,
            reference=plan.reference,
            resamples=plan.resamples,
            seed=plan.seed,
        )

    def _load(self, examples: Examples) -> _Loaded:
        """The model for some examples, with all that is put onto it."""
        labels = examples.label_names if examples.labels is not None else None
        if self.loaded is not None and self.loaded.labels == labels:
            return self.loaded
        self.loaded = None  # so that no two models are held at a time
        base = base_for(self.plan.model, examples, self.plan.settings)
        self._note(*base.notes[1 if base.heads else 0 :])
        weights = load_base(base.model)
        loaded = _Loaded(labels, base, self._variants(weights))
        if isinstance(self.plan.model, str | bytes | os.PathLike):  # one in memory stays where it is
            from subspace.training.run_checks import device_of

            base.model.to(device_of(self.plan.device))
        for variant in loaded.variants:
            self._place(loaded, weights, variant)
        self._note_heads(loaded)
        self.loaded = loaded
        return loaded

    def _variants(self, weights: BaseWeights) -> list[Variant]:
        plan = self.plan
        loading = replace(plan.loading, base=weights)
        variants = variants_of(plan.sources, loading, ranks=plan.ranks, merge=plan.merge)
        names = [variant.name for variant in variants]
        if plan.reference not in names:
            raise ValueRangeError(
                f"Nothing is called '{shown(plan.reference)}', which differences are to be taken from; there are "
                f"{listed(names, most=12)}"
            )
        return variants

    def _place(self, loaded: _Loaded, weights: BaseWeights, variant: Variant) -> None:
        """Find what a variant does to each parameter of the model."""
        of: dict[str, list[Change]] = {}
        kept: tuple[str, ...] = ()
        for weight, adapter in variant.terms:
            found = changes_of(loaded.base.model, weights, adapter, weight, alone=len(variant.terms) == 1)
            for key, some in found.of.items():
                of.setdefault(key, []).extend(some)
            kept += found.kept
            self._note(*adapter.notes)
            if found.left_out:
                self._note(
                    f"The model for these data has no place for {listed(found.left_out)}, which is left out"
                )
            if variant.kind == "adapter":
                facts = (shown(adapter.path, longest=1000), adapter.format, len(adapter), found.kept)
                self.adapters.setdefault(variant.name, MeasuredAdapter(variant.name, *facts))
        loaded.changes.append(of)
        loaded.kept.append(kept)

    def _note_heads(self, loaded: _Loaded) -> None:
        """Say which variants are measured with a classifier that nobody has trained."""
        heads = loaded.base.heads
        without = [
            variant.name
            for variant, kept in zip(loaded.variants, loaded.kept, strict=True)
            if not all(any(f"{key}.".startswith(f"{head}.") for key in kept) for head in heads)
        ]
        if heads and without:
            self._note(
                f"The model has no trained {listed(heads)}, which started at random (seed {self.plan.settings.seed}): "
                f"{listed(without, most=8)} {'is' if len(without) == 1 else 'are'} measured with that"
            )

    def _outcomes(self, loaded: _Loaded, k: int, task: Any, chosen: Any) -> Outcomes:
        """What the model does with one variant on it."""
        from subspace.training.outcomes import outcomes

        total = len(loaded.variants) * len(chosen)

        def progress(done: int) -> None:
            self.plan.progress(k * len(chosen) + done, total)

        model = loaded.base.model
        with in_words(loaded.base.name), applied(model, loaded.changes[k]) as unused:
            found = outcomes(model, task, chosen, dtype=self.plan.dtype, progress=progress)
        if unused:
            self._note(
                f"{counted(len(unused), 'parameter')} that {shown(loaded.variants[k].name)} changes had no part in the "
                f"answers of the model, as the modules were not called: {listed(unused)}"
            )
        return found


def _described(name: str, examples: Examples, fraction: float, found: Outcomes) -> MeasuredData:
    return MeasuredData(
        name=name,
        path=os.fsdecode(examples.path),
        summary=examples.summary(),
        sha256=examples.sha256,
        noun="window" if found.per_byte is not None else "text",
        unit="token" if found.labels is None else "text",
        examples=len(found.losses),
        predictions=int(found.weights.sum()),
        held_out=fraction,
    )


@contextmanager
def in_words(model: str) -> Iterator[None]:
    """Turn what torch or the model's own code raises into one line."""
    try:
        yield
    except (RuntimeError, IndexError) as error:
        if isinstance(error, SubspaceError):
            raise
        from subspace.training.loop import ComputationError

        message = shown(str(error).strip().partition("\n")[0], longest=300)
        cure = "lower `batch` or `length`" if "memory" in message else "check that the data fit the model"
        raise ComputationError(
            f"The model {shown(model)} failed with {type(error).__name__}: {message}; {cure}"
        ) from error
