"""The directory that a command fills: its record says what it is, and one process at a time works in it.

Runs and studies share these rules: a directory of something else is left alone, one that was begun with other settings
is refused, and so is a second process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subspace.checkpoints.atomic_writing import write_whole
from subspace.checkpoints.folder_swap import entries, finish
from subspace.checkpoints.sole_writer import real, sole_writer, tidy
from subspace.errors import FileError, ValueRangeError
from subspace.text import listed, shown

__all__ = ["OutputFolder", "cannot_write", "sole_use"]

_OLD_LOCK = ".subspace.lock"  # of version 0.1
# where the content is the same, it does not matter under which path it was found
_BY_CONTENT = {"model_sha256": ("model",), "examples_sha256": ("data", "data_sha256")}


@dataclass(frozen=True)
class OutputFolder:
    """One kind of directory that a command fills.

    Attributes
    ----------
    noun : what the directory is of: "run" or "study"
    schema : first entry of the record
    record : name of the record's file
    other_settings : what to do where the directory was begun with other settings
    logs : files that count as nothing while they are empty
    """

    noun: str
    schema: str
    record: str
    other_settings: str
    logs: tuple[str, ...] = ()

    def read(self, path: Path) -> dict[str, Any]:
        """Return the record in a directory, {} where there is no directory or an empty one.

        Raises
        ------
        FileError : a file is there, the directory cannot be read, or it is one of something else
        """
        if not os.path.lexists(path):
            return {}
        if not path.is_dir():
            raise FileError(
                f"Not a directory: {shown(path, longest=1000)} is a file, where a {self.noun} needs a directory; "
                "choose another name"
            )
        others = self._entries(path)
        return self._own_record(path, others) if others else {}

    def _entries(self, path: Path) -> list[str]:
        """Names in a directory, without what a process that ended may have left behind."""
        try:
            names = [name for name in entries(path) if name != _OLD_LOCK]
            empty = [name for name in self.logs if name in names and not (path / name).stat().st_size]
        except OSError as error:
            raise FileError(
                f"Cannot read the directory {shown(path, longest=1000)}: {shown(error.strerror or error)}; "
                "choose another name"
            ) from error
        return [] if names == empty else names

    def _own_record(self, path: Path, others: list[str]) -> dict[str, Any]:
        try:
            record = json.loads((path / self.record).read_bytes())
            if record["schema"] == self.schema and isinstance(record["settings"], dict):
                return dict(record)
            found = f"a {self.record} of schema {shown(record['schema'])}"
            if str(record["schema"]).rpartition("/")[0] == self.schema.rpartition("/")[0]:
                found += f", of another version of subspace (this one writes {self.schema})"
        except FileNotFoundError:
            found = f"{listed(others, most=5)}, but no {self.record}"
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            found = f"a {self.record} of something else"
        raise FileError(
            f"Not the directory of a {self.noun}: {shown(path, longest=1000)} holds {found}; choose another name"
        )

    def require_same(self, path: Path, begun: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Refuse to go on with other settings than those that a directory was begun with.

        The model and the data are the same where their content is, whatever their paths.

        Raises
        ------
        ValueRangeError : some differ; they are named with both values
        """
        before, now = _flat(begun), _flat(settings)
        differ = _differing(before, now)
        if differ == ["model_sha256"]:
            raise ValueRangeError(
                f"The model {_short(now['model'])} has changed since the {self.noun} in {shown(path, longest=1000)} "
                f"began: its weights, configuration or tokenizer; put the old one back, or {self.other_settings}"
            )
        if differ:
            values = ", ".join(f"{k} {_short(before.get(k))}, now {_short(now.get(k))}" for k in differ)
            raise ValueRangeError(
                f"The {self.noun} in {shown(path, longest=1000)} was begun with other settings: "
                f"{shown(values, longest=600)}; {self.other_settings}"
            )

    def write(
        self,
        path: Path,
        record: Mapping[str, Any],
        files: Mapping[str, bytes] | None = None,
        *,
        without: Sequence[Path] = (),
    ) -> list[Path]:
        """Put files in place, and the record with them; return the paths, the record's last.

        Parameters
        ----------
        without : files that are gone after this step

        Raises
        ------
        FileError : they cannot be written in full; those that were there stay
        """
        contents = {path / name: content for name, content in (files or {}).items()}
        contents |= self.content(path, record)
        write_whole(contents, without=without)
        return list(contents)

    def content(self, path: Path, record: Mapping[str, Any]) -> dict[Path, bytes]:
        """Return path -> content of the record."""
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        # a path may hold bytes that are no UTF-8, which Python keeps as lone surrogates
        return {path / self.record: text.encode("utf-8", "surrogatepass")}


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings that differ; a digest of content only where no path or other digest shows the difference."""
    differ = {key for key in {**before, **now} if before.get(key) != now.get(key)}
    for key, shown_by in _BY_CONTENT.items():
        if key not in before:  # a record of a version that compared paths
            differ.discard(key)
        elif key not in differ:
            differ -= set(shown_by)
        elif differ.intersection(shown_by):
            differ.discard(key)
    return [key for key in {**before, **now} if key in differ]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those of a nested object in its place, such as the rank of a method."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= {f"{key} {k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value}
    return flat


def _short(value: Any) -> str:
    return shown(value if isinstance(value, str) else json.dumps(value), longest=40)


@contextmanager
def sole_use(path: Path) -> Iterator[None]:
    """Keep other processes out of a directory, which is made where it is missing.

    What killed processes had begun to put into it is finished, and the rest of what they left in it and in the
    directories below is removed. Where the file system has no locks, other processes are trusted.

    Raises
    ------
    FileError : another process works in the directory, or it cannot be made or written
    """
    folder = real(path)
    with ExitStack() as stack:
        try:
            stack.enter_context(sole_writer(path, wait=0, within=False))
            path.mkdir(exist_ok=True)
            finish(folder)
        except OSError as error:
            raise error if isinstance(error, FileError) else cannot_write(path, error) from error
        for below in (folder, *folder.glob("*"), *folder.glob("*/*")):
            tidy(below)
        try:
            yield
        finally:
            with suppress(OSError):
                path.rmdir()  # which fails, as it should, unless nothing was written


def cannot_write(path: Path, error: OSError) -> FileError:
    """Return the error of a directory or file that the system does not let us write."""
    return FileError(
        f"Cannot write {shown(path, longest=1000)}: {shown(error.strerror or error)}; check the directory and the "
        "free space"
    )
