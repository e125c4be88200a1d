"""Examples to train on, read from untrusted files or folders."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from subspace.checkpoints.regular_file import path_text
from subspace.text import listed, shown
from subspace.training.data.read_part import Columns, read_part
from subspace.training.data.together import kind_of_texts, together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.training.data.turns import Turns

__all__ = ["Examples", "read_examples"]

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
        Of the bytes on disk, before they are unpacked; of a folder, of its files one after the other; of several files,
        of the digests of each, and of the held-out ones.
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
    scrambled_tokens : bool
        Whether the tokens of each text, those of `held_out` too, are to be shuffled when the tokenizer has made them.
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
    scrambled_tokens: bool = False

    def summary(self) -> str:
        """Return how much there is, in one line.

        Examples
        --------
        >>> Examples("x.csv", ("a", "b", "c"), (1, 0, 1), ("neg", "pos"), (), "").summary()
        '3 examples, 2 classes (neg 1, pos 2)'
        >>> Examples("x.txt", ("abc",), None, (), (), "").summary()
        '3 bytes of text'
        """
        size = f"{self._size()}, {self.altered}" if self.altered else self._size()
        return size if self.held_out is None else f"{size}; held out: {self.held_out.summary()}"

    def joined(self) -> tuple[Examples, Sequence[int]]:
        """Return all examples, those of `held_out` last, and the indices of those; () where a fraction is held out.

        Examples
        --------
        >>> held = Examples("b.csv", ("c",), (1,), ("neg", "pos"), (), "")
        >>> both, apart = Examples("a.csv", ("a", "b"), (1, 0), ("neg", "pos"), (), "", held_out=held).joined()
        >>> both.texts, both.labels, list(apart)
        (('a', 'b', 'c'), (1, 0, 1), [2])
        """
        if (held := self.held_out) is None:
            return self, ()
        both: dict[str, Any] = {
            name: own if own is None else own + getattr(held, name)
            for name in ("texts", "labels", "prompts", "messages", "seconds")
            for own in [getattr(self, name)]
        }
        n = len(self.texts)
        return replace(self, **both, held_out=None), range(n, n + len(held.texts))

    def kind(self) -> str:
        """Return what they are, in words.

        Examples
        --------
        >>> Examples("x.csv", ("a", "b"), (1, 0), ("neg", "pos"), (), "").kind()
        'texts with labels'
        """
        return kind_of_texts(self.prompts, self.messages, self.seconds, labelled=self.labels is not None)

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
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    labels: bool = True,
    encoding: str | None = None,
    unlabelled: str = "refuse",
    classes: tuple[str, ...] | None = None,
) -> Examples:
    r"""Return the texts and labels of a file, of several, or of a folder.

    Parameters
    ----------
    path : path, or several
        .jsonl or .ndjson (an object per line), .json (that, or a list of objects), .csv (quoted), .tsv (not quoted),
        .parquet, a folder that a `datasets.Dataset` was saved to, or any other name: a table if it looks like one whose
        columns are known, else plain text, which is one example, unchanged. All but .parquet with .gz or .bz2 on top.
        In another folder every .txt file is an example, in order of the names; hidden files are passed over.
    text_column, label_column : str, keyword-only
        By default the first there is of text, document, sentence, content, review, snippet, body, comment, and of
        label, labels, target, class, sentiment, rating_class. Two columns of text are a pair to be classified, such as
        sentence1 and sentence2, or premise and hypothesis; or, without labels, a prompt and its completion, such as
        prompt and completion, question and answer, or instruction, input and output: joined by line breaks. The column
        messages or conversations has the turns of a conversation.
    labels : bool, keyword-only
        False: texts alone, whatever columns there are.
    encoding : str, keyword-only
        Of all files, such as "cp949"; by default UTF-8, a byte order mark allowed.
    unlabelled : str, keyword-only
        What to do where a label is empty, nan or -1: "refuse" the data, "drop" the rows, or "keep" nan and -1 as
        classes.
    classes : tuple of str, keyword-only
        Names that the labels must be among; by default those that are there, at least two.

    Raises
    ------
    FileError
        If a file cannot be read, is no regular file, is damaged, unpacks to more than 4 GiB, or needs a package that is
        not installed.
    FormatError
        If it is not of its encoding or format, or holds no example, no column of texts, labels that are missing, or a
        single class.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "reviews.tsv")
    ...     _ = path.write_text('id\tdocument\tlabel\n1\tso "good\t1\n2\tso bad\t0\n')
    ...     examples = read_examples(path)
    >>> examples.texts, examples.labels, examples.label_names
    (('so "good', 'so bad'), (1, 0), ('0', '1'))
    """
    paths = [path] if isinstance(path, (str, bytes, os.PathLike)) else list(path)
    columns = Columns(
        (text_column,) if isinstance(text_column, str) else tuple(text_column or ()), label_column, labels
    )
    read = [read_part(each, columns, encoding) for each in paths]
    digests = [digest for _, digest in read]
    # one file has the digest of its bytes; several that of their digests, which says where each ends
    whole = digests[0] if len(digests) == 1 else sha256("\n".join(digests).encode()).hexdigest()
    found = together([part for part, _ in read], unlabelled=unlabelled, classes=classes)
    return Examples(path=listed(map(path_text, paths)), sha256=whole, **found)
