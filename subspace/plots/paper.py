"""From a comparison to the paper's figures: which modules stand in which panel."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from subspace.adapters.naming.sorting import shared_beginning
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.plots import figures
from subspace.plots.baseline import random_panel
from subspace.plots.panel import Panel
from subspace.text import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.results.comparison import Comparison, ModuleComparison

__all__ = ["PRESETS", "panel", "paper_figures"]

_LAYER = re.compile(r"(?:^|(?<=[._]))(\d+)(?=$|[._\[])")
_Q = re.compile(r"(?:^|[._\[])(?:q|query|q_proj|to_q|q_lin|q_attn|wq|w_q)(?:$|[._\]])", re.IGNORECASE)
_V = re.compile(r"(?:^|[._\[])(?:v|value|v_proj|to_v|v_lin|wv|w_v)(?:$|[._\]])", re.IGNORECASE)
_COMMON = ("adapter_model", "adapter", "pytorch_lora_weights", "adapters", "model", "pytorch_model")
_BASE = "base weights"
_SIDES = {"a": "A", "b": "B", "left": "ΔW, left", "right": "ΔW, right"}


_Names = tuple[str, str]


def panel(
    row: ModuleComparison, *, title: str | None = None, names: _Names = ("the first", "the second")
) -> Panel:
    """Return the heatmap of one module and side; rows i are the first adapter's directions, columns j the second's."""
    return Panel(
        phi=row.phi,
        d=row.d,
        title=title if title is not None else f"{row.module} ({_SIDES[row.side]})",
        i_label=f"i, of {names[0]}",
        j_label=f"j, of {names[1]}",
        r_first=None if _is_dense(row) else min(row.r_first, row.d),
        r_second=None if _is_dense(row) else min(row.r_second, row.d),
    )


def _is_dense(row: ModuleComparison) -> bool:
    return bool({"dense", "base"} & set(row.flags))


def paper_figures(
    comparison: Comparison, preset: str, *, side: str, layer: int | None = None
) -> list[Figure]:
    """Draw one of the paper's figures, or a page of heatmaps for all modules; one figure per page.

    Parameters
    ----------
    preset : {"fig3", "fig4", "fig6", "fig7", "fig8", "grid"}
    side : of the comparison's sides
    layer : for figures 3, 4 and 8, which layer; the middle one by default

    Raises
    ------
    InconclusiveError : no module of that side has a score
    ValueRangeError : there is no such layer, or figure 8 is asked for without base weights
    """
    rows = [row for row in comparison.modules if row.side == side and row.phi.size and row.init == "kept"]
    if not rows:
        raise InconclusiveError(f"a figure needs a module with a score: side {side} has none")
    names = _short(comparison.first.path), _short(comparison.second.path)
    if preset == "fig8" and comparison.second.format == _BASE:
        # figure 8 has W's directions on the i axis, whichever way round the two were given
        rows, names = [_exchanged(row) for row in rows], names[::-1]
    return PRESETS[preset](rows, layer, names)


def _exchanged(row: ModuleComparison) -> ModuleComparison:
    """What is drawn of a row with first and second exchanged: phi(A, A', i, j) = phi(A', A, j, i)."""
    return replace(row, phi=row.phi.T, r_first=row.r_second, r_second=row.r_first)


def _short(path: str) -> str:
    """A path's telling part: its file's stem, or the folder of a file that everybody calls the same.

    Examples
    --------
    >>> _short("runs/a_r8/adapter_model.safetensors"), _short("a_r64.pt")
    ('a_r8', 'a_r64')
    """
    file = PurePath(path)
    name = file.parent.name if file.stem in _COMMON and file.parent.name else file.stem or path
    return shown(name, longest=60)


def _grid(rows: Sequence[ModuleComparison], layer: int | None, names: _Names) -> list[Figure]:
    chosen = rows if layer is None else _at(rows, layer)
    _, told = shared_beginning([row.module for row in chosen])
    panels = [panel(row, title=title, names=names) for row, title in zip(chosen, told, strict=True)]
    return [figures.grid(panels, page=n + 1) for n in range(figures.page_count(len(panels)))]


def _figure_3(rows: Sequence[ModuleComparison], layer: int | None, names: _Names) -> list[Figure]:
    return [figures.figure_3([_titled(row, names) for row in _at(_kinds(rows), layer)])]


def _figure_4(rows: Sequence[ModuleComparison], layer: int | None, names: _Names) -> list[Figure]:
    chosen = _at(_kinds(rows), layer)
    r_first, r_second = chosen[0].phi.shape
    chance = random_panel(r_first, r_second, chosen[0].d)
    return [figures.figure_4([*(_titled(row, names) for row in chosen), chance])]


def _figure_6(rows: Sequence[ModuleComparison], layer: int | None, names: _Names) -> list[Figure]:
    return [figures.figure_6(_over_layers(rows, layer, names))]


def _figure_7(rows: Sequence[ModuleComparison], layer: int | None, names: _Names) -> list[Figure]:
    return [figures.figure_7(_over_layers(rows, layer, names))]


def _figure_8(rows: Sequence[ModuleComparison], layer: int | None, names: _Names) -> list[Figure]:
    if not all("base" in row.flags for row in rows):
        raise ValueRangeError("figure 8 needs base weights on one side: got two adapters; give W as FIRST")
    drawn = []
    for row in _at(_kinds(rows), layer):
        one = _titled(row, names)
        n_i, n_j = one.phi.shape
        drawn += [one, random_panel(n_i, n_j, row.d, title="Random")]
    return [figures.figure_8(drawn)]


PRESETS: dict[str, Callable[[Sequence[ModuleComparison], int | None, _Names], list[Figure]]] = {
    "fig3": _figure_3,
    "fig4": _figure_4,
    "fig6": _figure_6,
    "fig7": _figure_7,
    "fig8": _figure_8,
    "grid": _grid,
}


def _titled(row: ModuleComparison, names: _Names) -> Panel:
    layer, kind = _place(row.module)
    name = kind.rpartition(".")[2] or kind or row.module
    where = f", layer {layer}" if layer is not None else ""
    return panel(row, title=f"{name}{where} ({_SIDES[row.side]})", names=names)


def _place(module: str) -> tuple[int | None, str]:
    """Layer number of a module (the first number in its path) and the path without it.

    Examples
    --------
    >>> _place("encoder.layer.3.attention.query")
    (3, 'encoder.layer..attention.query')
    """
    found = _LAYER.search(module)
    if found is None:
        return None, module
    return int(found[1]), module[: found.start()] + module[found.end() :]


def _kinds(rows: Sequence[ModuleComparison]) -> list[ModuleComparison]:
    """Rows of the q and v modules where there are any, else of the first two kinds of module."""
    kinds = list(dict.fromkeys(_place(row.module)[1] for row in rows))
    chosen = [next((kind for kind in kinds if pattern.search(kind)), None) for pattern in (_Q, _V)]
    wanted = [kind for kind in chosen if kind is not None] or kinds[:2]
    return [row for kind in wanted for row in rows if _place(row.module)[1] == kind]


def _layers(rows: Sequence[ModuleComparison]) -> list[int | None]:
    found = {_place(row.module)[0] for row in rows}
    return sorted(found, key=lambda layer: -1 if layer is None else layer)


def _at(rows: Sequence[ModuleComparison], layer: int | None) -> list[ModuleComparison]:
    """Rows of one layer: the one asked for, or the middle one of those that have the most modules."""
    layers = _layers(rows)
    if layer is not None and layer not in layers:
        listed = shown(", ".join(map(str, layers)))
        raise ValueRangeError(f"a layer must be one of the comparison's: got {layer}, of {listed}")
    counts = {n: sum(_place(row.module)[0] == n for row in rows) for n in layers}
    full = [n for n in layers if counts[n] == max(counts.values())]
    wanted = layer if layer is not None else full[len(full) // 2]
    return [row for row in rows if _place(row.module)[0] == wanted]


def _over_layers(rows: Sequence[ModuleComparison], layer: int | None, names: _Names) -> list[list[Panel]]:
    """Panels of four layers from first to last, as the paper's 1, 32, 64 and 96 of 96."""
    chosen = _kinds(rows)
    layers = _layers(chosen)
    if layers == [None]:
        return [[_titled(row, names) for row in chosen]]
    n = len(layers)
    spread = [layers[k] for k in sorted({0, (n - 1) // 3, 2 * (n - 1) // 3, n - 1})]
    wanted = spread if layer is None else [layer]
    return [[_titled(row, names) for row in _at(chosen, number)] for number in wanted]
