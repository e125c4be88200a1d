"""JSON files that come with weights: adapter_config.json, config.json, the index of shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subspace.checkpoints import strict_json
from subspace.checkpoints.held_file import HeldFile, held
from subspace.errors import FileError
from subspace.text import shown

if TYPE_CHECKING:
    import os

__all__ = ["read_json"]

_KINDS = {
    list: "a list",
    str: "text",
    int: "a number",
    float: "a number",
    bool: "a truth value",
    type(None): "null",
}


def read_json(path: str | os.PathLike[str] | HeldFile, *, limit_bytes: int = 10_000_000) -> dict[str, Any]:
    """The object that a JSON file holds.

    Parameters
    ----------
    path : path
        A regular file in UTF-8; a byte order mark is allowed.
    limit_bytes : int, keyword-only
        Longer files are refused before they are parsed.

    Raises
    ------
    FileError
        If the file cannot be read, is too long, is not UTF-8, is not one JSON object, or has an ambiguous or
        non-standard value (see `strict_json.parse`).
    """
    file = held(path)
    raw, path = file.read(0, limit_bytes + 1), file.path
    if len(raw) > limit_bytes:
        raise _invalid(path, f"more than {limit_bytes} bytes")
    try:
        value = strict_json.parse(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _invalid(path, f"byte {error.start} is not UTF-8") from None
    except ValueError as error:
        raise _invalid(path, shown(error)) from None
    if not isinstance(value, dict):
        raise _invalid(path, f"the top level is {_KINDS[type(value)]}, not an object")
    return value


def _invalid(path: str, fact: str) -> FileError:
    return FileError(
        f"Invalid JSON file: {fact}, in {shown(path)}; save it again as UTF-8 JSON or download it again"
    )
