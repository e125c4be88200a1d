"""What the token ids of a base model stand for: by its tokenizer's files, or as bytes."""

# ruff: noqa: PTH113, PTH118, PTH119, PTH120 - as in `files`

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from subspace.checkpoints.json_files import read_json
from subspace.errors import FileError, ValueRangeError
from subspace.text import shown

__all__ = ["TokenNames", "token_names"]

_LIMIT = 100_000_000  # bytes of a tokenizer.json; that of 256,000 tokens has 30 MB
_SPACE = "▁"  # sentencepiece's, in the place of a space


class TokenNames:
    """The text of token ids.

    Attributes
    ----------
    source : "bytes", the name of the file they are from, or "" where only ids are known
    """

    def __init__(self, names: Mapping[int, str] | None, source: str) -> None:
        self._names, self.source = names, source

    def __getitem__(self, token: int) -> str:
        """The text of a token in quotes, or its id where there is none."""
        if self.source == "bytes":
            return repr(bytes([token]))[1:] if token < 256 else f"#{token}"
        found = None if self._names is None else self._names.get(token)
        return f"#{token}" if found is None else repr(found)


def token_names(path: str, vocabulary: int, tokenizer: str = "auto") -> TokenNames:
    """The names of a model's tokens.

    Parameters
    ----------
    path : of the model's weights, next to which its tokenizer lies
    vocabulary : number of ids that the model has
    tokenizer : "auto", "bytes", or the path of a tokenizer.json or of its folder

    Raises
    ------
    FileError : there is no such tokenizer, it cannot be read, or it names no tokens
    ValueRangeError : bytes as tokens of a model with fewer ids

    Notes
    -----
    A model of 256 ids without a tokenizer reads bytes. Ids without a text are shown as numbers; so are all where there
    is neither a tokenizer.json nor a vocab.json.
    """
    if tokenizer == "bytes":
        if vocabulary < 256:
            raise ValueRangeError(
                f"The model has {vocabulary} token ids, too few for bytes; leave `tokenizer` out"
            )
        return TokenNames(None, "bytes")
    folder = os.path.dirname(path) if tokenizer == "auto" else tokenizer
    files = [folder] if os.path.isfile(folder) else [os.path.join(folder, name) for name in _FILES]
    if tokenizer == "auto" and not os.path.isfile(path):
        files = []  # a model in memory has no folder
    file = next((each for each in files if os.path.isfile(each)), None)
    if file is not None:
        names = dict(_read(file))
        if not names and tokenizer != "auto":  # next to a base, its ids are shown as numbers
            raise FileError(
                f"No vocabulary: the file names no tokens, in {shown(file, longest=1000)}; give `tokenizer` a "
                "tokenizer.json, or bytes"
            )
        return TokenNames(names, os.path.basename(file))
    if tokenizer != "auto":
        raise FileError(
            f"No tokenizer in {shown(folder, longest=1000)}: there is none of {', '.join(_FILES)}; give `tokenizer` "
            "the folder that has one, or bytes"
        )
    return TokenNames(None, "bytes" if vocabulary == 256 else "")


_FILES = ("tokenizer.json", "vocab.json")


def _read(file: str) -> Iterator[tuple[int, str]]:
    stored = read_json(file, limit_bytes=_LIMIT)
    model = stored.get("model")
    vocabulary: Any = model.get("vocab") if isinstance(model, Mapping) else stored
    pairs = list(_pairs(vocabulary))
    byte_level = sum(text.startswith("Ġ") for _, text in pairs) > sum(
        text.startswith(_SPACE) for _, text in pairs
    )
    for token, text in pairs:
        yield token, _decoded(text) if byte_level else text.replace(_SPACE, " ")
    added = stored.get("added_tokens")
    for each in added if isinstance(added, list) else ():
        if (
            isinstance(each, Mapping)
            and isinstance(each.get("id"), int)
            and isinstance(each.get("content"), str)
        ):
            yield each["id"], each["content"]


def _pairs(vocabulary: Any) -> Iterator[tuple[int, str]]:
    """Id and text, from a mapping of texts to ids or a list of texts with their scores."""
    if isinstance(vocabulary, Mapping):
        yield from ((token, text) for text, token in vocabulary.items() if isinstance(token, int))
    elif isinstance(vocabulary, list):
        for token, each in enumerate(vocabulary):
            if isinstance(each, list) and each and isinstance(each[0], str):
                yield token, each[0]


@cache
def _bytes_of() -> dict[str, int]:
    """The byte that each character of GPT-2's byte-level texts stands for (bytes_to_unicode of its encoder.py)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [n for n in range(256) if n not in plain]
    return {chr(n): n for n in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}


def _decoded(text: str) -> str:
    table = _bytes_of()
    if any(letter not in table for letter in text):
        return text
    return bytes(table[letter] for letter in text).decode("utf-8", "replace")
