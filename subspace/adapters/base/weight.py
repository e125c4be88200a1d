"""One weight of a base model, as the update that it belongs to needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.update import Factor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.checkpoints import StoredMatrix

__all__ = ["BaseWeight"]


@dataclass(frozen=True)
class BaseWeight:
    """One weight of the base model in the orientation of its update.

    Attributes
    ----------
    key : its name in the file
    stored : the matrix as it lies in the file, a convolution as (out, in * kernel)
    transposed : whether the file holds (d_in, d_out)
    orientation : how that was decided, for the user
    rows : the rows of W (d_out side) that the update covers, None for all
    """

    key: str
    stored: StoredMatrix
    transposed: bool
    orientation: str
    rows: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of the rows that the update covers."""
        n, m = self.stored.shape
        d_out, d_in = (m, n) if self.transposed else (n, m)
        return (d_out if self.rows is None else self.rows[1] - self.rows[0], d_in)

    def matrix(self, dtype: Any = None) -> NDArray[Any]:
        """The weight as stored (transposed if `transposed`), cut to the rows of the update.

        In `dtype`, or in its own precision: float64 if it is stored so, else float32.
        """
        whole = self.stored.full(dtype or (np.float64 if self.stored.dtype == "float64" else np.float32))
        if self.rows is None:
            return whole
        start, stop = self.rows
        return np.ascontiguousarray(whole[:, start:stop]) if self.transposed else whole[start:stop]

    def streamed(self) -> Any:
        """What streaming code reads row by row: the stored matrix, or the cut one where the update is a group."""
        return self.stored if self.rows is None else self.matrix()

    def factor(self) -> Factor:
        """W (d_out, d_in) as a matrix read when asked for."""
        return Factor(
            self.shape, self.stored.dtype, lambda: self.matrix().T if self.transposed else self.matrix()
        )
