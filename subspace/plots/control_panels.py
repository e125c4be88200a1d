"""Heatmaps of a matched control: pairs of modules that are as alike as two of one name, but for what they are to learn.

What two adapters of one base agree in may be the inputs of their modules alone. A control shows how much that is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from subspace.plots.comparison_panels import panel_of
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.plots.panel import Panel
    from subspace.results.comparison import ModuleComparison

__all__ = ["control_note", "control_panel_of", "control_words"]

_WORDS = {"same_input": "same input, other job", "layers": "same kind, other layers"}
_MEANING = {
    "same_input": "mean φ of a module and others of the second adapter that read the same input (q against k or v)",
    "layers": "mean φ of a module and those of its kind in other layers of the second adapter",
}


def control_words(kind: str) -> str:
    """Return a kind of control in words.

    Examples
    --------
    >>> control_words("same_input"), control_words("layers")
    ('same input, other job', 'same kind, other layers')
    """
    return _WORDS.get(kind, shown(kind))


def control_panel_of(row: ModuleComparison, *, title: str, names: tuple[str, str]) -> Panel | None:
    """Return the heatmap of a module's control, which has the axes of the module's own; None without a control.

    Parameters
    ----------
    row : ModuleComparison
        One that has a score.
    title : str
        Title of the module's own heatmap.
    names : (str, str)
        The first and the second adapter, as the axes call them.
    """
    grid, control = getattr(row, "phi_control_grid", None), getattr(row, "control", None)
    if grid is None or control is None or not grid.size:
        return None
    whole = f"Control ({control_words(control['kind'])}): {title}"
    return replace(panel_of(row, title=whole, names=names), phi=grid, j_module=None, control=control)


def control_note(panels: Iterable[Panel]) -> str:
    """Return what the controls among the panels are, empty without one."""
    kinds = dict.fromkeys(panel.control["kind"] for panel in panels if panel.control is not None)
    return "; ".join(f"control, {_WORDS[kind]}: {_MEANING[kind]}" for kind in kinds if kind in _WORDS)
