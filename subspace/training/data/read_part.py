"""The examples of one file or folder: which format it has, and what reads it."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from subspace.checkpoints.regular_file import path_text
from subspace.errors import FileError, FormatError
from subspace.text import listed, shown
from subspace.training.data.assemble import Part, Row, assembled
from subspace.training.data.jsonrows import json_table, jsonl_table
from subspace.training.data.parquet import is_saved_dataset, parquet_table, saved_dataset
from subspace.training.data.recognise import Recognised, delimited_table, recognised
from subspace.training.data.source import PACKED, decoded, read_bytes, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from subspace.training.data.table import Table

__all__ = ["Columns", "read_part"]

_JSON: dict[str, Callable[[str, str], Table]] = {
    ".jsonl": jsonl_table, ".ndjson": jsonl_table, ".json": json_table,
}  # fmt: skip
_SEPARATED = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")


class Columns(NamedTuple):
    """Columns that the user named, and whether labels are wanted."""

    text: tuple[str, ...] = ()
    label: str | None = None
    labels: bool = True


def read_part(
    path: str | os.PathLike[str], columns: Columns, encoding: str | None = None
) -> tuple[Part, str]:
    """Return the examples of a file or folder, and the SHA-256 of its bytes in hexadecimal.

    Raises
    ------
    FileError, FormatError
        As `read_examples` has them.
    """
    name = path_text(path)
    if _is_folder(path):
        return _saved(name, columns) if is_saved_dataset(name) else _folder(name, columns, encoding)
    raw = read_bytes(path)
    digest = sha256(raw).hexdigest()
    if name.lower().endswith(_PARQUET):
        return _of_table(parquet_table(raw, name), columns), digest
    text = decoded(unpacked(raw, name), name, encoding)
    del raw
    table, notes = _read(text, name, columns)
    if table is None:
        _require_no_column(name, columns)
        _require_text([text], name)
        return Part(name, [Row(text)], list(notes)), digest
    return _of_table(table, columns, notes), digest


def _read(text: str, name: str, columns: Columns) -> Recognised:
    end = next((end for end in (*_JSON, *_SEPARATED) if _bare(name).endswith(end)), "")
    if end in _JSON:
        return Recognised(_JSON[end](text, name), ())
    if end in _SEPARATED:
        return delimited_table(text, name, _SEPARATED[end], columns.text)
    return recognised(text, name, columns.text)


def _of_table(table: Table, columns: Columns, notes: Sequence[str] = ()) -> Part:
    part = assembled(table, columns.text, columns.label, labels=columns.labels)
    part.notes[:0] = notes
    return part


def _saved(name: str, columns: Columns) -> tuple[Part, str]:
    table, digest = saved_dataset(name)
    return _of_table(table, columns), digest


def _folder(name: str, columns: Columns, encoding: str | None) -> tuple[Part, str]:
    _require_no_column(name, columns)
    paths = _texts_in(name)
    digest = sha256()
    read: dict[str, str] = {}
    for path in paths:
        raw = read_bytes(path)
        digest.update(raw)
        read[path] = decoded(unpacked(raw, path), path, encoding)
    filled = {path: text for path, text in read.items() if text.strip()}
    _require_text(list(filled.values()), name)
    blank = [path for path in read if path not in filled]
    notes = [f"files without a text were left out: {_file_names(blank)}"] if blank else []
    tables = [path for path, text in filled.items() if recognised(text, path).table is not None]
    if tables:
        notes.append(
            f"files that look like tables are read as plain text: {_file_names(tables)}; give the path of such a file "
            "to have its columns read"
        )
    return Part(name, [Row(text) for text in filled.values()], notes, unit="file"), digest.hexdigest()


def _texts_in(name: str) -> list[str]:
    try:
        entries = sorted(os.listdir(name))
    except OSError as error:
        raise FileError(
            f"Cannot read the folder {shown(name)}: {shown(error.strerror)}; check its permissions"
        ) from None
    paths = [str(Path(name, e)) for e in entries if _bare(e).endswith(".txt") and not e.startswith(".")]
    if not paths:
        others = [e for e in entries if _bare(e).endswith((*_JSON, *_SEPARATED, *_PARQUET))]
        tables = f" (tables: {listed(others)})" if others else ""
        raise FormatError(
            f"No .txt files in the folder {shown(name)}, which has {len(entries)} entries{tables}; give the path of a "
            "file, of several, or of a folder with texts"
        )
    return paths


def _file_names(paths: list[str]) -> str:
    return listed((shown(Path(path).name, longest=60) for path in paths), most=5)


def _bare(name: str) -> str:
    """Name in lower case without the end that says how it is compressed."""
    lower = name.lower()
    return next((lower.removesuffix(end) for end in PACKED if lower.endswith(end)), lower)


def _is_folder(path: str | os.PathLike[str]) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - a path may be bytes, or none that can exist


def _require_text(texts: list[str], name: str) -> None:
    if not any(text.strip() for text in texts):
        raise FormatError(f"The text is empty or blank: {shown(name)}; give another file")


def _require_no_column(name: str, columns: Columns) -> None:
    named = [column for column in (*columns.text, columns.label) if column is not None]
    if named:
        nouns = f"the {'column' if len(named) == 1 else 'columns'} {listed(map(shown, named))} " + (
            "was named" if len(named) == 1 else "were named"
        )
        raise FormatError(
            f"Plain text has no columns, and {nouns}: {shown(name)}; leave them out, or name the file after its "
            f"format, {', '.join((*_JSON, *_SEPARATED))}"
        )
