"""Is r = 64 wasted? How many directions each delta_W uses, by several rules, and what rank its loss needs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from subspace.adapters import Adapter
from subspace.adapters.place import place
from subspace.adapters.update import DenseUpdate, LowRankUpdate, Update
from subspace.analysis.against_base import Scope, within_scope
from subspace.analysis.base_spectra import base_spectra, with_base
from subspace.analysis.damage import Damage
from subspace.analysis.rank_advice import advice, require_rule, rule_name
from subspace.analysis.resolve import Loading
from subspace.analysis.tested_ranks import RankTrial, measured_advice
from subspace.analysis.update_spectra import Spectrum as Found
from subspace.analysis.update_spectra import spectra
from subspace.embedded_base import EMBEDDED
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.flags import Flag, flag_notes
from subspace.geometry import random_product
from subspace.geometry.frobenius import frobenius
from subspace.geometry.rank_rules import hard_threshold, knee
from subspace.geometry.spectrum import effective_rank, energy_rank, participation_ratio, stable_rank
from subspace.results.spectrum import ModuleSpectrum, Spectrum
from subspace.text import shown

__all__ = ["spectrum"]

SHARES = (0.9, 0.95, 0.99)
NULLS = ("factors", "B")
FACTORS, RANDOM_B, MATRIX = "random factors", "random B", "random matrix"
_WITHOUT = (Flag.UNTRAINED, Flag.NOT_FINITE, Flag.NEEDS_BASE)  # why a module has no spectrum
_FEWEST = 4  # singular values of which a median can be that of noise
_ROUNDING = 1e-12  # a singular value that is above a random one by rounding is not


def spectrum(
    source: Any,
    *,
    base: Any = None,
    model: Any = None,
    data: Any = None,
    rule: str | None = None,
    energy: float = 0.95,
    null: str = "factors",
    margin: float = 0.05,
    held_out: float | None = None,
    most: int | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    labels: bool | None = None,
    tokenizer: Any = None,
    length: int | None = None,
    batch: int = 16,
    seed: int = 0,
    resamples: int = 10_000,
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    layout: str | None = None,
    rename: Mapping[str, str] | None = None,
    modules: Sequence[str] = (),
    layers: Sequence[int] = (),
    jobs: int = 1,
    device: str = "cpu",
    resume: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Spectrum:
    """Singular values of every delta_W, descending, counted by several rules, and the rank that is advised.

    Parameters
    ----------
    source : the adapter, as `load_adapter` takes it
    base : base weights, as `load_base` takes them, to measure delta_W against; an adapter that is defined by its base
        (IA3, OFT, a full fine-tune) needs them
    model, data : as `evaluate` takes them; where either is given, the adapter is cut to a ladder of ranks, and the
        held-out loss decides
    rule : by which ranks are advised: "energy", "knee", "gavish-donoho", "random", "entropy", or "tested"; by default
        "tested" where the loss was measured and clear, else "energy"
    energy : share of ``||delta_W||_F^2`` that the rule "energy" keeps, in (0, 1]
    null : what random updates are: "factors", A and B random; or "B", B random and A as it is
    margin : share of the adapter's gain that a lower rank may lose, in (0, 1)
    held_out, most, text_column, label_column, labels, tokenizer, length, batch, seed, resamples : as `evaluate` takes
        them
    scale, adapter_name, enable_lora, layout, rename : how the adapter is read, as `load_adapter` takes them
    modules, layers, jobs, device, resume : which modules are measured and how, as `Scope` takes them
    progress : called with (modules done, modules in all), then of the base, then of the examples

    Raises
    ------
    InconclusiveError : the base has no module of the adapter
    ValueRangeError : an unknown rule, a share that is none, no module in the scope, `resume` without `base`
    SubspaceError : a file cannot be read

    Notes
    -----
    From the r x r core of the factors: no delta_W is formed. A dense delta_W takes a full SVD.

    References
    ----------
    Roy & Vetterli 2007 (entropy). Gavish & Donoho 2014, IEEE Trans. Inf. Theory 60:5040. Satopää et al. 2011 (knee).

    Examples
    --------
    >>> found = spectrum({"q.lora_A": np.eye(3, 8), "q.lora_B": np.eye(9, 3) * [4.0, 3.0, 0.1]}, scale=1.0)
    >>> found.modules[0].sigma, found.modules[0].advised_rank
    (array([4. , 3. , 0.1]), 2)
    """
    testing = model is not None or data is not None
    require_rule(rule, energy, tested=testing)
    if null not in NULLS:
        raise ValueRangeError(f"Unknown random update: {shown(repr(null))}; give `null` as factors or B")
    settings = {
        "held_out": held_out,
        "most": most,
        "text_column": text_column,
        "label_column": label_column,
        "labels": labels,
        "tokenizer": tokenizer,
        "length": length,
        "batch": batch,
        "seed": seed,
        "resamples": resamples,
    }
    test = RankTrial(model, data, margin, settings) if testing else None
    reading = base if base is not None or not _is_local(model) else model
    scope = Scope(modules, layers, jobs, device, resume)
    scope.require(base)
    adapter = Loading(reading, scale, adapter_name, enable_lora, rename, layout).adapter(source)
    found = _measured(adapter, base, scope, null, progress)
    _require_spectrum(found)
    return _concluded(found, adapter, rule, energy, test, progress)


def _is_local(model: Any) -> bool:
    """Whether the weights of a model can be read as they lie, for an adapter that they define."""
    return isinstance(model, str | os.PathLike) and (model == EMBEDDED or Path(model).exists())


def _measured(
    adapter: Adapter, base: Any, scope: Scope, null: str, progress: Callable[[int, int], None] | None
) -> Spectrum:
    """All that is measured without a model, with no rank advised yet."""
    rows = _rows(adapter, within_scope(adapter, scope), null, progress)
    notes = tuple(str(note) for note in adapter.notes)
    if base is None:
        return Spectrum(adapter.path, "", rows, notes=notes)
    found = base_spectra(base, adapter, scope, progress)
    of = {each.module: each for each in found.rows}
    rows = tuple(with_base(row, of.get(row.module)) for row in rows)
    # of damage the flags of the rows speak
    notes += replace(found, damage=Damage()).notes()
    return Spectrum(adapter.path, "", rows, found.base.path, None, found.missing, notes)


def _require_spectrum(found: Spectrum) -> None:
    """An answer that does not exist for any module is an error."""
    if any(len(row.sigma) for row in found.modules):
        return
    why = flag_notes({row.module: [flag for flag in row.flags if flag in _WITHOUT] for row in found.modules})
    raise InconclusiveError(f"No module has a spectrum: {'; '.join(why)}, in {place(found.path)}")


def _concluded(
    found: Spectrum,
    adapter: Adapter,
    rule: str | None,
    energy: float,
    test: RankTrial | None,
    progress: Callable[[int, int], None] | None,
) -> Spectrum:
    """The result with the ranks that the rule, or the test, advises."""
    evaluated, notes = test.carried_out(adapter, found.modules, energy, progress) if test else (None, ())
    decided = evaluated is not None and evaluated.advised is not None and rule in (None, "tested")
    by = "energy" if rule in (None, "tested") else rule
    given = [
        measured_advice(row, evaluated) if decided and evaluated is not None else advice(row, by, energy)
        for row in found.modules
    ]
    rows = tuple(
        replace(row, advised_rank=each.rank, why=each.why, flags=(*row.flags, *each.flags))
        for row, each in zip(found.modules, given, strict=True)
    )
    spoken = {note.flag for note in adapter.notes if note.flag is not None}
    notes = (*found.notes, *notes, *flag_notes({row.module: row.flags for row in rows}, without=spoken))
    return replace(
        found,
        rule="tested" if decided else rule_name(by, energy),
        modules=rows,
        evaluated=evaluated,
        notes=tuple(dict.fromkeys(notes)),
    )


def _rows(
    adapter: Adapter, wanted: Sequence[str], null: str, progress: Callable[[int, int], None] | None
) -> tuple[ModuleSpectrum, ...]:
    rows = []
    for update, found in spectra(adapter[module] for module in wanted):
        rows.append(_row(update, found, null))
        adapter.release()
        if progress is not None:
            progress(len(rows), len(wanted))
    return tuple(rows)


def _row(update: Update, found: Found | None, null: str) -> ModuleSpectrum:
    """One module, with no rank advised yet."""
    row = ModuleSpectrum(
        module=update.module,
        r=update.r,
        d_in=update.d_in,
        d_out=update.d_out,
        scale=update.scale.value,
        flags=update.flags,
    )
    if found is None:
        unbound = Flag.NEEDS_BASE in update.flags
        return row if unbound else replace(row, flags=(*row.flags, Flag.NOT_FINITE))
    if update.scale.value is None:
        row = replace(row, flags=(*row.flags, Flag.SCALE_UNKNOWN))
    if not found.S.size:
        norm = None if update.scale.value is None else 0.0
        return replace(row, rank=0, norm_delta_W=norm, flags=(*row.flags, Flag.UNTRAINED))
    return _counted(_scaled(row, found), update, found, null)


def _scaled(row: ModuleSpectrum, found: Found) -> ModuleSpectrum:
    """The row with its singular values and their norm, the scale included."""
    if row.scale is None:
        return replace(row, sigma=found.S)
    with np.errstate(over="ignore", under="ignore"):
        sigma = abs(row.scale) * found.S
    norm = frobenius(sigma)
    if not math.isfinite(norm):
        return replace(row, sigma=found.S, flags=(*row.flags, Flag.OVERFLOW))
    return replace(row, sigma=sigma, norm_delta_W=norm)


def _counted(row: ModuleSpectrum, update: Update, found: Found, null: str) -> ModuleSpectrum:
    S = found.S
    low = isinstance(update, LowRankUpdate) and len(S) < update.r
    kind, edge = _edge(update, found, null)
    factor = 1.0 if row.norm_delta_W is None else abs(row.scale or 0.0)
    return replace(
        row,
        rank=len(S),
        stable_rank=stable_rank(S),
        entropy_rank=effective_rank(S),
        participation=participation_ratio(S),
        energy_rank={f"{share:g}": int(energy_rank(S, share)) for share in SHARES},
        knee=knee(S),
        gavish_donoho=_gavish_donoho(S, update),
        null=kind,
        random_sigma=None if edge is None else factor * edge,
        above_random=None if edge is None else int(np.count_nonzero(edge * (1 + _ROUNDING) < S)),
        flags=(*row.flags, *((Flag.RANK_BELOW_R,) if low else ())),
    )


def _gavish_donoho(S: np.ndarray, update: Update) -> int | None:
    """How many are above the hard threshold for white noise in the basis of one factor's directions."""
    p = min(update.r, update.d_in, update.d_out)
    if p < _FEWEST:
        return None
    whole = np.zeros(p)
    whole[: len(S)] = S
    return int(np.count_nonzero(hard_threshold(whole, (p, max(update.d_in, update.d_out))) < S))


def _edge(update: Update, found: Found, null: str) -> tuple[str, float | None]:
    """What the null is called, and what its largest singular value exceeds in 5 % of draws."""
    d_out, d_in = update.d_out, update.d_in
    if min(update.r, d_out, d_in) == 1:
        return "", None  # one direction has all of the norm, whatever it is
    if isinstance(update, DenseUpdate):
        return MATRIX, frobenius(found.S) * random_product.largest_of_matrix(d_out, d_in)
    if Flag.COMPOSED in update.flags or found.norm_A is None or found.norm_B is None:
        return "", None
    if null == "B":
        return RANDOM_B, found.norm_B * random_product.largest_with_factor(update.A, d_out)
    return FACTORS, found.norm_B * found.norm_A * random_product.largest_of_product(d_out, update.r, d_in)
