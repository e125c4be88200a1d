"""From keys to pairs: what most formats share."""

from __future__ import annotations

import re
from collections.abc import Iterable

from subspace.adapters.format import Ignored, Source
from subspace.adapters.update import Factor
from subspace.errors import ShapeError, shown

__all__ = ["check_rank", "in_order", "other_tensors", "unpaired"]

_NUMBER = re.compile(r"(\d+)")
_COPIES = ("modules_to_save", "original_module")
_ORDINARY = re.compile(
    r"(^|\.)(weight|bias|running_mean|running_var|num_batches_tracked|inv_freq|position_ids|masked_bias)$"
)


def in_order(names: Iterable[str]) -> list[str]:
    """Names sorted with their numbers as numbers: layer 2 comes before layer 10.

    Examples
    --------
    >>> in_order(["h.10.q", "h.2.q"])
    ['h.2.q', 'h.10.q']
    """
    return sorted(
        names, key=lambda name: [(len(p), p) if p.isdigit() else (0, p) for p in _NUMBER.split(name)]
    )


def check_rank(A: Factor, B: Factor, module: str, source: Source) -> None:
    """Raise `ShapeError` unless B (d_out, r) and A (r, d_in) multiply."""
    if B.shape[1] != A.shape[0]:
        raise ShapeError(
            f"A (r, d_in) and B (d_out, r) must have one rank: got A {list(A.shape)} and B {list(B.shape)}, "
            f"in module {shown(module)} of {source.path}"
        )


def unpaired(module: str, has: str, lacks: str, source: Source) -> ShapeError:
    """The error that one factor of a module is missing."""
    return ShapeError(
        f"every A must have its B: got {has} without {lacks}, in module {shown(module)} of {source.path}; "
        "the file is incomplete"
    )


def other_tensors(source: Source, used: set[str]) -> tuple[tuple[Ignored, ...], tuple[str, ...]]:
    """Every tensor that no update uses: known ones with why, and unknown ones."""
    ignored, unknown = [], []
    for key in source.tensors.layout:
        if key in used:
            continue
        why = reason(key)
        if why:
            ignored.append(Ignored(key, why))
        else:
            unknown.append(key)
    return tuple(ignored), tuple(unknown)


def reason(key: str) -> str | None:
    """Why a tensor is not part of an update, or None if it is not known."""
    parts = key.split(".")
    if any(part in _COPIES for part in parts):
        return "a copy that PEFT keeps for modules_to_save"
    if "base_layer" in parts:
        return "a weight of the base model"
    if "lora_bias" in parts or key.endswith(("lora_B.bias", "lora_up.bias")):
        return "a bias beside the update, not part of delta_W"
    if "lora_dropout_mask" in parts:
        return "a dropout mask"
    if "lora_" not in key and _ORDINARY.search(key):
        return "trained or saved in full, not a low-rank update"
    return None
