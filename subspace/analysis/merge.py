"""Several adapters merged into one: what to expect, the merged factors, and how near they are to what was wanted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from subspace.adapters import writers
from subspace.adapters.place import place
from subspace.analysis.convert import convert
from subspace.analysis.forecast import forecast as forecast_of
from subspace.analysis.merge_inputs import MergeInputs, merge_inputs
from subspace.analysis.merge_settings import require_words, scales_of, settings_of, weights_of
from subspace.analysis.merged_adapter import merged_adapter, written_notes
from subspace.analysis.merged_module import MergedModule, Norms, merged_module
from subspace.analysis.resolve import Loading
from subspace.errors import InconclusiveError, ValueRangeError, located
from subspace.flags import Flag, flag_notes
from subspace.geometry import mergers
from subspace.geometry.frobenius import frobenius
from subspace.geometry.merger import Merger, Settings
from subspace.results.forecast import Forecast, ModuleForecast
from subspace.results.merge import MergeInput, Merging, ModuleMerging, Total
from subspace.text import counted, listed

__all__ = ["merge"]


def merge(
    adapters: Sequence[Any],
    weights: Sequence[float] | None = None,
    *,
    method: str = "sum",
    rank: int | None = None,
    energy: float | None = None,
    density: float | None = None,
    sign_method: str | None = None,
    entries: str | None = None,
    inner: str | None = None,
    seed: int | None = None,
    to: str = "peft",
    dtype: str = "float32",
    allow: Collection[str] = (),
    inputs: Any = None,
    forecast: bool = True,
    dry_run: bool = False,
    base: Any = None,
    scale: float | Sequence[float | None] | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    layout: str | None = None,
    rename: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Merging:
    """Merge adapters of one base into one adapter, and say beforehand how their updates meet.

    Parameters
    ----------
    adapters : two or more, as `load_adapter` takes them, of any formats and ranks
    weights : of each, of either sign; 1 by default, which is the sum and not the mean
    method : "sum", "cat", "svd", "ties", "dare", "knots", "iso", "tsv", "linear", "dare_ties" or "magnitude_prune"
    rank : largest rank of a module, of the methods that cut; by default of svd, ties and dare the largest rank of the
        adapters, of the others all directions
    energy : least share of the squared norm that is kept, in (0, 1], in place of `rank` or with it
    density : share of the entries that stay, in (0, 1]: of ties, knots and magnitude_prune 0.2, of dare 0.5 by default
    sign_method : "total" (default) elects a sign by the sum of the entries, "frequency" by their number
    entries : "updates" (default), the entries of every delta_W, as PEFT's ties_svd; "factors", those of every A and B,
        as PEFT's ties, for which all ranks have to be the same and which depends on how the updates are factored
    inner : what merges the aligned blocks of knots, "ties" (default) or "sum"
    seed : of the random masks of dare, 0 by default
    to : format that is written, "peft", "kohya", "diffusers" or "loralib"
    dtype : type of the stored factors, "float32", "float16" or "bfloat16"
    allow : "dora" merges the direction parts of DoRA without magnitudes, "init" adapters whose start changed the base
    inputs : of the modules, an `Inputs` or the file that `subspace inputs` wrote, for the cosine of outputs
    forecast : measure what to expect, before merging
    dry_run : measure that alone, and merge nothing
    base, adapter_name, enable_lora, layout, rename : how all adapters are read, as `load_adapter` takes them
    scale : multiplier of every ``B @ A``, one for all adapters or one for each, in place of what their files say
    progress : called with (modules done, modules in all)

    Returns
    -------
    Merging
        The adapter, not written yet, with scale 1; per module its exact error and how the updates meet.

    Raises
    ------
    FormatError : an adapter that is no sum of products (DoRA, a dense delta_W), or a method that does not fit
    InconclusiveError : an unknown scale
    ShapeError : adapters of different bases
    ValueRangeError : a setting out of range, or one that the method does not have

    Notes
    -----
    For sum, cat, svd, knots, iso and tsv everything comes from the stacked factors and a core whose side is the sum of
    the ranks: no delta_W is formed. The methods that act on entries of delta_W hold the merged matrix of one module.
    Modules that only some adapters have are merged of those. The errors are of the factors as they are stored.

    References
    ----------
    Ilharco et al., arXiv 2212.04089 (sums of updates); each method in `subspace.geometry.mergers` has its own.

    Examples
    --------
    >>> import numpy as np
    >>> pair = [{"q.lora_A.weight": np.eye(1, 4), "q.lora_B.weight": np.full((3, 1), size)} for size in (1.0, 2.0)]
    >>> merged = merge(pair, [1.0, -1.0], scale=1.0)
    >>> merged["q"].rank, merged.adapter["q"].delta_W()[0].round(6)
    (1, array([-1.,  0.,  0.,  0.]))
    """
    chosen = mergers.named(method)
    settings = settings_of(
        chosen,
        rank=rank,
        energy=energy,
        density=density,
        sign_method=sign_method,
        entries=entries,
        inner=inner,
        seed=seed,
    )
    writers.named(to)
    require_words(dtype, allow)
    weighting = weights_of(weights, len(adapters))
    loading = [
        Loading(base, each, adapter_name, enable_lora, rename, layout)
        for each in scales_of(scale, len(adapters))
    ]
    given = merge_inputs(adapters, loading, to=to, allow=allow)
    if not (forecast or dry_run) and inputs is not None:
        raise ValueRangeError("The inputs are for the forecast; leave `inputs` out, or make one")
    steps = _Steps(progress, len(given.modules) * ((forecast or dry_run) + (not dry_run)))
    expected, notes = _forecast(given, weighting, inputs, steps) if forecast or dry_run else (None, ())
    merged = [] if dry_run else _merged(given, weighting, chosen, settings, dtype, steps)
    return _concluded(given, weighting, chosen, settings, to, base, expected, merged, notes)


class _Steps:
    """Steps of two passes over the modules, passed on to whoever shows them."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def step(self, *_: int) -> None:
        """Count one."""
        self._done += 1
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)


