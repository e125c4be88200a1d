"""What every result can do: rows by module, records, JSON, CSV, a table in a notebook, and saving itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from subspace.errors import FileError, ValueRangeError
from subspace.results.cells import flat, plain
from subspace.results.columns import Column, columns_of
from subspace.results.csv_text import as_csv
from subspace.results.selection import chosen_rows
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from typing_extensions import Self

__all__ = ["Result", "Row"]

_SHOWN = 12  # rows of a table in a notebook


class Row:
    """Base of the rows of a result, classes made by `subspace.results.columns.row`."""

    COLUMNS: ClassVar[tuple[Column, ...]] = ()
    module: str

    def record(self) -> dict[str, Any]:
        """Return the row as one flat dictionary: a value that does not exist is None, flags are joined by ";"."""
        cells: dict[str, Any] = {}
        for each in self._columns("table", "record", "csv"):
            value = getattr(self, each.name)
            if isinstance(value, Mapping):  # distances -> distance_geodesic, ...
                cells |= {f"{each.name.removesuffix('s')}_{key}": plain(item) for key, item in value.items()}
            else:
                cells[each.name] = flat(value)
        return cells

    def document(self, *, grid: bool = False) -> dict[str, Any]:
        """Return the row as an object of strict JSON; with `grid`, what is large too."""
        places = ("table", "record", "json", "grid") if grid else ("table", "record", "json")
        return {each.name: plain(getattr(self, each.name)) for each in self._columns(*places)}

    def sortable(self) -> dict[str, Any]:
        """Return the values that rows can be sorted by, under the names of their columns."""
        return self.record()

    def _columns(self, *places: str) -> Iterator[Column]:
        for each in self.COLUMNS:
            if each.place in places and not (each.absent is not None and each.absent(self)):
                yield each


_R = TypeVar("_R", bound=Row)


class Result(Generic[_R]):
    """Base of the frozen results: rows `modules`, which a result is iterated over and asked for by module.

    Subclasses declare `SCHEMA`, `ROW`, the class of their rows, and `KEYS`, the columns that tell one row from another,
    and give a `headline`.
    """

    SCHEMA: ClassVar[str] = ""
    ROW: ClassVar[type[Row]] = Row
    KEYS: ClassVar[tuple[str, ...]] = ("module",)
    modules: tuple[_R, ...]
    notes: tuple[str, ...]

    def headline(self) -> str:
        """Return the finding in a sentence or two."""
        raise NotImplementedError

    def facts(self) -> tuple[str, ...]:
        """Return the sentences of the headline, each of which stands alone."""
        return (self.headline(),)

    def document(self) -> dict[str, Any]:
        """Return the JSON document of the result, of the schema `SCHEMA`: its fields, and its headline."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
        rows = [row.document() for row in self.modules]
        return {"schema": self.SCHEMA, "headline": self.headline(), **plain(own | {"modules": rows})}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {counted(len(self), 'row')}: {self.headline()}>"

    def __len__(self) -> int:
        return len(self.modules)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[_R]:
        return iter(self.modules)

    def __getitem__(self, module: str | int | tuple[str, ...]) -> _R:
        """The row of a module, by its name or the end of its dotted path; or by its number.

        Where a module has several rows, a tuple with the values of the other columns in `KEYS` chooses one.

        Raises
        ------
        KeyError : there is no such row, or several
        """
        if not isinstance(module, str | tuple):
            return self.modules[module]
        name, *others = (module,) if isinstance(module, str) else module
        wanted = dict(zip(self.KEYS[1:], others, strict=False))
        rows = [row for row in self.modules if all(getattr(row, key) == wanted[key] for key in wanted)]
        found = [row for row in rows if row.module == name]
        found = found or [row for row in rows if f".{row.module}".endswith(f".{name}")]
        if len(found) == 1:
            return found[0]
        what = f"{len(found)} rows match" if found else "no module is called"
        keys = [tuple(getattr(row, key) for key in self.KEYS) for row in found or self.modules]
        names = dict.fromkeys(key[0] if len(self.KEYS) == 1 or not found else key for key in keys)
        raise KeyError(f"{what} {module!r}; the result has {listed(names, most=8)}")

    def records(self) -> list[dict[str, Any]]:
        """Return one flat dictionary per row; a value that does not exist is None."""
        return [row.record() for row in self.modules]

    def columns(self) -> list[str]:
        """Return the names of the columns of the short table."""
        return [each.name for each in self.table_columns()]

    def table_columns(self) -> list[Column]:
        """Return the columns of the short table: without those in which every row has the usual value."""
        return [
            each
            for each in columns_of(self.ROW)
            if each.place == "table"
            and not (
                each.usual is not None and all(getattr(row, each.name) == each.usual for row in self.modules)
            )
            and not (each.absent is not None and all(each.absent(row) for row in self.modules))
        ]

    def selected(
        self, *, modules: Sequence[str] = (), sort: str | None = None, top: int | None = None
    ) -> Self:
        """Return the same result with some of its rows.

        Parameters
        ----------
        modules : patterns with * and ?, of which a module's name has to match one; () for all modules
        sort : column to sort by, numbers from the largest and text from A to Z; "-" before it reverses
        top : how many rows to keep, from the first

        Raises
        ------
        ValueRangeError : no module matches, or there is no such column
        """
        return replace(self, modules=tuple(chosen_rows(self.modules, modules, sort, top)))  # type: ignore[type-var]

    def to_pandas(self) -> pd.DataFrame:
        """Return `records` as a data frame; needs pandas."""
        import pandas as pd

        return pd.DataFrame.from_records(self.records())

    def to_json(self) -> str:
        """Return `document` as one line of strict JSON in ASCII."""
        return json.dumps(plain(self.document()), allow_nan=False)

    def to_csv(self) -> str:
        """Return `records` as comma-separated values under a line of headings."""
        return as_csv(self.records())

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
        """Write the result to a file, JSON or CSV by the ending of its name; return what was written.

        Parameters
        ----------
        overwrite : replace a file that is there

        Raises
        ------
        ValueRangeError : the name ends in neither .json nor .csv
        FileError : the file is there already, or cannot be written; one that was there stays as it was
        """
        from pathlib import Path

        from subspace.checkpoints.atomic_writing import one_writer, write_whole

        place = Path(path)
        if place.suffix.lower() not in {".json", ".csv"}:
            raise ValueRangeError(
                f"Cannot tell how to save a result as {shown(place)}; name a .json or a .csv file"
            )
        text = self.to_csv() if place.suffix.lower() == ".csv" else self.to_json() + "\n"
        with one_writer(place):
            if place.exists() and not overwrite:
                raise FileError(
                    f"{shown(place, longest=1000)} exists already; give another name, or `overwrite`"
                )
            write_whole({place: text.encode()})
        return [place]

    def _repr_html_(self) -> str:
        from subspace.results.html_table import as_html

        return as_html(self.facts(), self.table_columns(), self.records(), most=_SHOWN)
