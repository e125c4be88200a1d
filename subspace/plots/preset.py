"""What a file of `subspace.plots.presets` declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.results.comparison import Comparison

__all__ = ["Draw", "Preset"]


class Draw(Protocol):
    """A function that lays one side of a comparison out as figures."""

    def __call__(
        self, comparison: Comparison, *, side: str, layer: int | None, relative: bool
    ) -> list[Figure]:
        """Return one figure per page.

        `layer` is None unless the user asked for one; with `relative`, colours show phi over isotropic random spans.
        """


@dataclass(frozen=True)
class Preset:
    """One way to lay a comparison out as figures.

    Attributes
    ----------
    name : that of its file, by which it is asked for
    about : one line, for help texts
    draw : the function that draws it
    """

    name: str
    about: str
    draw: Draw

    def __call__(
        self, comparison: Comparison, *, side: str, layer: int | None = None, relative: bool = False
    ) -> list[Figure]:
        """Return the figures of one side of a comparison."""
        return self.draw(comparison, side=side, layer=layer, relative=relative)
