"""How well classes are predicted, and how much of the texts was cut off."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from subspace.text import counted

__all__ = ["class_measures", "cut_note", "cut_of", "macro_f1"]


def class_measures(labels: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Return ``accuracy``, ``macro_f1``, ``balanced_accuracy`` and ``majority``, the share of the most frequent class.

    Parameters
    ----------
    labels : class of each example, from 0; at least one
    predicted : the class that was predicted for it

    Notes
    -----
    As scikit-learn's ``f1_score(average="macro")`` and ``balanced_accuracy_score``: F1 is averaged over the classes
    that occur in either, and is 0 for one that was never predicted right; recall over those that occur in `labels`.

    Examples
    --------
    >>> class_measures([0, 0, 0, 1], [0, 0, 1, 1])
    {'accuracy': 0.75, 'macro_f1': 0.7333333333333334, 'balanced_accuracy': 0.8333333333333333, 'majority': 0.75}
    """
    truth, guess = np.asarray(labels), np.asarray(predicted)
    n = int(max(truth.max(), guess.max())) + 1
    right = np.bincount(truth[truth == guess], minlength=n)
    true, guessed = np.bincount(truth, minlength=n), np.bincount(guess, minlength=n)
    there = true > 0
    return {
        "accuracy": int(right.sum()) / len(truth),
        "macro_f1": float(macro_f1(right, true, guessed)),
        "balanced_accuracy": float((right[there] / true[there]).mean()),
        "majority": int(true.max()) / len(truth),
    }


def macro_f1(right: Any, true: Any, guessed: Any) -> Any:
    """Return F1 averaged over the classes that occur or are predicted; 0 for one that was never predicted right.

    Parameters
    ----------
    right, true, guessed : (..., classes), how many examples are rightly predicted to be of each class, are of it, and
        are predicted to be

    Returns
    -------
    (...) array

    Examples
    --------
    >>> float(macro_f1(np.array([2, 1, 0]), np.array([3, 1, 0]), np.array([2, 2, 0])))
    0.7333333333333334
    """
    found = true + guessed
    f1 = 2 * right / np.maximum(found, 1)
    return f1.sum(-1) / (found > 0).sum(-1)


def cut_of(sizes: Sequence[tuple[int, int]], length: int) -> dict[str, Any]:
    """Return how many texts were cut and by how much, as plain values by name.

    Parameters
    ----------
    sizes : tokens of each text before the cut and after it
    length : most tokens of a text

    Examples
    --------
    >>> cut_of([(3, 3), (10, 4), (6, 4)], 4)["share_lost"]
    0.42105263157894735
    """
    cut = [before for before, after in sizes if after < before]
    total = sum(before for before, _ in sizes)
    lost = total - sum(after for _, after in sizes)
    return {
        "length": length,
        "texts": len(cut),
        "of": len(sizes),
        "median_tokens": median(cut) if cut else None,
        "longest_tokens": max(cut, default=None),
        "tokens": total,
        "tokens_lost": lost,
        "share_lost": lost / total if total else 0.0,
    }


def cut_note(cut: dict[str, Any], *, most: int | None) -> list[str]:
    """Return the note on texts that were cut, none where none was.

    Parameters
    ----------
    cut : what `cut_of` returns
    most : tokens that the model takes, None for no limit
    """
    if not cut["texts"]:
        return []
    is_most = most is not None and cut["length"] >= most
    cure = "which is the most that the model takes" if is_most else "give a larger `length` to keep more"
    return [
        f"{cut['texts']:,} of {counted(cut['of'], 'text')} were cut at {cut['length']:,} tokens: they have "
        f"{cut['median_tokens']:,.0f} tokens (median), the longest {cut['longest_tokens']:,}, and {_percent(cut)} of "
        f"all tokens are lost; {cure}"
    ]


def _percent(cut: dict[str, Any]) -> str:
    share = 100 * cut["share_lost"]
    return f"{share:.0f} %" if share >= 1 else f"{share:.1g} %"
