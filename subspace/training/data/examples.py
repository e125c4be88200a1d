"""Examples to train on, read from an untrusted file or folder."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from subspace.checkpoints.regular_file import path_text
from subspace.errors import FileError, FormatError
from subspace.text import listed, shown
from subspace.training.data.assemble import assembled
from subspace.training.data.delimited import csv_table, tsv_table
from subspace.training.data.jsonrows import json_table, jsonl_table
from subspace.training.data.source import PACKED, decoded, read_bytes, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from subspace.training.data.table import Table
    from subspace.training.data.turns import Turns

__all__ = ["Examples", "read_examples"]

_TABLES: dict[str, Callable[[str, str], Table]] = {
    ".jsonl": jsonl_table, ".ndjson": jsonl_table, ".json": json_table, ".csv": csv_table, ".tsv": tsv_table,
}  # fmt: skip
_CLASSES_SHOWN = 6


@dataclass(frozen=True)
class Examples:
    """Texts, with or without classes.

    Attributes
    ----------
    path : str
        Where they are from.
    texts : tuple of str
        Each as a whole: of a prompt and its completion both, joined by a line break; of a conversation what is said,
        joined by line breaks.
    labels : tuple of int, or None
        Index into `label_names` for each text; None for texts without classes.
    label_names : tuple of str
        Distinct, by value if all are integers, else as text; () for texts without classes.
    notes : tuple of str
        Notes for the user, such as which rows were left out.
    sha256 : str
        Of the bytes on disk, before they are unpacked; of a folder, of its files one after the other.
    altered : str
        What was done to the texts of a control, in words.
    prompts : tuple of str, or None
        The beginning of each of `texts`, with its line break, up to where the completion begins:
        ``text.removeprefix(prompt)`` is the completion. None where the texts are not made of prompts and completions.
    messages : tuple of tuples of dict, or None
        The turns of each conversation, with "role" and "content" as a chat template reads them; None where the rows
        are no conversations.
    seconds : tuple of str, or None
        The second text of each pair that is to be classified, of which `texts` has the first; None without pairs.
    held_out : Examples, or None
        Those of a file of their own, for evaluation only and with the same `label_names`; None: a fraction of these.
    """

    path: str
    texts: tuple[str, ...] = field(repr=False)
    labels: tuple[int, ...] | None = field(repr=False)
    label_names: tuple[str, ...]
    notes: tuple[str, ...]
    sha256: str
    altered: str = ""
    prompts: tuple[str, ...] | None = field(default=None, repr=False)
    messages: tuple[Turns, ...] | None = field(default=None, repr=False)
    seconds: tuple[str, ...] | None = field(default=None, repr=False)
    held_out: Examples | None = None

    def summary(self) -> str:
        """Return how much there is, in one line.

        Examples
        --------
        >>> Examples("x.csv", ("a", "b", "c"), (1, 0, 1), ("neg", "pos"), (), "").summary()
        '3 examples, 2 classes (neg 1, pos 2)'
        >>> Examples("x.txt", ("abc",), None, (), (), "").summary()
        '3 bytes of text'
        """
        return f"{self._size()}, {self.altered}" if self.altered else self._size()

    def _size(self) -> str:
        if self.labels is not None:
            return f"{len(self.texts):,} examples, {len(self.label_names):,} classes ({self._counted()})"
        size = f"{sum(len(text.encode('utf-8')) for text in self.texts):,} bytes of text"
        return size if len(self.texts) == 1 else f"{len(self.texts):,} examples without labels, {size}"

    def _counted(self) -> str:
        counts = Counter(self.labels)
        named = [f"{shown(name, longest=40)} {counts[i]:,}" for i, name in enumerate(self.label_names)]
        more = [f"{len(named) - _CLASSES_SHOWN:,} more"] if len(named) > _CLASSES_SHOWN else []
        return ", ".join(named[:_CLASSES_SHOWN] + more)


def read_examples(
    path: str | os.PathLike[str],
    *,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    labels: bool = True,
) -> Examples:
    r"""Return the texts and labels of a file or of a folder; the format follows from the name.

    Parameters
    ----------
    path : path
        .jsonl or .ndjson (an object per line), .json (that, or a list of objects), .csv (quoted), .tsv (not quoted),
        else plain text, which is one example, unchanged; any of them with .gz or .bz2 on top. In a folder every .txt
        file is an example, in order of the names; hidden files are passed over. UTF-8, a byte order mark allowed.
    text_column, label_column : str, keyword-only
        By default the first there is of text, document, sentence, content, review, snippet, body, comment, and of
        label, labels, target, class, sentiment, rating_class. JSON objects may instead have prompt and completion,
        or instruction, input and output or response, which are joined by line breaks.
    labels : bool, keyword-only
        False: texts alone, whatever columns there are.

    Raises
    ------
    FileError
        If a file cannot be read, is no regular file, is damaged, or unpacks to more than 4 GiB.
    FormatError
        If it is not UTF-8 or not of its format, or holds no example, no column of texts or a single class.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "reviews.tsv")
    ...     _ = path.write_text('id\tdocument\tlabel\n1\tso "good\t1\n2\tso bad\t0\n')
    ...     examples = read_examples(path)
    >>> examples.texts, examples.labels, examples.label_names
    (('so "good', 'so bad'), (1, 0), ('0', '1'))
    """
    name = path_text(path)
    kind = next((kind for kind in _TABLES if _bare(name).endswith(kind)), None)
    if kind is None or _is_folder(path):
        _require_no_column(name, text_column or label_column)
        return _folder(name) if _is_folder(path) else _plain(name, [name])
    raw = read_bytes(path)
    table = _TABLES[kind](decoded(unpacked(raw, name), name), name)
    wanted = (text_column,) if isinstance(text_column, str) else text_column or ()
    found = assembled(table, wanted, label_column, labels=labels)
    return Examples(path=name, sha256=sha256(raw).hexdigest(), **vars(found))


def _plain(name: str, paths: list[str]) -> Examples:
    digest = sha256()
    read: dict[str, str] = {}
    for path in paths:
        raw = read_bytes(path)
        digest.update(raw)
        read[path] = decoded(unpacked(raw, path), path)
    texts = tuple(text for text in read.values() if text.strip())
    blank = [path for path, text in read.items() if not text.strip()]
    if not texts:
        raise FormatError(f"The text is empty or blank: {shown(name)}; give another file")
    notes = (f"files without a text were left out: {_file_names(blank)}",) if blank else ()
    return Examples(name, texts, None, (), notes, digest.hexdigest())


def _folder(name: str) -> Examples:
    try:
        entries = sorted(os.listdir(name))
    except OSError as error:
        raise FileError(
            f"Cannot read the folder {shown(name)}: {shown(error.strerror)}; check its permissions"
        ) from None
    paths = [str(Path(name, e)) for e in entries if _bare(e).endswith(".txt") and not e.startswith(".")]
    if not paths:
        raise FormatError(
            f"No .txt files in the folder {shown(name)}, which has {len(entries)} entries; give the path of a file, "
            "or of a folder with texts"
        )
    return _plain(name, paths)


def _file_names(paths: list[str]) -> str:
    return listed((shown(Path(path).name, longest=60) for path in paths), most=5)


def _bare(name: str) -> str:
    """Name in lower case without the end that says how it is compressed."""
    lower = name.lower()
    return next((lower.removesuffix(end) for end in PACKED if lower.endswith(end)), lower)


def _is_folder(path: str | os.PathLike[str]) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - a path may be bytes, or none that can exist


def _require_no_column(name: str, column: str | None) -> None:
    if column is not None:
        raise FormatError(
            f"Plain text has no columns, and the column {shown(column)} was named: {shown(name)}; leave it out, or "
            f"name the file after its format, {', '.join(_TABLES)}"
        )
