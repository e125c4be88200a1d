"""Rows of Parquet and of a folder that `datasets` saved, by the libraries of the extra ``data``."""

from __future__ import annotations

import io
import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.errors import FileError, FormatError
from subspace.text import listed, shown
from subspace.training.data.source import read_bytes
from subspace.training.data.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

__all__ = ["is_saved_dataset", "parquet_table", "saved_dataset"]

_ONE, _SEVERAL = "state.json", "dataset_dict.json"


def parquet_table(raw: bytearray, path: str) -> Table:
    """Return the rows of a Parquet file.

    Raises
    ------
    FileError
        If pyarrow is not installed.
    FormatError
        If it is no Parquet file.
    """
    pyarrow = _library("pyarrow.parquet", path)
    try:
        return _table(pyarrow.read_table(io.BytesIO(raw)), path)
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's own are of these
        raise FormatError(
            f"Cannot read this Parquet file: {_reason(error)}, in {shown(path)}; write it again"
        ) from None


def is_saved_dataset(folder: str) -> bool:
    """Return whether a folder is what ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` leaves."""
    return any(Path(folder, name).is_file() for name in (_ONE, _SEVERAL))


def saved_dataset(folder: str) -> tuple[Table, str]:
    """Return the rows of a saved `Dataset`, with the names of its classes, and the SHA-256 of its files.

    Raises
    ------
    FileError
        If datasets is not installed or a file cannot be read.
    FormatError
        If it is a `DatasetDict`, which has several data sets, or cannot be read.
    """
    if not Path(folder, _ONE).is_file():
        splits = sorted(entry.parent.name for entry in Path(folder).glob(f"*/{_ONE}"))
        such = str(Path(folder, splits[0] if splits else "train"))
        raise FormatError(
            f"This folder holds several data sets: {listed(map(shown, splits))}, in {shown(folder)}; give the path of "
            f"one, such as {shown(such)}"
        )
    datasets = _library("datasets", folder)
    digest = sha256(b"".join(sha256(read_bytes(path)).digest() for path in _files(folder))).hexdigest()
    try:
        table = _table(datasets.load_from_disk(folder).with_format("arrow")[:], folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        raise FormatError(
            f"Cannot read this data set: {_reason(error)}, in {shown(folder)}; save it again "
            "by its save_to_disk"
        ) from None
    return table, digest


def _files(folder: str) -> list[Path]:
    return sorted(path for path in Path(folder).iterdir() if path.suffix in (".arrow", ".json"))


def _table(arrow: Any, path: str) -> Table:
    """The rows, with the numbers of classes as their names where the file has these as `datasets` writes them."""
    known = {name: names for name in arrow.column_names if (names := _class_names(arrow.schema, name))}
    rows = arrow.to_pylist()
    for row in rows:
        row |= {column: _name(row[column], names) for column, names in known.items()}
    return Table(path, "row", tuple(arrow.column_names), list(enumerate(rows, 1)), typed=True)


def _class_names(schema: Any, column: str) -> list[str]:
    try:
        stated = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        return [str(name) for name in stated["names"]] if stated["_type"] == "ClassLabel" else []
    except (ValueError, KeyError, TypeError):
        return []


def _name(value: Any, names: Sequence[str]) -> Any:
    """The name of a class; what is no number of one, such as -1 for a label that is missing, as it is."""
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _reason(error: Exception) -> str:
    return shown(str(error).partition("\n")[0])


def _library(name: str, path: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise FileError(
            f"The package {package} is not installed, which these data need: {shown(path)}; "
            "pip install 'lora-subspace[data]'"
        ) from None
