"""Which adapters of a library continued from which: a row for each line of training, from left to right."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from subspace.errors import InconclusiveError
from subspace.plots import style
from subspace.plots.adapter_titles import adapter_titles, text_width
from subspace.plots.canvas import fractions, new_figure, shows_its_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

__all__ = ["lineage_graph"]

_MARKERS = "osD^vPX"
_MOST = 60  # rows of a page
_ROW, _EDGE, _BELOW = 0.42, 0.12, 0.75
_WIDE, _NARROW, _SPACIOUS = (
    1.5,
    0.42,
    8,
)  # inches of a column; up to so many columns a name stands at each node
_DASHES = (0, (2, 2))
_Edges: TypeAlias = "Sequence[tuple[int, int, str]]"


class _Node(NamedTuple):
    """Where an adapter stands."""

    column: int
    row: int


def lineage_graph(
    edges: _Edges,
    names: Sequence[str],
    *,
    groups: Sequence[Sequence[int]] = (),
    steps: Sequence[int | None] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the lineage of a library and return the axes.

    An arrow leads to an adapter from the one that it continued from; a dashed line joins two whose order is unknown.

    Parameters
    ----------
    edges : sequence of (int, int, str)
        (earlier, later, "continued", "branch" or "unordered"), as `subspace.analysis.lineage.lineage` finds them: at
        most one that leads to each adapter.
    names : sequence of str
        Paths of all adapters. Those without an edge are left out.
    groups : sequence of sequences of int
        Adapters with one random start, told apart by colour and shape.
    steps : sequence of int or None, optional
        Optimiser step of every adapter. Where all that are drawn have one, columns are steps.
    ax : matplotlib Axes, optional
        Where to draw. None: on a figure of its own, made without pyplot; a notebook displays it.

    Raises
    ------
    InconclusiveError
        If there is no edge.
    """
    if not edges:
        raise InconclusiveError("There is no lineage to draw: no adapter of these continued from another")
    place, heads = _layout(edges, steps)
    shown = {n: node for n, node in place.items() if node.row < _MOST}
    columns, rows = len(heads), 1 + max(node.row for node in shown.values())
    spacious = columns <= _SPACIOUS
    short = dict(
        zip(sorted(place), adapter_titles([names[n] for n in sorted(place)], longest=24), strict=True)
    )
    firsts = _firsts(shown)
    left = 0.25 if spacious else text_width([short[n] for n in firsts], size=style.TICK_SIZE) + 0.15
    width = columns * (_WIDE if spacious else _NARROW)
    with style.paper_style():
        if ax is None:
            figure = new_figure(left + width + 2 * _EDGE, rows * _ROW + _BELOW + _EDGE + 0.25)
            figure_place = _EDGE + left, _BELOW, width, rows * _ROW
            ax = shows_its_figure(figure.add_axes(fractions(figure, *figure_place)), figure)
        _edges(ax, edges, shown)
        _nodes(ax, shown, _starts(shown, groups))
        _names(ax, shown, short, firsts, spacious=spacious)
        _frame(ax, heads, rows, known=_all_known(place, steps))
        _say(ax, edges, place, shown, groups)
    return ax


def _layout(edges: _Edges, steps: Sequence[int | None] | None) -> tuple[dict[int, _Node], list[str]]:
    """Place of every adapter with an edge, and what its columns are called."""
    after: dict[int, list[int]] = defaultdict(list)
    has_parent = set()
    for earlier, later, _ in edges:
        after[earlier].append(later)
        has_parent.add(later)
    members = sorted({n for edge in edges for n in edge[:2]})
    depth, rows = _walked([n for n in members if n not in has_parent], after)
    for n in members:  # what a circle of edges would leave out
        if n not in depth:
            depth[n], rows[n] = 0, 1 + max(rows.values(), default=-1)
    columns, heads = depth, [str(n) for n in range(1 + max(depth.values()))]
    if _all_known(members, steps) and steps is not None:
        known = sorted({step for n in members if (step := steps[n]) is not None})
        columns, heads = (
            {n: known.index(step) for n in members if (step := steps[n]) is not None},
            list(map(str, known)),
        )
    return {n: _Node(columns[n], rows[n]) for n in members}, heads


def _walked(roots: Sequence[int], after: dict[int, list[int]]) -> tuple[dict[int, int], dict[int, int]]:
    """Depth and row of every node below the roots: the longest line goes on in its row, each other has a new one."""
    height: dict[int, int] = {}
    order, stack = [], list(roots)
    while stack:  # parents before their children
        n = stack.pop()
        if n in height:
            continue
        height[n] = 0
        order.append(n)
        stack += after[n]
    for n in reversed(order):
        height[n] = 1 + max((height[child] for child in after[n]), default=0)
    depth, rows, free = {}, {}, 0
    for root in roots:
        stack = [root]
        depth[root] = 0
        while stack:
            n, new = stack.pop(), free
            free += 1
            while True:
                rows[n] = new
                children = sorted(after[n], key=lambda child: (-height[child], child))
                for child in children:
                    depth.setdefault(child, depth[n] + 1)
                stack += [child for child in children[:0:-1] if child not in rows]
                if not children or children[0] in rows:
                    break
                n = children[0]
    return depth, rows


