"""What merging would leave of the update that was trained, in the type that the weights of the base are stored in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from subspace.errors import ValueRangeError
from subspace.geometry.visibility import Merge, Visibility, visibility
from subspace.text import listed
from subspace.training.adapted_layer import AdaptedLayer
from subspace.training.injection import adapted
from subspace.training.module_patterns import bare_name

__all__ = ["merged_line", "merged_update", "warn_of_loss"]

_LITTLE = 0.5  # of the norm: with less left there is a warning
_TYPES = (torch.bfloat16, torch.float16)
_ROWS = 64  # of a weight, which tell that it is none of a type with 16 bits


def merged_update(model: nn.Module) -> dict[str, Any] | None:
    """Return how much of the active adapter is left when it is merged into the weights of the base as they are stored.

    Parameters
    ----------
    model : adapted; it stays as it is

    Returns
    -------
    dict : ``dtype``, shares ``changed`` and ``norm_left`` and the ``cosine`` of what is left, in all and per module;
        None where no adapted weight has a type with 16 bits

    Notes
    -----
    The numbers are those of ``(W + delta_W)`` in float32, rounded once, which is what `merge` writes into a model of
    that type. A weight of float32 whose numbers are all numbers of bfloat16 or float16, as that of a base that was read
    from a file of such numbers, has that type here. Others lose nothing that counts, and are left out.
    """
    found: dict[str, tuple[str, Visibility]] = {}
    for name, layer in adapted(model):
        if layer.active is not None and (dtype := _stored(layer.base_weight)) is not None:
            with suppress(
                ValueRangeError
            ):  # a base with NaN or Inf, which a run that is done does not fail for
                found[bare_name(name)] = dtype, _left(layer, dtype)
    if not found:
        return None
    total = reduce(add, (left for _, left in found.values()))
    types = sorted({dtype for dtype, _ in found.values()})
    modules = {name: {"dtype": dtype, **_numbers(left)} for name, (dtype, left) in found.items()}
    return {"dtype": " and ".join(types), **_numbers(total), "modules": modules}


def _stored(weight: Tensor) -> str | None:
    """The narrowest type with 16 bits that has all numbers of a weight; None where there is none."""
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.is_meta:
        return None
    weight = weight.detach()
    for dtype in _TYPES:
        if weight.dtype == dtype or all(
            bool((part.to(dtype).to(part.dtype) == part).all()) for part in (weight[:_ROWS], weight)
        ):
            return str(dtype).removeprefix("torch.")
    return None


def _left(layer: AdaptedLayer, dtype: str) -> Visibility:
    W, delta_W = (
        value.detach().float().cpu().flatten(1).numpy()
        for value in (layer.base_weight, layer.delta_weight(layer.active or ""))
    )
    return visibility(Merge(W, delta_W, dtype))


def _numbers(left: Visibility) -> dict[str, float | None]:
    numbers = {"changed": left.changed / left.entries, "norm_left": left.norm_left, "cosine": left.cosine}
    return {name: None if math.isnan(value) else value for name, value in numbers.items()}


def merged_line(record: Mapping[str, Any]) -> str | None:
    """Return what the record of a run says of merging, as a line; None where it says nothing.

    Parameters
    ----------
    record : content of ``run.json``

    Examples
    --------
    >>> merged_line({"merged": {"dtype": "bfloat16", "changed": 0.25, "norm_left": 0.9, "cosine": 0.8}})
    'merged into the base in bfloat16: 25 % of the entries change; 90 % of the norm of the update is left, cosine 0.8'
    """
    found = record.get("merged")
    if not found or found["norm_left"] is None:
        return None
    cosine = f", cosine {found['cosine']:.3g}" if found["cosine"] is not None else ""
    return (
        f"merged into the base in {found['dtype']}: {100 * found['changed']:.3g} % of the entries change; "
        f"{100 * found['norm_left']:.3g} % of the norm of the update is left{cosine}"
    )


def warn_of_loss(found: Mapping[str, Any] | None, tell: Callable[[str], None]) -> None:
    """Call `tell` with a warning where merging leaves less than half of the norm, in all or in a module.

    Parameters
    ----------
    found : from `merged_update`
    tell : called with one sentence
    """
    if found is None or found["norm_left"] is None:
        return
    cure = "merge into float32 weights, or keep the adapter apart"
    if found["norm_left"] < _LITTLE:
        tell(
            f"weights merged in {found['dtype']}, in which the base is stored, keep only "
            f"{100 * found['norm_left']:.2g} % of the norm of the update; {cure}"
        )
        return
    little = [
        name
        for name, numbers in found["modules"].items()
        if numbers["norm_left"] is not None and numbers["norm_left"] < _LITTLE
    ]
    if little:
        tell(
            f"weights merged in {found['dtype']}, in which the base is stored, keep less than half of the norm of the "
            f"update in {len(little)} of {len(found['modules'])} modules ({listed(little)}); {cure}"
        )
