"""Fused layers of some adapters of which other adapters have the parts as layers of their own, split everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from subspace.adapters.update import Factor, LowRankUpdate, Scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters import Adapter

__all__ = ["Parts", "layers_to_split", "with_parts"]

Shapes: TypeAlias = Mapping[str, tuple[int, int]]
Parts: TypeAlias = Shapes  # name and shape (d_out, d_in) of the layers that a fused one is split into


def layers_to_split(adapters: Sequence[Shapes]) -> list[Parts]:
    """The layers of other adapters for which each adapter has to be split; empty for those that stay whole.

    Parameters
    ----------
    adapters : module -> (d_out, d_in) of each

    Examples
    --------
    >>> layers_to_split([{"h.0.q": (4, 4)}, {"h.0.q": (4, 4)}])
    [{}, {}]
    """
    different = list(dict.fromkeys(tuple(shapes.items()) for shapes in adapters))
    parts = _parts(adapters)
    split = {layout: _splits(dict(layout), parts) for layout in different} if parts else {}
    return [parts if split.get(tuple(shapes.items())) else {} for shapes in adapters]


def with_parts(adapter: Adapter, parts: Parts) -> Adapter:
    """An adapter with its fused layers split into parts."""
    if not parts:
        return adapter
    from subspace.adapters.naming.fused_parts import separated

    whole = [name for name in adapter if name not in parts]
    return separated(adapter, whole, _updates(parts))


def _parts(adapters: Sequence[Shapes]) -> dict[str, tuple[int, int]]:
    """Layers that are a part of a fused one in another library, of all adapters together."""
    from subspace.adapters.naming.translation import names_elsewhere

    found: dict[str, tuple[int, int]] = {}
    for shapes in adapters:
        for name, shape in shapes.items():
            if name not in found and any(there.endswith("]") for there in names_elsewhere(name)):
                found[name] = shape
    return found


def _splits(shapes: Shapes, parts: Parts) -> bool:
    from subspace.adapters.adapter import Adapter

    whole = Adapter("", "", "memory", _updates(shapes))
    return with_parts(whole, parts) is not whole and with_parts(whole, parts).updates != whole.updates


def _updates(shapes: Shapes) -> dict[str, Any]:
    """Updates of these shapes, whose numbers nobody asks for."""
    return {
        name: LowRankUpdate(name, _blank(1, d_in), _blank(d_out, 1), Scale(1.0, "tensor"))
        for name, (d_out, d_in) in shapes.items()
    }


def _blank(n: int, m: int) -> Factor:
    def zeros() -> NDArray[np.float32]:
        return np.broadcast_to(np.float32(0), (n, m))

    return Factor((n, m), "float32", zeros)