def _all_known(members: Any, steps: Sequence[int | None] | None) -> bool:
    return steps is not None and all(steps[n] is not None for n in members)


def _firsts(shown: dict[int, _Node]) -> dict[int, int]:
    """The first adapter of every row, and its row."""
    found: dict[int, tuple[int, int]] = {}
    for n, node in shown.items():
        found[node.row] = min(found.get(node.row, (node.column, n)), (node.column, n))
    return {n: row for row, (_, n) in found.items()}


def _starts(shown: dict[int, _Node], groups: Sequence[Sequence[int]]) -> dict[int, int | None]:
    """The number of every adapter's start among those that are drawn; None for those of no group."""
    drawn = [group for group in groups if any(n in shown for n in group)]
    return {n: next((k for k, group in enumerate(drawn) if n in group), None) for n in shown}


def _edges(axes: Axes, edges: _Edges, shown: dict[int, _Node]) -> None:
    from matplotlib.patches import FancyArrowPatch

    for earlier, later, kind in edges:
        if earlier not in shown or later not in shown:
            continue
        (x, y), (to_x, to_y) = shown[earlier], shown[later]
        unordered = kind == "unordered"
        axes.add_patch(
            FancyArrowPatch(
                (x, y), (to_x, to_y), arrowstyle="-" if unordered else "-|>", mutation_scale=9, shrinkA=5, shrinkB=6,
                linewidth=1.0, color=style.NOTE_COLOUR, linestyle=_DASHES if unordered else "-",
                connectionstyle="arc3" if y == to_y or x == to_x else "angle,angleA=-90,angleB=180,rad=6", zorder=1,
            )
        )  # fmt: skip


def _nodes(axes: Axes, shown: dict[int, _Node], start: dict[int, int | None]) -> None:
    for number in sorted({-1 if k is None else k for k in start.values()}):
        inside = [shown[n] for n, k in start.items() if (-1 if k is None else k) == number]
        axes.plot(
            [node.column for node in inside], [node.row for node in inside], linestyle="none", markersize=7,
            marker=_MARKERS[(number + number // len(style.CATEGORIES)) % len(_MARKERS)] if number >= 0 else "o",
            color=style.CATEGORIES[number % len(style.CATEGORIES)] if number >= 0 else style.OTHERS,
            markeredgecolor="white", markeredgewidth=0.8, zorder=2, label=f"start {number + 1}",
        )  # fmt: skip


def _names(
    axes: Axes, shown: dict[int, _Node], short: dict[int, str], firsts: dict[int, int], *, spacious: bool
) -> None:
    """A name above each node, or where columns are narrow that of the first of each row at the left."""
    axes.set_yticks([])
    if not spacious:
        labels = [short[n] for n in firsts]
        axes.set_yticks(
            list(firsts.values()), labels, fontsize=style.TICK_SIZE, parse_math=False, family=style.FONT
        )
        return
    for n, node in shown.items():
        axes.annotate(
            short[n], node, xytext=(0, 6), textcoords="offset points", ha="center", va="bottom",
            fontsize=style.NOTE_SIZE, parse_math=False, family=style.FONT, annotation_clip=False,
        )  # fmt: skip


def _frame(axes: Axes, heads: Sequence[str], rows: int, *, known: bool) -> None:
    axes.set_xlim(-0.5, len(heads) - 0.5)
    axes.set_ylim(rows - 0.5, -0.75)
    places = style.ticks(0, len(heads) - 1, at_most=max(2, round(axes.get_window_extent().width / 45)))
    axes.set_xticks(places, [heads[n] for n in places], fontsize=style.TICK_SIZE)
    axes.set_xlabel(_columns(heads) if known else "place in the line", fontsize=style.LABEL_SIZE)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _columns(heads: Sequence[str]) -> str:
    """What columns that are steps are called."""
    gaps = {int(after) - int(before) for before, after in pairwise(heads)}
    return "step" if len(gaps) < 2 else "step (not to scale)"


def _say(
    axes: Axes,
    edges: _Edges,
    place: dict[int, _Node],
    shown: dict[int, _Node],
    groups: Sequence[Sequence[int]],
) -> None:
    """What is not on the page, and what colours and dashes mean, over the graph."""
    parts = []
    if sum(any(n in shown for n in group) for group in groups) > 1:
        parts.append("a colour and shape for each random start")
    if any(kind == "unordered" for *_, kind in edges):
        parts.append("dashed: order unknown")
    if len(shown) < len(place):
        parts.append(f"{len(place) - len(shown)} more adapters")
    axes.set_title("; ".join(parts), fontsize=style.NOTE_SIZE, loc="left", color=style.NOTE_COLOUR)
