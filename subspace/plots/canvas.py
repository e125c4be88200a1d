"""Figures without pyplot: created and rendered here, displayed by Jupyter, owned by the caller.

A `matplotlib.figure.Figure` that pyplot did not create has no picture in a notebook (its `_repr_html_` works for
WebAgg only). So every figure created here carries `_repr_png_`, which IPython calls; where an inline backend has a
formatter of its own for `Figure`, IPython prefers that one, so nothing is shown twice.
"""

from __future__ import annotations

from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar

from subspace.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["fractions", "new_figure", "rendered", "shows_its_figure"]

T = TypeVar("T")

# A date would make two renderings of one figure differ
_METADATA: dict[str, dict[str, Any]] = {
    "png": {},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of `width` x `height` inches that no pyplot window owns."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    return _displayed_as(figure, figure)


def fractions(
    figure: Figure, left: float, bottom: float, across: float, up: float
) -> tuple[float, float, float, float]:
    """Return a place for axes, given in inches from the figure's left bottom corner, as matplotlib wants it."""
    width, height = figure.get_size_inches()
    return left / width, bottom / height, across / width, up / height


def shows_its_figure(axes: Axes, figure: Figure) -> Axes:
    """Return `axes`, which a notebook will display as the whole `figure`."""
    return _displayed_as(figure, axes)


def rendered(figure: Figure, kind: str, *, dpi: float = style.PRINT_DPI) -> bytes:
    """Return the figure as the bytes of a "png", "pdf" or "svg" file; equal figures give equal bytes."""
    stream = BytesIO()
    with style.paper_style():
        figure.savefig(stream, format=kind, dpi=dpi, metadata=_METADATA[kind])
    return stream.getvalue()


def _displayed_as(figure: Figure, artist: T) -> T:
    vars(artist)["_repr_png_"] = partial(rendered, figure, "png", dpi=style.SCREEN_DPI)
    return artist
