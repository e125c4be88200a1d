"""The result of `extract`: the change of a model as an adapter, and what was recovered of each module."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from subspace.adapters.naming.same_input import place_of
from subspace.adapters.place import place
from subspace.adapters.writers import require_place
from subspace.checkpoints.atomic_writing import one_writer, write_whole
from subspace.flags import Flag
from subspace.results.columns import column, row
from subspace.results.result import Result, Row
from subspace.text import counted, listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from subspace.adapters import Adapter

__all__ = ["Extraction", "ModuleExtraction"]


@row
class ModuleExtraction(Row):
    """One module that changed; one whose change is no more than rounding has the rank 0 and is not in the adapter."""

    module: str = column("Name of the module")
    rank: int | None = column("Rank of the written factors, 0 where nothing is written", default=None)
    recovered_rank: int | None = column(
        "Number of directions of the change that stand above the rounding of the stored weights, which is the rank of "
        "a merged LoRA; None where there are more than were looked for",
        label="recovered",
        default=None,
    )
    error: float | None = column(
        "Relative error ||dW - B A||_F / ||dW||_F of the factors as they are stored, with dW = tuned - base",
        range="[0, 1]",
        default=None,
    )
    energy: float | None = column(
        "Share of ||dW||_F^2 that is kept by the factors as they are stored, 1 - error^2",
        range="[0, 1]",
        drop=2,
        default=None,
    )
    norm: float | None = column("Frobenius norm of dW", label="norm ΔW", drop=3, default=None)
    change: float | None = column(
        "||dW||_F over the Frobenius norm of the base weight; None where that is zero", drop=4, default=None
    )
    floor: float | None = column(
        "Singular value of dW above which every direction is told from the rounding of the stored weights",
        drop=5,
        default=None,
    )
    unmoved: float | None = column(
        "Share of the numbers of the weight that are the same in both models",
        range="[0, 1]",
        place="record",
        default=None,
    )
    sigma: np.ndarray = column(
        "Leading singular values of dW, descending: those above the rounding and some more",
        place="json",
        default_factory=lambda: np.zeros(0),
    )
    A: np.ndarray | None = column(
        "A (rank, d_in) as it is stored; None where nothing is written", place="grid", default=None
    )
    B: np.ndarray | None = column(
        "B (d_out, rank) as it is stored; None where nothing is written", place="grid", default=None
    )
    kind: str = column('Kind of layer: "linear", "conv" or "embedding"', place="record", default="linear")
    d_out: int = column("Rows of the weight", place="record", default=0)
    d_in: int = column("Columns of the weight", place="record", default=0)
    tuned_name: str = column("Name of the module in the tuned model", place="json", default="")
    base_key: str = column("Name of the base weight in its file", place="record", default="")
    flags: tuple[Flag, ...] = column("What to know before reading the row, see the list of flags", default=())


@dataclass(frozen=True, eq=False, repr=False)
class Extraction(Result[ModuleExtraction]):
    """The change of a model as an adapter, not written yet: `save` puts it in place as a PEFT directory.

    Attributes
    ----------
    base, tuned : paths of the two models
    adapter : what is written, in memory
    modules : one row per module that changed
    unchanged : modules whose weight did not change
    rest : what changed and is in no LoRA, each with why and whether it is stored with the adapter
    files : relative name -> content
    notes : what to know before using the adapter
    """

    SCHEMA: ClassVar[str] = "subspace.extract/1"
    ROW: ClassVar[type[Row]] = ModuleExtraction

    base: str
    tuned: str
    adapter: Adapter
    modules: tuple[ModuleExtraction, ...]
    unchanged: tuple[str, ...]
    rest: tuple[Mapping[str, Any], ...]
    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
        """Write the adapter in one step, as a PEFT directory; return the paths of its files.

        With `overwrite`, files of other names in the directory, such as a README.md, stay.

        Raises
        ------
        FileError : `path` is one of the two models, exists (unless `overwrite`), is a file, or cannot be written
        """
        where = Path(path)

        def check() -> None:
            for model in (self.tuned, self.base):
                require_place(model, str(where), "peft", overwrite=overwrite)

        check()
        contents = {where / name: content for name, content in self.files.items()}
        with one_writer(where):
            check()
            write_whole(contents)
        return list(contents)

    def document(self) -> dict[str, Any]:
        """Return the JSON document ``subspace.extract/1``, without where the adapter was put."""
        return {
            "schema": self.SCHEMA,
            "base": self.base,
            "tuned": self.tuned,
            "headline": self.headline(),
            "modules": [each.document() for each in self.modules],
            "unchanged": list(self.unchanged),
            "rest": [dict(each) for each in self.rest],
            "notes": list(self.notes),
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the recovered rank of every module, by layer and kind, and return the axes."""
        from subspace.plots.charts.recovered_ranks import recovered_ranks

        return recovered_ranks(self, ax=ax)

    def facts(self) -> tuple[str, ...]:
        """Return what the change is, and what the adapter keeps of it."""
        return self._recovered(), self._written()

    def headline(self) -> str:
        """Return what the change is, and what the adapter keeps of it."""
        return " ".join(self.facts())

    def _recovered(self) -> str:
        """What was recovered: the rank of a merged LoRA and where it is, or that there is none."""
        full = [each for each in self.modules if Flag.NO_LOW_RANK in each.flags]
        low = [each for each in self.modules if each.rank and Flag.NO_LOW_RANK not in each.flags]
        noise = sum(Flag.ROUNDING_ONLY in each.flags for each in self.modules)
        said = []
        if low:
            said.append(f"rank {_span([each.recovered_rank or 0 for each in low])} in {_kinds(low)}")
        if full:
            said.append(f"no low rank in {_kinds(full)}")
        if noise:
            said.append(f"no more than rounding in {counted(noise, 'other module')}")
        if self.unchanged:
            said.append(f"none in {counted(len(self.unchanged), 'module')}")
        return f"The change from {place(self.base)} to {place(self.tuned)} has {_sentence(said)}."

    def _written(self) -> str:
        """What the adapter keeps."""
        written = [each for each in self.modules if each.rank]
        errors = [each.error for each in written if each.error is not None]
        if not errors:
            return "No module shown is in the adapter."
        low, high = (f"{each:.2g}" for each in (min(errors), max(errors)))
        return (
            f"The adapter has rank {_span([each.rank or 0 for each in written])} in {counted(len(written), 'module')}, "
            f"with a relative error of {low if low == high else f'{low} to {high}'}."
        )


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _kinds(rows: Sequence[ModuleExtraction]) -> str:
    """The kinds of modules, by the last parts of their names, and how many there are."""
    counts: dict[str, int] = defaultdict(int)
    for each in rows:
        counts[place_of(each.module).kind.rpartition(".")[2]] += 1
    return f"{listed(counts, most=8)} ({counted(len(rows), 'module')})"


def _sentence(said: Sequence[str]) -> str:
    return (
        said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}" if said else "no module shown"
    )