def _forecast(
    given: MergeInputs, weights: Sequence[float], inputs: Any, steps: _Steps
) -> tuple[Forecast | None, tuple[str, ...]]:
    """What to expect; a note alone where no two adapters meet."""
    if all(len(given.holders(module)) < 2 for module in given.modules):
        return None, ()
    try:
        found = forecast_of(given, weights, inputs=inputs, progress=steps.step)
    except InconclusiveError as error:
        return None, (f"No forecast: {str(error)[:1].lower()}{str(error)[1:]}",)
    return found, found.notes


def _merged(
    given: MergeInputs,
    weights: Sequence[float],
    method: Merger,
    settings: Settings,
    dtype: str,
    steps: _Steps,
) -> list[MergedModule]:
    merged = []
    for module in given.modules:
        updates = given.updates(module)
        with located(lambda module=module, updates=updates: _where(given, module, updates)):  # type: ignore[misc]
            merged.append(merged_module(module, updates, weights, method, settings, dtype))
        given.release()
        steps.step()
    return merged


def _where(given: MergeInputs, module: str, updates: Sequence[tuple[int, Any]]) -> str:
    paths = [place(given.adapters[n].path, module) for n, _ in updates]
    return listed(paths, most=2)


def _concluded(
    given: MergeInputs,
    weights: Sequence[float],
    method: Merger,
    settings: Settings,
    to: str,
    base: Any,
    expected: Forecast | None,
    merged: Sequence[MergedModule],
    notes: Sequence[str],
) -> Merging:
    rows = _rows(given, expected, merged)
    if merged and not any(row.rank for row in rows):
        raise InconclusiveError(
            f"Nothing to write: the weighted updates cancel, or are zero, in all {counted(len(rows), 'module')}"
        )
    adapter = merged_adapter(given, merged) if merged else None
    converted = None if adapter is None else convert(adapter, to=to, allow={"rounding"}, base=base)
    return Merging(
        method=method.name,
        settings=_shown_settings(method, settings),
        target=method.target,
        adapters=tuple(
            MergeInput(each.path, weight, len(each), each.sha256())
            for each, weight in zip(given.adapters, weights, strict=True)
        ),
        modules=rows,
        total=_total([each.norms for each in merged], rows) if merged else None,
        adapter=adapter,
        format=to,
        files={} if converted is None else converted.files,
        forecast=expected,
        notes=tuple(
            dict.fromkeys(
                [
                    *given.notes,
                    *notes,
                    *flag_notes({row.module: row.flags for row in rows}, without=_noted(expected)),
                    *(() if converted is None else written_notes(converted.notes, given)),
                ]
            )
        ),
    )


def _noted(expected: Forecast | None) -> set[Flag]:
    """Flags that the forecast's own notes speak of."""
    return set() if expected is None else {flag for row in expected.modules for flag in row.flags}


def _shown_settings(method: Merger, settings: Settings) -> dict[str, Any]:
    values = {each.name: getattr(settings, each.name) for each in fields(settings)}
    return {name: values[name] for name in method.settings if values[name] is not None}


def _rows(
    given: MergeInputs, expected: Forecast | None, merged: Sequence[MergedModule]
) -> tuple[ModuleMerging, ...]:
    met = {} if expected is None else {row.module: row for row in expected.modules}
    plain = [each.row for each in merged] or [
        ModuleMerging(module=module, adapters=len(given.updates(module))) for module in given.modules
    ]
    return tuple(_with_forecast(row, met[row.module]) if row.module in met else row for row in plain)


def _with_forecast(row: ModuleMerging, found: ModuleForecast) -> ModuleMerging:
    return replace(
        row,
        energy_ratio=found.energy_ratio if row.energy_ratio is None else row.energy_ratio,
        cosine=found.cosine,
        cosine_functional=found.cosine_functional,
        overlap=found.overlap,
        overlap_control=found.overlap_control,
        flags=tuple(dict.fromkeys((*row.flags, *found.flags))),
    )


def _total(norms: Sequence[Norms], rows: Sequence[ModuleMerging]) -> Total:
    target, missing, whole, away, terms, stored = (frobenius(list(each)) for each in zip(*norms, strict=True))
    return Total(
        error=missing / target if target else None,
        from_sum=away / whole if whole else None,
        energy_ratio=(whole / terms) ** 2 if terms else None,
        norm=stored,
        parameters=sum((row.rank or 0) * (row.d_out + row.d_in) for row in rows),
    )
