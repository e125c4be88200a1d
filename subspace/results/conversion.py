"""The result of `convert`: an adapter as the files of another format, and what became of each module."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from subspace.adapters.place import adapter_at
from subspace.adapters.writers import require_place
from subspace.checkpoints.atomic_writing import one_writer, write_whole
from subspace.results.columns import column, row
from subspace.results.result import Result, Row
from subspace.text import counted

__all__ = ["Conversion", "ModuleConversion"]

_SAME = 1e-14  # what measuring a difference of nothing in float64 gives


@row
class ModuleConversion(Row):
    """One layer of the written file."""

    module: str = column("Name of the layer in the written file")
    of: tuple[str, ...] = column(
        "Modules that were read: several where groups of a fused layer were joined", place="record"
    )
    r: int = column("Rank of the written factors")
    d_in: int = column("Columns of the written A")
    d_out: int = column("Rows of the written B")
    alpha: float | None = column("alpha, as whoever loads the file applies it; None where it is not known")
    scale: float | None = column(
        "Factor between B A and delta_W, as whoever loads the file applies it; None where it is not known"
    )
    dtype: str = column("Stored type of A and B")
    error: float = column(
        "Relative error ||dW - dW'||_F / ||dW||_F, dW as read and dW' as written", range="[0, inf)"
    )


@dataclass(frozen=True, eq=False)
class Conversion(Result[ModuleConversion]):
    """An adapter in another format, not written yet: `save` puts its files in place.

    Attributes
    ----------
    path, source_format : the adapter that was read
    format : of the files
    modules : one row per layer
    files : relative name -> content, "" the name of a single file
    notes : what to know before using the files
    """

    SCHEMA: ClassVar[str] = "subspace.convert/1"
    ROW: ClassVar[type[Row]] = ModuleConversion

    path: str
    source_format: str
    format: str
    modules: tuple[ModuleConversion, ...]
    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
        """Write the adapter in one step: a directory for peft, else one file; return the paths of its files.

        With `overwrite`, files of other names in the directory, such as a README.md, stay.

        Raises
        ------
        FileError : `path` is the input, exists (unless `overwrite`), is of another kind, or cannot be written
        """
        place = Path(path)
        require_place(self.path, str(place), self.format, overwrite=overwrite)
        contents = {place / name if name else place: content for name, content in self.files.items()}
        with one_writer(place):
            require_place(self.path, str(place), self.format, overwrite=overwrite)
            write_whole(contents)
        return list(contents)

    def __repr__(self) -> str:
        return f"<Conversion of {self.headline()}>"

    def document(self) -> dict[str, Any]:
        """Return the JSON document ``subspace.convert/1``, without where the files were put."""
        return {
            "schema": self.SCHEMA,
            "path": self.path,
            "source_format": self.source_format,
            "format": self.format,
            "headline": self.headline(),
            "modules": [each.document() for each in self.modules],
            "notes": list(self.notes),
        }

    def headline(self) -> str:
        """Return what was converted to what, in one sentence."""
        worst = max(each.error for each in self.modules)
        loss = (
            "the same delta_W"
            if worst < _SAME
            else f"a delta_W that differs by at most {worst:.2g} (relative)"
        )
        return (
            f"{adapter_at(self.path)} is converted from {self.source_format} to {self.format}: "
            f"{counted(len(self.modules), 'module')} with {loss}."
        )
