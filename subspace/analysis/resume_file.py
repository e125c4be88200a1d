"""A file that keeps what was found in every module as it comes, so that a run that was ended can go on.

The first line says of what the results are: both inputs, the question, its settings. Every further line is one module.
A line is appended in one piece; one that a kill has cut short is dropped and its module measured again. Files are told
by their sizes and the times of their last change, as `make` tells them: a digest of a model of 140 GB would take longer
than the work that is to be saved. What is in memory is told by its bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from subspace.analysis.one_module import Outcome
from subspace.checkpoints.sole_writer import sole_writer
from subspace.errors import FileError, FormatError
from subspace.results.row_text import from_text, to_text
from subspace.text import listed, shown

__all__ = ["ResumeFile", "resumed"]

_SCHEMA = "subspace.resume/1"
_START = b'{"dict": [["schema", "subspace.resume/'
_PATIENCE = 1.0  # seconds to wait for another run with the same file, which would take much longer


class ResumeFile:
    """What is known of the modules of a run, and where more is noted; made by `resumed`.

    Attributes
    ----------
    known : module -> what was found in it
    """

    def __init__(self, known: Mapping[str, Outcome], stream: BinaryIO | None = None, name: str = "") -> None:
        self.known = dict(known)
        self._stream = stream
        self._name = name

    def note(self, outcome: Outcome) -> None:
        """Append what was found in a module.

        Raises
        ------
        FileError : the file cannot be written
        """
        if self._stream is None:
            return
        line = to_text(tuple(outcome)).encode() + b"\n"
        try:
            # no fsync: the system keeps what a killed process has written, and a line that a power cut tears is dropped
            self._stream.write(line)
            self._stream.flush()
        except OSError as error:
            raise _unwritten(self._name, error) from None


@contextmanager
def resumed(
    path: str | os.PathLike[str] | None, describe: Callable[[], Mapping[str, object]]
) -> Iterator[ResumeFile]:
    """Open such a file for one run; without a path nothing is known and nothing is noted.

    Parameters
    ----------
    describe : returns what the results depend on, by a word for it

    Raises
    ------
    FileError : it is not such a file, of another run, in use, or cannot be read or written
    """
    if path is None:
        yield ResumeFile({})
        return
    place, name, about = Path(path), shown(os.fspath(path), longest=1000), describe()
    try:
        with sole_writer(place, wait=_PATIENCE):
            known = _known(place, name, about)
            with place.open("ab") as stream:
                if stream.tell() == 0:
                    stream.write(_header(about))
                yield ResumeFile(known, stream, name)
    except OSError as error:
        if isinstance(error, FileError) or error.filename is None:
            raise
        raise _unwritten(name, error) from None


def _header(about: Mapping[str, object]) -> bytes:
    return to_text({"schema": _SCHEMA, "about": dict(about)}).encode() + b"\n"


def _known(place: Path, name: str, about: Mapping[str, object]) -> dict[str, Outcome]:
    """What a file says of the modules; a last line without an end is taken off."""
    content = place.read_bytes() if os.path.lexists(place) else b""
    first, newline, rest = content.partition(b"\n")
    if not newline and _START.startswith(first[: len(_START)]):
        with suppress(FileNotFoundError):
            os.truncate(place, 0)  # it is empty, or ended while its first line was written
        return {}
    _require_same(first, name, about)
    whole, _, torn = rest.rpartition(b"\n")
    if torn:
        os.truncate(place, len(content) - len(torn))
    outcomes = [_outcome(line, number + 2, name) for number, line in enumerate(whole.splitlines())]
    return {outcome.module: outcome for outcome in outcomes}


def _outcome(line: bytes, number: int, name: str) -> Outcome:
    try:
        return Outcome(*from_text(line.decode("ascii")))
    except (FormatError, TypeError, UnicodeError):
        raise FileError(
            f"Damaged file of earlier results: line {number} cannot be read, in {name}; remove the file, or give "
            "another as `resume`"
        ) from None


def _require_same(first: bytes, name: str, about: Mapping[str, object]) -> None:
    try:
        header = from_text(first.decode("ascii"))
        theirs: Mapping[str, object] = header["about"]
        same_kind = header["schema"] == _SCHEMA
    except (FormatError, TypeError, KeyError, UnicodeError):
        same_kind = False
    if not same_kind:
        raise FileError(
            f"Not a file of earlier results: {name} is another kind of file, and stays as it is; give another name "
            "as `resume`"
        )
    others = [word for word in {**about, **theirs} if about.get(word) != theirs.get(word)]
    if others:
        raise FileError(
            f"The earlier results are of another run: not the same {listed(others)}, in {name}; give the same "
            "inputs and settings, or another file as `resume`"
        )


def _unwritten(name: str, error: OSError) -> FileError:
    return FileError(
        f"Cannot write {name}: {shown(error.strerror or error)}; check the path and its permissions"
    )
