"""An adapter in another format: the files, and per module what became of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from subspace.adapters import Adapter, writers
from subspace.adapters.layer import Layer, alpha_of
from subspace.adapters.peft_start import start_that_changes_base
from subspace.adapters.place import place
from subspace.adapters.writer import Writer
from subspace.adapters.writers._joined_groups import layers_of, require_writable
from subspace.adapters.writers._read_back import require_read_back
from subspace.adapters.writers._spelling import spelled
from subspace.analysis.carried_over import carried, left_behind
from subspace.analysis.resolve import Loading
from subspace.checkpoints.narrowing import SMALLEST_NORMAL
from subspace.errors import FormatError, located
from subspace.flags import Flag
from subspace.geometry import factored
from subspace.results.conversion import Conversion, ModuleConversion
from subspace.text import counted, listed, shown

__all__ = ["LOSSES", "convert"]

# what --allow takes: a step that changes delta_W and is refused unless asked for
LOSSES = ("dora", "init", "rounding", "underflow")
# formats whose configuration says how PEFT started
_PEFTS = frozenset({"peft", "pipeline", "diffusers"})
_EXACT = 2.0**-20  # a scale multiplied into float32 factors stays below, into 16-bit ones it does not
_NOTICEABLE = 0.01  # relative change of delta_W; rounding alone stays below, in any type that is written


def convert(
    source: Any,
    *,
    to: str,
    dtype: str = "keep",
    allow: Collection[str] = (),
    module: str | None = None,
    base: Any = None,
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    layout: str | None = None,
    rename: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """An adapter as the files of another format, with the same delta_W; nothing is written until `Conversion.save`.

    Parameters
    ----------
    source : the adapter, as `load_adapter` takes it
    to : "peft", "loralib", "kohya" or "diffusers"
    dtype : "keep", "float32", "float16" or "bfloat16"
    allow : steps that change delta_W: "dora" leaves magnitudes out, "init" a start that changed the base weights,
        "rounding" multiplies a scale into 16-bit factors, "underflow" loses numbers that are too small for `dtype`
    module : name of the one module of an adapter that has none
    base, scale, adapter_name, enable_lora, layout, rename : how the adapter is read, as `load_adapter` takes them
    progress : called with (modules done, modules in all)

    Raises
    ------
    FormatError : the format cannot hold a module, or a step would be lossy
    InconclusiveError : the format stores a scale and none is known
    ValueRangeError : a number is not finite, or too large for its type

    Examples
    --------
    >>> import numpy as np
    >>> converted = convert({"q.lora_A": np.eye(2, 4), "q.lora_B": np.eye(3, 2)}, to="peft", scale=0.5)
    >>> sorted(converted.files), converted.modules[0].alpha, converted.modules[0].error
    (['adapter_config.json', 'adapter_model.safetensors'], 1.0, 0.0)
    """
    read_as = Loading(base, scale, adapter_name, enable_lora, rename, layout)
    adapter = _called(read_as.adapter(source), module)
    target = writers.named(to)
    allowed = frozenset(allow) if dtype == "keep" else frozenset(allow) | {"rounding"}
    _require_whole(adapter, target, allowed)
    with located(place(adapter.path)):
        require_writable(adapter)
        named, stored = _spelled(adapter, target, base)
        read = layers_of(named, stacked=target.stacked)
        fitted = [layer.as_dtype(dtype) for layer in target.fitted(_held(read, target))]
        layers, rows = _converted(read, fitted, allowed, adapter.path, progress)
        laid_out = target.lay_out(layers, named)
        others = carried(adapter, target.name, laid_out.names, taken=laid_out.tensors)
        laid_out = replace(laid_out, tensors={**laid_out.tensors, **others})
        require_read_back(laid_out, layers, target.name, path=adapter.path)
    rows = [
        replace(row, module=laid_out.names[layer.module], of=tuple(stored.get(each, each) for each in row.of))
        for row, layer in zip(rows, layers, strict=True)
    ]
    return Conversion(
        path=adapter.path,
        source_format=adapter.format,
        format=target.name,
        modules=tuple(rows),
        files=target.files(laid_out),
        notes=(
            *_kept_notes(adapter),
            *laid_out.notes,
            *left_behind(adapter, others, laid_out.names),
            *_layer_notes(layers),
        ),
    )


def _spelled(adapter: Adapter, target: Writer, base: Any) -> tuple[Adapter, Mapping[str, str]]:
    """The adapter under full names of its modules, and full name -> own; its own names in a format that stays."""
    if adapter.format == target.name:
        return adapter, {}
    from subspace.adapters import load_base

    return spelled(adapter, None if base is None else load_base(base), flattened=target.flattened)


def _called(adapter: Adapter, name: str | None) -> Adapter:
    """The adapter with a name for its one module."""
    if name is None:
        return adapter
    if len(adapter) != 1:
        raise FormatError(
            f"Cannot name {len(adapter)} modules: `module` names the only one of an adapter, in {place(adapter.path)}; "
            "leave it out"
        )
    ((old, update),) = adapter.items()
    # what a configuration says of its layers is not of this one
    return replace(
        adapter,
        updates={name: replace(update, module=name)},
        config={},
        stored_names={name: adapter.stored_names.get(old, old)},
    )


def _require_whole(adapter: Adapter, target: Writer, allowed: Collection[str]) -> None:
    """Refuse what would change delta_W without a number to show for it."""
    where = f"in {place(adapter.path)}"
    dora = [update.module for update in adapter.values() if Flag.DORA in update.flags]
    if dora and adapter.format != target.name and "dora" not in allowed:
        raise FormatError(
            f"The format {target.name} has no place for DoRA's magnitudes, which {counted(len(dora), 'module')} "
            f"({listed(dora)}) have, {where}; give `allow` dora to leave them out"
        )
    init = start_that_changes_base(adapter.config)
    if (
        init is not None
        and _PEFTS.intersection(adapter.formats)
        and target.name != "peft"
        and "init" not in allowed
    ):
        raise FormatError(
            f"delta_W is relative to base weights that init_lora_weights {shown(repr(init))} changed, {where}; give "
            "`allow` init if the adapter will be loaded onto a base that was changed in the same way"
        )


def _held(layers: Sequence[Layer], target: Writer) -> Sequence[Layer]:
    for layer in layers:
        if not target.holds(layer):
            kind = (
                "a convolution whose kernel is not known"
                if layer.kernel is None
                else f"a module of kind {layer.kind}"
            )
            raise FormatError(
                f"The format {target.name} cannot hold {kind}, in module {shown(layer.module)}; write another format"
            )
    return layers


def _converted(
    read: Sequence[Layer],
    fitted: Sequence[Layer],
    allowed: Collection[str],
    path: str,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Layer], list[ModuleConversion]]:
    """Layers as they will be read back, and what that does to each."""
    layers, rows = [], []
    for before, wanted in zip(read, fitted, strict=True):
        with located(f"{place(path, before.module)}"):
            after = wanted.rounded()
        error = _difference(before, after)
        if error > _EXACT and "rounding" not in allowed:
            raise FormatError(
                f"Rounding to {after.dtypes[1]} would change delta_W by {error:.2g} (relative), in module "
                f"{shown(before.module)}; give `dtype` float32, or `allow` rounding"
            )
        if error > _NOTICEABLE and "underflow" not in allowed:
            _require_no_underflow(wanted, error)
        layers.append(after)
        rows.append(_row(before, after, error))
        if progress is not None:
            progress(len(rows), len(read))
    return layers, rows


def _require_no_underflow(layer: Layer, error: float) -> None:
    """Refuse to store numbers that are nearly or wholly lost because their type has no smaller ones."""
    small = [
        dtype
        for M, dtype in zip((layer.A, layer.B), layer.dtypes, strict=True)
        if np.any((M != 0) & (np.abs(M) < SMALLEST_NORMAL[dtype]))
    ]
    if small:
        cure = {"float16": "bfloat16 or float32", "bfloat16": "keep, or float32"}.get(small[0], "keep")
        raise FormatError(
            f"Numbers too small for {small[0]}: storing them would change delta_W by {error:.2g} (relative), in module "
            f"{shown(layer.module)}; give `dtype` {cure}, or `allow` underflow"
        )


def _row(before: Layer, after: Layer, error: float) -> ModuleConversion:
    return ModuleConversion(
        module=after.module,
        of=after.of,
        r=after.r,
        d_in=after.A.shape[1],
        d_out=after.B.shape[0],
        scale=after.scale,
        alpha=None if after.scale is None else alpha_of(after.scale, after.r),
        dtype=" ".join(dict.fromkeys(after.dtypes)),
        error=error,
    )


def _difference(before: Layer, after: Layer) -> float:
    """``||dW - dW'||_F / ||dW||_F`` from the factors of both, 0 where nothing changed."""
    same = np.array_equal(before.A, after.A) and np.array_equal(before.B, after.B)
    if same and before.scale == after.scale:
        return 0.0
    ratio = 1.0 if before.scale is None or after.scale is None else after.scale / before.scale
    if before.groups > 1:
        return max(_distance(*pair, ratio) for pair in zip(_groups(before), _groups(after), strict=True))
    return _distance((before.B, before.A), (after.B, after.A), ratio)


