"""The result of `inputs`: what the modules of a model are given, in second moments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from subspace.flags import Flag
from subspace.geometry.second_moment import SecondMoment
from subspace.results.cells import plain
from subspace.results.columns import column, row
from subspace.results.result import Result, Row
from subspace.text import counted

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Gradient", "Inputs", "ModuleInputs"]


class Gradient(NamedTuple):
    """Leading directions of the gradient G (d_out, d_in) of the loss by a module's weight, before any training.

    Attributes
    ----------
    S : (k,) its leading singular values, descending
    U : (d_out, k) left singular vectors
    V : (d_in, k) right ones
    norm : Frobenius norm of G
    """

    S: NDArray[np.float64]
    U: NDArray[Any]
    V: NDArray[Any]
    norm: float


@row
class ModuleInputs(Row):
    """The inputs x of one module: C = E[x x^T] over the tokens that it was given."""

    module: str = column("Name of the module")
    read_with: str = column(
        "Module whose stored input is that of this one, as both are given the same tensor; its own name, if it is "
        "the first of them",
        place="record",
    )
    tokens: int = column("Number of tokens that the module was given, without padding")
    d: int = column("Dimension of the inputs")
    energy: float | None = column(
        "Mean of ||x||^2 over the tokens, the trace of C; None without tokens", range="[0, inf)"
    )
    mean_share: float | None = column(
        "Share of the energy that lies along the mean of x", label="along mean", range="[0, 1]"
    )
    top_share: float | None = column(
        "Share of the energy along the leading eigenvector of C", label="along first", range="[0, 1]"
    )
    effective_dimension: float | None = column(
        "Participation ratio tr(C)^2 / ||C||_F^2: how many directions the energy is spread over; where C was sketched, "
        "at most that",
        label="effective dimension",
        range="[1, d]",
    )
    decay: float | None = column(
        "Exponent p of the power law k^-p that fits the leading 64 eigenvalues of C",
        label="decay k^-",
    )
    eigenpairs: int = column("Number of stored eigenpairs of C", drop=3)
    rest_share: float | None = column(
        "Share of the energy outside the stored eigenpairs, which counts as the same in all other directions",
        label="outside",
        range="[0, 1]",
        drop=2,
    )
    error_share: float | None = column(
        "Share of the energy that a sketch of C may have missed, a bound; 0 where C was summed up in full",
        range="[0, 1]",
        place="record",
    )
    gradient_norm: float | None = column(
        "Frobenius norm of the gradient of the loss by the weight; None where it was not asked for",
        place="record",
    )
    gradient_top_share: float | None = column(
        "Share of the squared norm of that gradient in its leading singular direction",
        range="[0, 1]",
        place="record",
    )
    eigenvalues: NDArray[np.float64] = column("Stored eigenvalues of C, descending", place="json")
    flags: tuple[Flag, ...] = column("What to know before reading the row, see the list of flags", default=())


@dataclass(frozen=True, eq=False, repr=False)
class Inputs(Result[ModuleInputs]):
    """What the modules of a model are given on some data.

    Attributes
    ----------
    model, data : as they were named
    model_sha256, data_sha256 : what they were
    tokens : how many tokens of the data were read
    modules : one row per module
    moments : name of a module whose input is stored -> second moment; `moment` finds that of any module
    gradients : name of a module -> leading directions of its first gradient, where they were asked for
    notes : what to know before reading the numbers
    """

    SCHEMA: ClassVar[str] = "subspace.inputs/1"
    ROW: ClassVar[type[Row]] = ModuleInputs

    model: str
    data: str
    model_sha256: str
    data_sha256: str
    tokens: int
    modules: tuple[ModuleInputs, ...]
    moments: Mapping[str, SecondMoment] = field(default_factory=dict)
    gradients: Mapping[str, Gradient] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def moment(self, module: str) -> SecondMoment:
        """Return the second moment of the inputs of a module, by its name or the end of it.

        Raises
        ------
        KeyError : there is no such module, or several
        """
        return self.moments[self[module].read_with]

    def headline(self) -> str:
        """Return how much of the input energy lies along the mean, and over how many directions it is spread."""
        rows = [each for each in self.modules if each.mean_share is not None]
        if not rows:
            return "No module was given a token."
        many = len(rows) > 1
        mean = median(each.mean_share for each in rows if each.mean_share is not None)
        spread = median(each.effective_dimension for each in rows if each.effective_dimension is not None)
        dimensions = sorted({each.d for each in rows})
        of = f"{dimensions[0]}" if len(dimensions) == 1 else f"{dimensions[0]} to {dimensions[-1]}"
        over = (
            f" (medians over {counted(len(rows), 'module')}, {counted(self.tokens, 'token')})" if many else ""
        )
        return (
            f"{'A median of ' if many else ''}{100 * mean:.2g} % of the input energy lies along the mean input, and "
            f"the inputs have {spread:.2g} effective dimensions of {of}{over}."
        )

    def document(self) -> dict[str, Any]:
        """Return the JSON document ``subspace.inputs/1``, without the vectors, which are in the file."""
        kept = {each.name: getattr(self, each.name) for each in fields(self)}
        kept = {name: value for name, value in kept.items() if name not in ("moments", "gradients")}
        rows = [each.document() for each in self.modules]
        return {"schema": self.SCHEMA, "headline": self.headline(), **plain(kept | {"modules": rows})}

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
        """Write the whole result to a .safetensors file, which `load_inputs` reads, or its rows to .json or .csv.

        Raises
        ------
        ValueRangeError : the name ends in none of them
        FileError : the file is there already, or cannot be written
        """
        from subspace.results.inputs_file import save_inputs

        if os.fspath(path).lower().endswith(".safetensors"):
            return [save_inputs(self, path, overwrite=overwrite)]
        return super().save(path, overwrite=overwrite)
