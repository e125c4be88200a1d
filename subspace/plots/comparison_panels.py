"""From the rows of a comparison to heatmaps."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from subspace.checkpoints import IN_MEMORY
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.flags import Flag
from subspace.plots.panel import Panel
from subspace.text import listed, shown

if TYPE_CHECKING:
    from subspace.results.comparison import Comparison
    from subspace.results.module_comparison import ModuleComparison

__all__ = ["SIDES", "of_side", "one_row", "panel_of", "short_names"]

SIDES = {"a": "A", "b": "B", "left": "ΔW, left", "right": "ΔW, right"}
_FIRST, _SECOND = "the first", "the second"
# Names that files of adapters have by convention: only their folder tells such files apart
_CONVENTIONAL = (
    "adapter_model",
    "adapter",
    "pytorch_lora_weights",
    "adapters",
    "model",
    "pytorch_model",
)


def panel_of(
    row: ModuleComparison, *, title: str | None = None, names: tuple[str, str] = (_FIRST, _SECOND)
) -> Panel:
    """Return the heatmap of one module and side; rows i are the first adapter's directions, columns j the second's.

    Parameters
    ----------
    row : ModuleComparison
        One that has a score.
    title : str, optional
        None: the module's whole name and the side.
    names : (str, str)
        The first and the second adapter, as the axes call them.
    """
    dense = bool({Flag.DENSE, Flag.BASE} & set(row.flags))
    return Panel(
        phi=row.phi,
        d=row.d,
        title=title if title is not None else f"{row.module} ({SIDES[row.side]})",
        i_label=f"i, of {names[0]}",
        j_label=f"j, of {names[1]}",
        r_first=None if dense else min(row.r_first, row.d),
        r_second=None if dense else min(row.r_second, row.d),
        i_module=row.module,
        j_module=row.second_module,
        side=row.side,
        init=row.init,
    )


def short_names(comparison: Comparison) -> tuple[str, str]:
    """Return short names of the first and the second adapter, from their paths where they have one."""
    first, second = comparison.first.path, comparison.second.path
    return (
        _FIRST if first == IN_MEMORY else _short(first),
        _SECOND if second == IN_MEMORY else _short(second),
    )


def _short(path: str) -> str:
    """Return the part of a path that tells adapters apart: the file's stem, or its folder if the stem says nothing.

    Examples
    --------
    >>> _short("runs/a_r8/adapter_model.safetensors"), _short("a_r64.pt")
    ('a_r8', 'a_r64')
    """
    file = PurePath(path)
    name = file.parent.name if file.stem in _CONVENTIONAL and file.parent.name else file.stem or path
    return shown(name, longest=60)


def of_side(comparison: Comparison, side: str) -> list[ModuleComparison]:
    """Return the rows of one side.

    Raises
    ------
    ValueRangeError
        If that side was not compared.
    """
    sides = list(dict.fromkeys(row.side for row in comparison.modules))
    if sides and side not in sides:
        raise ValueRangeError(
            f"Side '{shown(side)}' was not compared; this comparison has {listed(sides, most=4)}"
        )
    return [row for row in comparison.modules if row.side == side]


def one_row(
    comparison: Comparison, *, module: str | None = None, side: str | None = None, init: str | None = None
) -> ModuleComparison:
    """Return the first row that has a score among those of a module, side and init; None: any.

    Raises
    ------
    InconclusiveError
        If none of them has a score.
    ValueRangeError
        If there is no such module, side or init.
    """
    rows = list(comparison.modules) if side is None else of_side(comparison, side)
    rows = _of_module(rows, module) if module is not None else rows
    rows = _of_init(rows, init) if init is not None else rows
    found = next((row for row in rows if row.phi.size), None)
    if found is None:
        flags = listed(dict.fromkeys(flag for row in rows for flag in row.flags))
        what = "No module has a score" if module is None else f"Module '{shown(module)}' has no score"
        raise InconclusiveError(f"{what} to draw; flags: {flags}")
    return found


def _of_module(rows: list[ModuleComparison], module: str) -> list[ModuleComparison]:
    names = dict.fromkeys(row.module for row in rows)
    if module not in names:
        raise ValueRangeError(f"No module is called '{shown(module)}'; this comparison has {listed(names)}")
    return [row for row in rows if row.module == module]


def _of_init(rows: list[ModuleComparison], init: str) -> list[ModuleComparison]:
    found = dict.fromkeys(row.init for row in rows)
    if found and init not in found:
        raise ValueRangeError(f"Init '{shown(init)}' was not compared; this comparison has {listed(found)}")
    return [row for row in rows if row.init == init]