def _groups(layer: Layer) -> list[tuple[np.ndarray, np.ndarray]]:
    """(B, A) of each group that loralib stacks."""
    return list(zip(np.split(layer.B, layer.groups), np.split(layer.A, layer.groups), strict=True))


def _distance(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray], ratio: float
) -> float:
    (B, A), (B_after, A_after) = before, after
    whole = factored.norm(B, A)
    A_both = np.vstack([A, A_after]).astype(np.float64)
    rest = factored.norm(np.hstack([B.astype(np.float64), -ratio * B_after.astype(np.float64)]), A_both)
    return rest / whole if whole > 0 else 0.0 if rest == 0 else math.inf


def _kept_notes(adapter: Adapter) -> tuple[str, ...]:
    return tuple(note for note in adapter.notes if note.flag is not Flag.SCALE_UNKNOWN)


def _layer_notes(layers: Sequence[Layer]) -> tuple[str, ...]:
    notes = []
    joined = [layer.module for layer in layers if layer.groups == 1 and layer.of != (layer.module,)]
    if joined:
        notes.append(
            f"{counted(len(joined), 'fused layer')} written as one pair of rank r * groups, with zeros between the "
            f"groups: {listed(joined)}"
        )
    untrained = [layer.module for layer in layers if not (layer.B.any() and layer.A.any())]
    if untrained:
        notes.append(
            f"delta_W is exactly zero (untrained) in {len(untrained)} of {counted(len(layers), 'module')}: "
            f"{listed(untrained)}"
        )
    return tuple(notes)
