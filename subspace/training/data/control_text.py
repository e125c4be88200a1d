"""Texts from which something was taken out, for an adapter that a real one is held against.

What two adapters share although one of them saw only such a text was not learned from what the text says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from subspace.training.data.order import draws, permutation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.training.data.examples import Examples

__all__ = ["CONTROLS", "control_examples"]

_SEED = 0  # the same control for every run, or two of them could not be compared
_UTF_32 = ("utf-32-le", "surrogatepass")  # JSON may hold unpaired surrogates
_WORD = re.compile(r"\S+")

Texts = Sequence[str]


def control_examples(examples: Examples, kind: str) -> Examples:
    """Return examples of the same number and lengths whose texts say nothing any more, or little.

    Parameters
    ----------
    examples : texts, with or without classes
    kind : one of `CONTROLS`. "scrambled" shuffles the characters and "scrambled-words" the words, over all texts
        together; "uniform" draws every character from those that occur, each with the same probability.

    Returns
    -------
    Examples : the same for every call. The labels are shuffled among the texts, so no text has its own but by accident.

    Examples
    --------
    >>> from subspace.training.data.examples import Examples
    >>> text = Examples("x.txt", ("to be or not",), None, (), (), "")
    >>> sorted(control_examples(text, "scrambled-words").texts[0].split())
    ['be', 'not', 'or', 'to']
    """
    alter, altered = CONTROLS[kind]
    texts = tuple(alter(examples.texts))
    labels, notes = examples.labels, examples.notes
    if labels is not None:
        labels = tuple(labels[i] for i in permutation(len(labels), seed=_SEED))
        notes = (*notes, "the labels are shuffled among the texts")
    return replace(examples, texts=texts, labels=labels, notes=notes, altered=altered)


def _scrambled(texts: Texts) -> list[str]:
    codes = _codes(texts)
    return _as_long_as(texts, codes[permutation(len(codes), seed=_SEED)])


def _uniform(texts: Texts) -> list[str]:
    codes = _codes(texts)
    alphabet = np.unique(codes)
    return _as_long_as(texts, alphabet[draws(len(codes), len(alphabet), seed=_SEED)])


def _scrambled_words(texts: Texts) -> list[str]:
    """White space stays where it is, so that every text keeps its lines and its number of words."""
    words = [word for text in texts for word in _WORD.findall(text)]
    shuffled = iter(permutation(len(words), seed=_SEED).tolist())
    return [_WORD.sub(lambda _: words[next(shuffled)], text) for text in texts]


def _codes(texts: Texts) -> NDArray[np.uint32]:
    return np.frombuffer("".join(texts).encode(*_UTF_32), np.uint32)


def _as_long_as(texts: Texts, codes: NDArray[np.uint32]) -> list[str]:
    ends = np.cumsum([len(text) for text in texts])[:-1]
    return [part.tobytes().decode(*_UTF_32) for part in np.split(codes, ends)]


# name -> what makes it, and what it did in words
CONTROLS: Mapping[str, tuple[Callable[[Texts], list[str]], str]] = {
    "scrambled": (_scrambled, "its characters shuffled"),
    "scrambled-words": (_scrambled_words, "its words shuffled"),
    "uniform": (_uniform, "every character drawn at random from those that occur in it"),
}
