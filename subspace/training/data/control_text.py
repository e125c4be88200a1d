"""Texts and labels from which something was taken out, for an adapter that a real one is held against.

What two adapters share although one of them saw only such a text was not learned from what the text says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from subspace.errors import FormatError
from subspace.text import shown
from subspace.training.data.order import draws, permutation
from subspace.training.data.turns import text_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.training.data.examples import Examples

__all__ = ["CONTROLS", "LABEL_CONTROLS", "control_examples", "with_control_labels"]

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
        together; "scrambled-tokens" the tokens of each text, once the model's tokenizer has made them; "uniform" draws
        every character from those that occur, each with the same probability.

    Returns
    -------
    Examples : the same for every call. The labels are shuffled among the texts, so no text has its own but by accident.

    Raises
    ------
    FormatError
        If the tokens of conversations are to be shuffled, whose template would be shuffled too.

    Examples
    --------
    >>> from subspace.training.data.examples import Examples
    >>> text = Examples("x.txt", ("to be or not",), None, (), (), "")
    >>> sorted(control_examples(text, "scrambled-words").texts[0].split())
    ['be', 'not', 'or', 'to']
    """
    if examples.labels is not None:
        examples = with_control_labels(examples, "shuffled")
        examples = replace(examples, altered="")
    alter, altered = CONTROLS[kind]
    if kind == "scrambled-tokens":
        _require_no_turns(examples)
        return replace(examples, altered=altered, scrambled_tokens=True)
    return replace(_altered(examples, alter), altered=altered)


def with_control_labels(examples: Examples, kind: str) -> Examples:
    """Return examples whose labels do not belong to their texts, which stay as they are.

    Parameters
    ----------
    examples : with classes
    kind : one of `LABEL_CONTROLS`: "shuffled" among the texts, or "uniform", each class with the same probability

    Raises
    ------
    FormatError
        If the examples have no labels.

    Examples
    --------
    >>> from subspace.training.data.examples import Examples
    >>> reviews = Examples("x.csv", ("a", "b", "c"), (1, 0, 1), ("neg", "pos"), (), "")
    >>> sorted(with_control_labels(reviews, "shuffled").labels)
    [0, 1, 1]
    """
    if examples.labels is None:
        raise FormatError(
            f"The data have no labels, which were to be {LABEL_CONTROLS[kind]}: {shown(examples.path)}; give a table "
            "with labels, or leave `control_labels` out"
        )
    n = len(examples.labels)
    if kind == "shuffled":
        labels = tuple(examples.labels[i] for i in permutation(n, seed=_SEED))
    else:
        labels = tuple(draws(n, len(examples.label_names), seed=_SEED).tolist())
    what = LABEL_CONTROLS[kind]
    altered = f"{examples.altered}, its labels {what}" if examples.altered else f"its labels {what}"
    return replace(
        examples, labels=labels, altered=altered, notes=(*examples.notes, f"the labels are {what}")
    )


def _altered(examples: Examples, alter: Callable[[Texts], list[str]]) -> Examples:
    """The examples with all their texts altered together, each part of an example by itself."""
    if examples.messages is not None:
        said = iter(
            alter([turn["content"] for turns in examples.messages for turn in turns if turn["content"]])
        )
        messages = tuple(
            tuple({**turn, "content": next(said)} if turn["content"] else turn for turn in turns)
            for turns in examples.messages
        )
        return replace(examples, texts=tuple(map(text_of, messages)), messages=messages)
    if examples.prompts is not None:
        pairs = zip(examples.prompts, examples.texts, strict=True)
        parts = alter([part for prompt, text in pairs for part in (prompt, text.removeprefix(prompt))])
        prompts = tuple(parts[::2])
        return replace(
            examples, prompts=prompts, texts=tuple(map("".join, zip(prompts, parts[1::2], strict=True)))
        )
    if examples.seconds is not None:
        parts = alter([*examples.texts, *examples.seconds])
        n = len(examples.texts)
        return replace(examples, texts=tuple(parts[:n]), seconds=tuple(parts[n:]))
    return replace(examples, texts=tuple(alter(examples.texts)))


def _require_no_turns(examples: Examples) -> None:
    if examples.messages is not None:
        raise FormatError(
            f"The tokens of conversations cannot be shuffled without those of their template: {shown(examples.path)}; "
            "give `data` as scrambled-words, or as scrambled"
        )


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


def _own_texts(texts: Texts) -> list[str]:
    """The texts: their tokens are shuffled when the tokenizer has made them."""
    return list(texts)


# name -> what makes it, and what it did in words
CONTROLS: Mapping[str, tuple[Callable[[Texts], list[str]], str]] = {
    "scrambled": (_scrambled, "its characters shuffled"),
    "scrambled-words": (_scrambled_words, "its words shuffled"),
    "scrambled-tokens": (_own_texts, "its tokens shuffled"),
    "uniform": (_uniform, "every character drawn at random from those that occur in it"),
}
# name -> what it did to the labels in words
LABEL_CONTROLS: Mapping[str, str] = {
    "shuffled": "shuffled among the texts", "uniform": "drawn at random from the classes",
}  # fmt: skip
