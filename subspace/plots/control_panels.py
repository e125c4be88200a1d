"""Heatmaps of matched controls: pairs of modules of the same two adapters that differ from a module in their job.

What two adapters of one base agree in may be the inputs of their modules alone. A control shows how much that is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from subspace.adapters.naming.same_input import place_of
from subspace.plots.comparison_panels import panel_of
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.plots.panel import Panel
    from subspace.results.module_comparison import ModuleComparison

__all__ = ["control_note", "control_panel_of", "control_title", "control_words", "of_one_input"]

_WORDS = {"same_input": "same input, other job", "layers": "same kind, other layers"}
_MEANING = {
    "same_input": "control, mean φ of pairs of modules that read one input, as q of one adapter and v of the other",
    "layers": "control, mean φ of pairs of modules of one kind in different layers",
}


def control_words(kind: str) -> str:
    """Return a kind of control in words.

    Examples
    --------
    >>> control_words("same_input"), control_words("layers")
    ('same input, other job', 'same kind, other layers')
    """
    return _WORDS.get(kind, shown(kind))


def control_note(kinds: Iterable[str]) -> str:
    """Return what these kinds of controls are, empty without one."""
    return "; ".join(f"{_WORDS[kind]}: {_MEANING[kind]}" for kind in dict.fromkeys(kinds) if kind in _WORDS)


def of_one_input(modules: Sequence[str]) -> dict[str, list[str]]:
    """Return per module the others that read its input, each by the end of its name.

    Examples
    --------
    >>> of_one_input(["h.0.attn.q", "h.0.attn.v", "h.1.attn.q"])
    {'h.0.attn.q': ['v'], 'h.0.attn.v': ['q'], 'h.1.attn.q': []}
    """
    readers: dict[str | None, list[str]] = defaultdict(list)
    for module in dict.fromkeys(modules):
        readers[place_of(module).input].append(module)
    readers[None] = []
    found = {module: readers[place_of(module).input] for module in modules}
    return {module: [_end(other) for other in each if other != module] for module, each in found.items()}


def _end(module: str) -> str:
    """Return what follows the last dot, or the last underscore in a flattened name."""
    return module.rpartition("." if "." in module else "_")[2]


def control_title(kind: str, title: str, others: Sequence[str]) -> str:
    """Return the title of a module's control.

    Parameters
    ----------
    kind : str
        Of the control.
    title : str
        The module's own, which may end in its layer.
    others : sequence of str
        The modules that read its input.

    Examples
    --------
    >>> control_title("same_input", "q, layer 3", ["k", "v"])
    'same input, other job: q against k and v, layer 3'
    >>> control_title("layers", "q, layer 3", ["k", "v"])
    'same kind, other layers: q, layer 3'
    """
    module, comma, layer = title.partition(", layer ")
    against = f" against {' and '.join(others)}" if kind == "same_input" and others else ""
    return f"{control_words(kind)}: {module}{against}{comma}{layer}"


def control_panel_of(row: ModuleComparison, *, title: str, names: tuple[str, str]) -> Panel | None:
    """Return the heatmap of a module's control, with the axes of the module's own; None without a control.

    Parameters
    ----------
    row : ModuleComparison
        One that has a score.
    title : str
        That of the control.
    names : (str, str)
        The first and the second adapter, as the axes call them.
    """
    grid, control = row.phi_control_grid, row.control
    if grid is None or control is None or not grid.size:
        return None
    own = panel_of(row, title=title, names=names)
    return replace(own, phi=grid, j_module=None, control=control)
