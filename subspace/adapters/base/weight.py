"""One weight of a base model, for the update of that module."""

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
    stored : the matrix as stored, a convolution as (out, in * kernel)
    transposed : whether the file holds (d_in, d_out)
    orientation : the orientation and what decided it, for the user
    rows : rows (start, stop) of W that the update covers, None for all
    quantised : what the weight is stored as, where its numbers are computed from codes ("bitsandbytes nf4"), else ""
    """

    key: str
    stored: StoredMatrix
    transposed: bool
    orientation: str
    rows: tuple[int, int] | None = None
    quantised: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of the rows that the update covers."""
        n, m = self.stored.shape
        d_out, d_in = (m, n) if self.transposed else (n, m)
        return (d_out if self.rows is None else self.rows[1] - self.rows[0], d_in)

    def matrix(self, dtype: Any = None) -> NDArray[Any]:
        """The weight in the orientation of the file, without the rows that the update does not cover.

        Parameters
        ----------
        dtype : of the result; by default float64 where the file has it, else float32
        """
        whole = self.stored.full(dtype or (np.float64 if self.stored.dtype == "float64" else np.float32))
        if self.rows is None:
            return whole
        start, stop = self.rows
        return np.ascontiguousarray(whole[:, start:stop]) if self.transposed else whole[start:stop]

    def streamed(self) -> Any:
        """What code that reads row by row takes: the stored matrix, or `matrix` where the update covers some rows."""
        return self.stored if self.rows is None else self.matrix()

    def factor(self) -> Factor:
        """W (d_out, d_in), read on access."""
        return Factor(
            self.shape, self.stored.dtype, lambda: self.matrix().T if self.transposed else self.matrix()
        )
