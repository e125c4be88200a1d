"""What a file of `subspace.plots.presets` declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Preset"]


@dataclass(frozen=True)
class Preset:
    """One way to lay a comparison out as figures.

    Attributes
    ----------
    name : that of its file, by which it is asked for
    about : one line, for help texts
    draw : called as ``draw(comparison, side=..., layer=...)``; returns one figure per page. `layer` is None unless
        the user asks for one
    """

    name: str
    about: str
    draw: Callable[..., list[Figure]]

    def __call__(self, comparison: Any, *, side: str, layer: int | None = None) -> list[Figure]:
        """Return the figures of one side of a comparison."""
        return self.draw(comparison, side=side, layer=layer)
