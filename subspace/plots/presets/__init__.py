"""One figure preset per file, found by being here: a public file declares one `Preset` as ``PRESET``.

A preset lays a whole comparison out as figures. Private helpers beside them begin with an underscore.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from subspace.errors import ValueRangeError
from subspace.text import listed, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.plots.preset import Preset
    from subspace.results.comparison import Comparison

__all__ = ["figures", "named", "names"]


def names() -> tuple[str, ...]:
    """Names of all presets, which are those of their files, in order; nothing is imported for it."""
    return tuple(sorted(found.name for found in iter_modules(__path__) if not found.name.startswith("_")))


def named(name: str) -> Preset:
    """Return the preset of that name.

    Raises
    ------
    ValueRangeError
        If there is none.
    """
    if name not in names():
        raise ValueRangeError(
            f"No figure preset is called '{shown(name)}'; choose one of {listed(names(), most=len(names()))}"
        )
    preset: Preset = import_module(f"{__name__}.{name}").PRESET
    return preset


def figures(
    comparison: Comparison,
    preset: str,
    *,
    side: str = "a",
    layer: int | None = None,
    relative: bool = False,
) -> list[Figure]:
    """Draw a comparison as one of the paper's figures or another preset; one figure per page.

    Parameters
    ----------
    comparison : Comparison
        Its modules without a score are left out.
    preset : str
        "effects", "fig3", "fig4", "fig6", "fig7", "fig8", "fig8all", "grid", or the name of any other file of
        `subspace.plots.presets`.
    side : {"a", "b", "left", "right"}
        One of the comparison's sides.
    layer : int, optional
        Which layer to draw. None: the middle one in figures 3, 4 and 8, four of them in 6 and 7, all in the others.
    relative : bool
        Whether to draw phi over its mean for isotropic random spans, max(i, j) / d, on a logarithmic scale.

    Raises
    ------
    InconclusiveError
        If no module of that side has a score.
    ValueRangeError
        If there is no such preset, side or layer, or figure 8 is asked for without base weights.
    """
    return named(preset)(comparison, side=side, layer=layer, relative=relative)
