"""Reading an adapter from a file, a directory, tensors in memory or a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from subspace.adapters import formats
from subspace.adapters.adapter import Adapter, with_scale
from subspace.adapters.clean_source import cleaned
from subspace.adapters.directory import no_adapter_itself
from subspace.adapters.format import LAYOUTS, Source
from subspace.adapters.hollow import refuse_hollow
from subspace.adapters.opening import opened
from subspace.adapters.recognition import recognised
from subspace.adapters.unused import with_unused
from subspace.errors import FormatError, UnrecognisedError
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.adapters.base.weights import BaseWeights

__all__ = ["load_adapter"]


def load_adapter(
    source: Any,
    *,
    base: Any = None,
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    layout: str | None = None,
    rename: Mapping[str, str] | None = None,
) -> Adapter:
    """Read an adapter of any known format, as module name -> update.

    The format is recognised from the names and shapes of the tensors. Only the header of the file is read here;
    factors are read when they are used.

    Parameters
    ----------
    source : str, path, mapping, nn.Module or Adapter
        Path of a file or of a directory such as PEFT's; ``hf://org/name[@revision][:inside]`` of the Hugging Face hub,
        or without hf:// where neither it nor ``org`` exists here; a mapping of names to NumPy arrays or tensors; a
        model in memory; or an `Adapter`, to which `scale` and `rename` are applied.
    base : str, path, mapping, nn.Module or BaseWeights, optional
        Weights of the base model, as `load_base` takes them. Needed where `source` is a full fine-tune, which is
        read as its difference from the base, or where the adapter rescales or rotates the base weights (IA3, OFT,
        BOFT).
    scale : float, optional
        Multiplier of every ``B @ A``, in place of what the file says: alpha / r, or alpha / sqrt(r) of rsLoRA.
    adapter_name : str, optional
        Which adapter to read, where `source` holds several; needed then.
    enable_lora : sequence of bool, optional
        Which groups of a fused layer are adapted, as loralib's ``MergedLinear`` takes it: ``(True, False, True)``
        for q and v of a layer of q, k and v. By default what the file says, if anything.
    layout : str, optional
        How the factors are stored, where their shapes do not say it: "BA" is A (r, d_in) and B (d_out, r); "AB" is
        both transposed, for ``x @ A @ B``; "BAt" is A alone transposed, and "BtA" is B alone. By default what the
        format has, or what the shapes, the rank and the other modules of the file say.
    rename : mapping of str to str, optional
        Old -> new names of modules, each a module or a dotted prefix of modules.

    Returns
    -------
    Adapter
        Modules in natural order (layer 2 before layer 10), with the tensors that belong to no update and notes on
        what the file does not say.

    Raises
    ------
    FileError : the file is missing, damaged or unsafe to read
    FormatError : no known format fits, or more than one, or the file contradicts itself
    ShapeError : the factors of a module do not fit together

    Examples
    --------
    >>> import numpy as np
    >>> adapter = load_adapter({"q.lora_A": np.ones((2, 4)), "q.lora_B": np.ones((3, 2))})
    >>> adapter["q"].r, adapter["q"].d_in, adapter["q"].d_out
    (2, 4, 3)
    """
    adapter = (
        source if isinstance(source, Adapter) else _read(source, base, adapter_name, enable_lora, layout)
    )
    if rename:
        from subspace.adapters.naming.rename import renamed

        adapter = renamed(adapter, rename)
    return adapter if scale is None else with_scale(adapter, scale)


def _read(
    source: Any, base: Any, adapter_name: str | None, enable_lora: Sequence[bool] | None, layout: str | None
) -> Adapter:
    found = replace(
        cleaned(opened(source, adapter_name), live=hasattr(source, "state_dict")),
        enabled=_groups(enable_lora),
        base=_base(base),
        layout=_known_layout(layout),
    )
    refuse_hollow(found)
    try:
        adapter = _from_base(found) or recognised(found)
    except UnrecognisedError as error:
        raise no_adapter_itself(source) or error from None
    # a model in memory has its adapters by name, whatever its keys are
    return with_unused(adapter, found, named=None if hasattr(source, "named_modules") else adapter_name)


def _base(base: Any) -> BaseWeights | None:
    if base is None:
        return None
    from subspace.adapters.base.weights import load_base

    return load_base(base)


def _known_layout(layout: str | None) -> str | None:
    if layout is not None and layout not in LAYOUTS:
        raise FormatError(
            f"Unknown `layout` {shown(repr(layout))}; choose one of {', '.join(LAYOUTS)}: BA is A (r, d_in) and B "
            "(d_out, r), AB is both transposed"
        )
    return layout


def _groups(enable_lora: Sequence[bool] | None) -> tuple[bool, ...] | None:
    if enable_lora is None:
        return None
    if isinstance(enable_lora, str) or not all(on in (0, 1) for on in enable_lora) or not any(enable_lora):
        raise FormatError(
            f"Invalid `enable_lora` {shown(_as_digits(enable_lora))}: it says of each group of a fused layer whether "
            "it is adapted, and at least one is; give it such as 1,0,1 for q and v"
        )
    return tuple(bool(on) for on in enable_lora)


def _as_digits(groups: Any) -> str:
    bits = not isinstance(groups, str) and all(on in (0, 1) for on in groups)
    return ",".join(str(int(on)) for on in groups) if bits else repr(groups)


def _from_base(source: Source) -> Adapter | None:
    """A full fine-tune as its difference from the base; None without a base, or where the file is an adapter."""
    if source.base is None or source.parts or formats.matching_formats(source):
        return None
    from subspace.adapters.finetune import difference

    return difference(source, source.base)
