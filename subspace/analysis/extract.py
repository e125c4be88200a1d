"""A fine-tuned or merged checkpoint as a LoRA adapter over its base: which rank the change has, and what that costs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from subspace.adapters.place import place
from subspace.analysis.against_base import Against, Scope, against_base
from subspace.analysis.convert import convert
from subspace.analysis.extracted_adapter import extracted_adapter
from subspace.analysis.extracted_module import Wanted, extracted, without_numbers
from subspace.analysis.tuned_model import Reason, TunedModel, tuned_model
from subspace.analysis.unextracted import Unextracted, unextracted
from subspace.checkpoints.narrowing import WRITTEN
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.results.extraction import Extraction, ModuleExtraction
from subspace.text import counted, listed, shown

__all__ = ["extract"]


def extract(
    base: Any,
    tuned: Any,
    *,
    rank: int | Literal["auto"] | None = None,
    energy: float | None = None,
    dtype: str = "float32",
    save_rest: bool = False,
    modules: Sequence[str] = (),
    layers: Sequence[int] = (),
    jobs: int = 1,
    device: str = "cpu",
    resume: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Extraction:
    """A full fine-tune, or a model with a merged LoRA, as an adapter over its base.

    Parameters
    ----------
    base, tuned : two models of one architecture, as `load_base` takes them
    rank : largest rank of a module; "auto", which is also what neither `rank` nor `energy` means, for the number of
        directions that stand above the rounding of the stored weights
    energy : least share of every module's ``||tuned - base||_F^2``, in (0, 1], that the stored factors keep
    dtype : type of the stored factors, "float32", "float16" or "bfloat16"
    save_rest : store what changed and can be no LoRA (norms, biases, embeddings of another size) with the adapter,
        where PEFT has a place for it
    modules, layers, jobs, device, resume : which modules are extracted and how, as `Scope` takes them
    progress : called with (modules done, modules in all)

    Returns
    -------
    Extraction
        The adapter, not written yet, and for every module that changed its rank, its exact error, and the rank that was
        recovered.

    Raises
    ------
    FormatError : the two have no matrix in common, or are unrelated
    InconclusiveError : nothing changed, or nothing by more than rounding
    ValueRangeError : a rank below 1, a share outside (0, 1]

    Notes
    -----
    ``B = U_k sqrt(S_k)`` and ``A = sqrt(S_k) V_k^T`` of the leading triplets of the difference, under the scale 1
    (alpha = r): the best approximation of the rank. Directions below the rounding of the stored weights are not kept.
    The error is that of the factors as they are stored, from one more pass over both weights. One module is in memory
    at a time: both weights are read some rows at a time, and of a large one the difference is held in float32.

    References
    ----------
    Eckart & Young 1936, Psychometrika 1:211. For the rounding: `subspace.geometry.rounding_edge`.

    Examples
    --------
    >>> import numpy as np
    >>> W = {f"h.{n}.q.weight": np.eye(8, dtype=np.float32) for n in range(2)}
    >>> merged = {**W, "h.1.q.weight": W["h.1.q.weight"] + np.eye(8, 1, dtype=np.float32)}
    >>> found = extract(W, merged)
    >>> [(row.module, row.rank, row.recovered_rank) for row in found.modules], found.unchanged
    ([('h.1.q', 1, 1)], ('h.0.q',))
    """
    wanted = _wanted(rank, energy, dtype)
    model = tuned_model(base, tuned)
    scope = Scope(modules, layers, jobs, device, resume)
    found = against_base(
        base,
        tuned,
        partial(extracted, wanted=wanted, without=tuple(model.no_lora)),
        without_numbers=without_numbers,
        scope=scope,
        progress=progress,
    )
    return _concluded(found, model, scope, wanted, save_rest)


def _wanted(rank: Any, energy: float | None, dtype: str) -> Wanted:
    if rank is not None and energy is not None:
        raise ValueRangeError("Cannot tell how much to keep: give `rank` or `energy`, not both")
    if rank not in (None, "auto") and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
        raise ValueRangeError(
            f'Invalid rank {shown(repr(rank))}: give `rank` a whole number of at least 1, or "auto"'
        )
    if energy is not None and not 0 < energy <= 1:
        raise ValueRangeError(
            f"Invalid share of energy {energy}: give `energy` a number in (0, 1], such as 0.9 for 90 %"
        )
    if dtype not in WRITTEN:
        raise ValueRangeError(
            f"Invalid type {shown(repr(dtype))}: give `dtype` one of {listed(WRITTEN, most=9)}"
        )
    return Wanted(None if rank == "auto" else rank, energy, dtype)


def _concluded(
    found: Against[ModuleExtraction], model: TunedModel, scope: Scope, wanted: Wanted, save_rest: bool
) -> Extraction:
    kept = [each for each in found.rows if each.A is not None]
    rest = unextracted(model, scope, targets={each.module for each in kept}, save=save_rest)
    if not kept:
        raise _nothing(found, model, rest)
    adapter = extracted_adapter(kept, rest, model, dtype=wanted.dtype)
    converted = convert(adapter, to="peft", allow={"rounding"})
    seen = {each.tuned_name for each in found.rows} | set(found.missing)
    return Extraction(
        base=found.base.path,
        tuned=found.adapter.path,
        adapter=adapter,
        modules=found.rows,
        unchanged=tuple(name for name in model.loras(scope) if name not in seen),
        rest=tuple(each.document() for each in rest),
        files=converted.files,
        notes=(*found.notes(), *_rest_notes(rest, save_rest)),
    )


def _nothing(
    found: Against[ModuleExtraction], model: TunedModel, rest: Sequence[Unextracted]
) -> InconclusiveError:
    """The error that there is no adapter to be written, and why."""
    where = f"between {place(model.base.path)} and {place(model.tuned.path)}"
    others = (
        f"; {counted(len(rest), 'tensor')} that can be no LoRA did ({listed(each.key for each in rest)})"
        if rest
        else ""
    )
    if found.damage.notes():
        return InconclusiveError(f"No module can be extracted: {'; '.join(found.damage.notes())}")
    if found.rows:
        largest = max(each.sigma[0] / each.floor for each in found.rows if each.floor)
        return InconclusiveError(
            f"No module changed by more than rounding {where}: in {counted(len(found.rows), 'module')} the largest "
            f"singular value of the change is at most {largest:.2g} of what rounding to the stored type gives{others}"
        )
    return InconclusiveError(f"No matrix changed {where}{others}; give the model after training as `tuned`")


def _rest_notes(rest: Sequence[Unextracted], save_rest: bool) -> list[str]:
    notes = []
    saved, lost = [each for each in rest if each.keys], [each for each in rest if not each.keys]
    if saved:
        named = listed((each.key for each in saved), most=6)
        notes.append(f"{counted(len(saved), 'changed tensor')} stored whole with the adapter: {named}")
    if lost:
        named = listed((f"{each.key} ({each.why})" for each in lost), most=6)
        cure = "" if save_rest else "; give `save_rest` to store those that PEFT can hold"
        notes.append(f"{counted(len(lost), 'changed tensor')} NOT in the adapter: {named}{cure}")
    resized = [f"{each.key} is {each.why}" for each in saved if each.reason is Reason.RESIZED]
    if resized:
        notes.append(
            "The base needs tensors of the new shapes before the adapter is loaded (resize_token_embeddings in "
            f"transformers): {listed(resized)}"
        )
    return notes
