"""A library, drawn: all pairs with their tree, nearest adapters, layers against layers, lineage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import InconclusiveError, ValueRangeError
from subspace.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from subspace.results.library import Library

__all__ = ["KINDS", "drawn"]

KINDS = ("heatmap", "neighbours", "layers", "lineage")
_MEASURES = {"cosine": "cosine of delta_W", "a": "A", "b": "B", "left": "output side", "right": "input side"}


def drawn(library: Library, kind: str, *, ax: Axes | None = None, **keywords: Any) -> Axes:
    """Draw a library and return the axes.

    Parameters
    ----------
    kind : "heatmap" of all pairs under their tree, the cosine of delta_W above the diagonal and phi of the first side
        over its level below; "neighbours", what is nearest to each adapter; "layers", phi between the layers of a kind
        of module; or "lineage", which continued from which
    keywords : of the chart

    Raises
    ------
    ValueRangeError : there is no such kind
    InconclusiveError : there is nothing to draw
    """
    if kind not in KINDS:
        raise ValueRangeError(f"Unknown `kind` of plot {shown(repr(kind))}; choose one of {', '.join(KINDS)}")
    return _CHARTS[kind](library, {"ax": ax, **keywords})


def _heatmap(library: Library, keywords: Mapping[str, Any]) -> Axes:
    from subspace.plots.charts.library_map import library_map

    side = next(iter(each for each in library.likeness if each != "cosine"))
    upper, lower = library.likeness["cosine"], library.likeness[side]
    if not np.isfinite(upper[~np.eye(len(upper), dtype=bool)]).any():
        upper = lower  # no scale is known
    measures = "cosine of delta_W", f"φ of {_MEASURES[side]} over its level"
    settings: dict[str, Any] = {"lower": np.clip(lower, -1, 1), "measures": measures, "tree": library.tree}
    return library_map(upper, _names(library), **(settings | dict(keywords)))


def _neighbours(library: Library, keywords: Mapping[str, Any]) -> Axes:
    from subspace.plots.charts.nearest_adapters import nearest_adapters

    settings = {"measure": _MEASURES["cosine"]} | dict(keywords)
    return nearest_adapters(library.likeness["cosine"], _names(library), **settings)


def _layers(library: Library, keywords: Mapping[str, Any]) -> Axes:
    from subspace.plots.charts.layer_by_layer import layer_by_layer

    if not library.layers:
        raise InconclusiveError(
            "No layers to compare: they were not measured, or no kind of module is in two layers; ask for `layers`"
        )
    found = {each.kind: each for each in library.layers}
    settings: dict[str, Any] = {
        "chance": {kind: each.chance for kind, each in found.items()},
        "measure": f"φ of {_MEASURES[library.layers[0].side]}, mean over pairs of adapters",
        "pair": ("layer of one adapter", "layer of another"),
    }
    phi = {kind: np.asarray(each.phi) for kind, each in found.items()}
    numbers = {kind: each.layers for kind, each in found.items()}
    return layer_by_layer(phi, numbers, **(settings | dict(keywords)))


def _lineage(library: Library, keywords: Mapping[str, Any]) -> Axes:
    from subspace.plots.charts.lineage_graph import lineage_graph

    number = {each.path: n for n, each in enumerate(library.adapters)}
    edges = [(number[e.earlier], number[e.later], e.kind) for e in library.lineage]
    settings: dict[str, Any] = {
        "groups": [[number[path] for path in group] for group in library.start_groups],
        "steps": [each.step for each in library.adapters],
    }
    return lineage_graph(edges, _names(library), **(settings | dict(keywords)))


def _names(library: Library) -> list[str]:
    return [each.name for each in library.adapters]


_CHARTS: Mapping[str, Callable[[Library, Mapping[str, Any]], Axes]] = {
    "heatmap": _heatmap,
    "neighbours": _neighbours,
    "layers": _layers,
    "lineage": _lineage,
}
