"""The numbers of one heatmap: phi(i, j) for the top-i against the top-j directions.

A panel knows no files and no adapters, only their names. Rows are i (first), columns are j (second), both 1-based as in
the paper; a cell that has no value is NaN and is drawn as undefined, never as zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subspace.errors import ShapeError, ValueRangeError
from subspace.text import shown

__all__ = ["Panel"]

# phi is a sum of squares over a count: rounding may leave it this far outside [0, 1]
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Panel:
    """phi on a grid of (i, j), with what is needed to read it: the space's dimension and the declared ranks.

    Parameters
    ----------
    phi : (n_i, n_j) array
        Rows i = i_start, i_start + 1, ...; columns j = j_start, j_start + 1, .... NaN where phi does not exist.
    d : int
        Dimension of the space that holds both spans; isotropic random spans have max(i, j) / d on average.
    title : str
        Untrusted text: it is never parsed as math and never names a file.
    i_label, j_label : str
        Axis labels.
    i_start, j_start : int
        The first i and j of the grid (figure 8 of the paper starts at i of about 451).
    r_first, r_second : int, optional
        The ranks to draw. `phi` stops at the numerical rank; cells from there to the declared rank are
        undefined and are hatched. None: no further than `phi` itself.
    i_module, j_module : str, optional
        Whole name of the module whose directions i or j counts, as its adapter has it.
    side, init : str, optional
        Side of the module and whether a known start was subtracted, as in a comparison.
    control : mapping, optional
        Of the panel of a control, which one: its "kind", "same_input" or "layers", and its number of "pairs", of which
        `phi` is the mean. None: phi is that of the two modules themselves.

    Raises
    ------
    ShapeError
        If `phi` is not a matrix or there is nothing to draw.
    ValueRangeError
        If `phi` has a value outside [0, 1], or an index is below 1 or above `d`.

    Examples
    --------
    >>> import numpy as np
    >>> panel = Panel(np.array([[1.0, 0.5]]), d=10, title="q", r_first=2)
    >>> panel.grid()
    array([[1. , 0.5],
           [nan, nan]])
    >>> panel.isotropic()
    array([[0.1, 0.2],
           [0.2, 0.2]])
    """

    phi: NDArray[np.float64]
    d: int
    title: str = ""
    i_label: str = "i"
    j_label: str = "j"
    i_start: int = 1
    j_start: int = 1
    r_first: int | None = None
    r_second: int | None = None
    i_module: str | None = None
    j_module: str | None = None
    side: str | None = None
    init: str | None = None
    control: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        phi = np.array(self.phi, dtype=np.float64)
        phi.setflags(write=False)
        object.__setattr__(self, "phi", phi)
        _check_shape(self)
        _check_values(self)

    @property
    def last_i(self) -> int:
        """The last i that is drawn, defined or not."""
        return max(self.i_start + int(self.phi.shape[0]) - 1, self.r_first or 0)

    @property
    def last_j(self) -> int:
        """The last j that is drawn, defined or not."""
        return max(self.j_start + int(self.phi.shape[1]) - 1, self.r_second or 0)

    def grid(self) -> NDArray[np.float64]:
        """Return phi on every cell that is drawn, NaN where undefined, (last_i - i_start + 1, ...)."""
        grid = np.full((self.last_i - self.i_start + 1, self.last_j - self.j_start + 1), np.nan)
        grid[: self.phi.shape[0], : self.phi.shape[1]] = self.phi
        return grid

    def indices(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the 1-based i as a column (n, 1) and j as a row (1, m), to broadcast against `grid`."""
        i = np.arange(self.i_start, self.last_i + 1)[:, None]
        j = np.arange(self.j_start, self.last_j + 1)[None, :]
        return i, j

    def isotropic(self) -> NDArray[np.float64]:
        """Return the mean of isotropic random spans on every cell of `grid`: max(i, j) / d, in (0, 1]."""
        i, j = self.indices()
        return np.minimum(np.maximum(i, j) / self.d, 1.0)

    def cropped(self, *, i: tuple[int, int] | None = None, j: tuple[int, int] | None = None) -> Panel:
        """Return the panel restricted to i and j in the given inclusive ranges (clipped to what is drawn)."""
        first_i, last_i = _clip(i, self.i_start, self.last_i)
        first_j, last_j = _clip(j, self.j_start, self.last_j)
        rows = slice(first_i - self.i_start, last_i - self.i_start + 1)
        columns = slice(first_j - self.j_start, last_j - self.j_start + 1)
        cut = self.phi[rows, columns]
        return replace(self, phi=cut, i_start=first_i, j_start=first_j, r_first=last_i, r_second=last_j)

    def transposed(self) -> Panel:
        """Return the panel with i and j exchanged: phi(A, A', i, j) = phi(A', A, j, i)."""
        return replace(
            self,
            phi=self.phi.T,
            i_label=self.j_label,
            j_label=self.i_label,
            i_start=self.j_start,
            j_start=self.i_start,
            r_first=self.r_second,
            r_second=self.r_first,
            i_module=self.j_module,
            j_module=self.i_module,
        )


def _clip(span: tuple[int, int] | None, first: int, last: int) -> tuple[int, int]:
    if span is None:
        return first, last
    low, high = max(span[0], first), min(span[1], last)
    if low > high:
        raise ValueRangeError(
            f"Crop {span} lies outside the panel's range {first}..{last}; choose indices inside it"
        )
    return low, high


def _check_shape(panel: Panel) -> None:
    if panel.phi.ndim != 2:
        raise ShapeError(
            f"phi of shape {panel.phi.shape} is not a matrix over (i, j), in panel '{shown(panel.title)}'; "
            "give one row per i and one column per j"
        )
    if panel.last_i < panel.i_start or panel.last_j < panel.j_start:
        raise ShapeError(
            f"Nothing to draw: phi of shape {panel.phi.shape} and ranks {panel.r_first}, {panel.r_second} have no "
            f"cell, in panel '{shown(panel.title)}'; leave this module out"
        )


def _check_values(panel: Panel) -> None:
    n_i, n_j = panel.phi.shape
    last = max(panel.i_start + n_i - 1, panel.j_start + n_j - 1)
    if min(panel.i_start, panel.j_start) < 1 or panel.d < 1 or last > panel.d:
        raise ValueRangeError(
            f"Indices lie outside 1..d: i from {panel.i_start}, j from {panel.j_start}, up to {last}, with "
            f"d = {panel.d}, in panel '{shown(panel.title)}'; check which dimension d is"
        )
    outside = ~np.isnan(panel.phi) & ~((panel.phi >= -_ROUNDING) & (panel.phi <= 1 + _ROUNDING))
    if outside.any():
        raise ValueRangeError(
            f"phi has the value {panel.phi[outside][0]} outside [0, 1], in panel '{shown(panel.title)}'; "
            "mark a cell that has no value with NaN"
        )
