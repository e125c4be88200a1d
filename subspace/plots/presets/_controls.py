"""Where the panels of controls stand: each under that of its module."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from subspace.plots.panel import Panel

__all__ = ["Panels", "any_control", "each_with_control", "of_each_layer", "rows_with_controls"]

Panels: TypeAlias = "Sequence[Panel | None]"


def any_control(controls: Sequence[Panels]) -> bool:
    """Return whether there is a control at all."""
    return any(panel is not None for layer in controls for panel in layer)


def of_each_layer(layers: Sequence[Panels], controls: Sequence[Panels]) -> list[tuple[Panels, Panels]]:
    """Return per layer its panels and those of its controls, of which there may be fewer or none."""
    return list(zip_longest(layers, controls[: len(layers)], fillvalue=()))


def rows_with_controls(rows: Sequence[Panels], controls: Sequence[Panels]) -> list[Panels]:
    """Return the rows of panels, each followed by the row of its controls if it has any.

    Examples
    --------
    >>> rows_with_controls([["q0", "v0"], ["q1", "v1"]], [["control", None], [None, None]])
    [['q0', 'v0'], ['control', None], ['q1', 'v1']]
    """
    pairs = of_each_layer(rows, controls)
    return [row for row, of_row in pairs for row in ([row, of_row] if any_control([of_row]) else [row])]


def each_with_control(panels: Panels, controls: Panels) -> list[Panel | None]:
    """Return the panels, each followed by its control or by None.

    Examples
    --------
    >>> each_with_control(["q", "v"], ["control"])
    ['q', 'control', 'v', None]
    """
    return [one for pair in zip_longest(panels, controls) for one in pair]
