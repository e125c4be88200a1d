"""Pairs called ``down`` (r, d_in) and ``up`` (d_out, r), each with an alpha, as formats of image models have them.

A convolution is ``down`` (r, in, kh, kw) and a pointwise ``up`` (out, r, 1, 1): flattened, their product is
``delta_W`` (out, in * kh * kw).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from subspace.adapters.format import Source
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.update import LowRankUpdate, Scale
from subspace.errors import FormatError, ShapeError
from subspace.flags import Flag
from subspace.text import shown

__all__ = ["complete", "scale_or_1", "sorted_by_module", "update"]


def sorted_by_module(
    source: Source, part_of: Callable[[str], tuple[str, str] | None]
) -> dict[str, dict[str, str]]:
    """Module -> part -> key, such as ``{"q": {"down": "q.lora_down.weight"}}``.

    Parameters
    ----------
    part_of : key -> (module, part), None for a key that belongs to no module

    Raises
    ------
    FormatError : two keys are the same part of one module, as where two layouts are mixed
    """
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for key in source.tensors.layout:
        named = part_of(key)
        if named is None:
            continue
        module, part = named
        if part in found[module]:
            raise FormatError(
                f"Two tensors for {part} of one module: {shown(found[module][part])} and {shown(key)}, in "
                f"{source.place(module)}; take one of them out"
            )
        found[module][part] = key
    return dict(found)


def complete(module: str, keys: Mapping[str, str], names: tuple[str, str], source: Source) -> bool:
    """Whether a module has both factors; False if it has neither (an alpha alone).

    Parameters
    ----------
    names : of down and up in the file, for a message

    Raises
    ------
    ShapeError : it has one factor without the other
    """
    has = "down" in keys, "up" in keys
    if has == (True, False):
        raise pairs.unpaired(module, *names, source)
    if has == (False, True):
        raise pairs.unpaired(module, *names[::-1], source)
    return all(has)


def update(module: str, keys: Mapping[str, str], scale: Scale, source: Source) -> LowRankUpdate:
    """The update of one module, linear or convolution.

    Raises
    ------
    ShapeError : the factors do not multiply, or ``up`` of a convolution is not pointwise
    """
    A, B = source.factor(keys["down"]), source.factor(keys["up"])
    down, up = source.shape(keys["down"]), source.shape(keys["up"])
    if len(down) != len(up):
        raise ShapeError(
            f"down and up differ in their number of dimensions: {list(down)} and {list(up)}, in {source.place(module)}"
        )
    if any(size != 1 for size in up[2:]):
        raise ShapeError(
            f"up of a convolution is not pointwise: its shape is {list(up)}, in {source.place(module)}"
        )
    pairs.check_rank(A, B, module, source)
    return LowRankUpdate(
        module=module,
        A_factor=A,
        B_factor=B,
        scale=scale,
        kind="conv" if len(down) > 2 else "linear",
        flags=(Flag.DORA,) if "dora" in keys else (),
    )


def scale_or_1(module: str, keys: dict[str, str], source: Source, *, otherwise: str) -> Scale:
    """``alpha / r`` where the file holds an alpha for the module, else 1; for a model in memory, its layer's scale.

    Parameters
    ----------
    otherwise : where a scale of 1 comes from, for the user
    """
    if module in source.scales:
        return Scale(source.scales[module], "module")
    if "alpha" not in keys:
        return Scale(1.0, otherwise)
    alpha = source.tensors.read_scalar(keys["alpha"])
    return Scale(alpha / source.factor(keys["down"]).shape[0], "tensor", alpha)
