"""Which output of a base's classifier stands for which class of the data: by name, or by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from subspace.text import listed

__all__ = ["head_note", "in_order_of", "stored_names"]

_MOST_SHOWN, _MOST_CLASSES = 6, 10**6


def stored_names(stored: Mapping[str, Any]) -> list[str]:
    """Return the classes of a ``config.json`` in the order of their numbers; [] where it is of no classifier of texts.

    Notes
    -----
    transformers leaves out LABEL_0 and LABEL_1, its own names of two classes. So a file without names may be of a
    classifier; if it says what the model is for, that decides.
    """
    named = stored.get("id2label")
    count = stored.get("num_labels", 2)
    if isinstance(named, dict) and named:
        names = [str(named[key]) for key in sorted(named, key=lambda key: (len(str(key)), str(key)))]
    else:
        names = _numbered(count) if isinstance(count, int) and 0 < count < _MOST_CLASSES else []
    stated = stored.get("architectures") or ["ForSequenceClassification"]
    of_texts = any("ForSequenceClassification" in str(each) for each in stated)
    return [] if _is_numbered(names) and not of_texts else names


def _numbered(count: int) -> list[str]:
    return [f"LABEL_{n}" for n in range(count)]


def _is_numbered(names: Sequence[str]) -> bool:
    """Whether classes have transformers' own names, which say nothing but their numbers."""
    return list(names) == _numbered(len(names))


def in_order_of(names: Sequence[str], labels: Sequence[str]) -> tuple[str, ...] | None:
    """Return the data's labels in the order of a classifier's outputs; None where it has other classes.

    Parameters
    ----------
    names : of the classifier's outputs
    labels : of the data

    Notes
    -----
    LABEL_0, LABEL_1, ... are the labels in their own order. Names that differ in nothing but case are the same.

    Examples
    --------
    >>> in_order_of(["POSITIVE", "NEGATIVE"], ["negative", "positive"])
    ('positive', 'negative')
    >>> in_order_of(["LABEL_0", "LABEL_1"], ["ham", "spam"]), in_order_of(["a", "b"], ["a", "c"])
    (('ham', 'spam'), None)
    """
    if len(names) != len(labels):
        return None
    for key in (str, str.casefold):
        known = {key(label): label for label in labels}
        if len(known) == len(labels) and set(known) == {key(name) for name in names}:
            return tuple(known[key(name)] for name in names)
    return tuple(labels) if names and _is_numbered(names) else None


def head_note(
    names: Sequence[str], labels: Sequence[str], order: Sequence[str] | None, *, stored: bool
) -> str | None:
    """Return the note on what becomes of a base's classifier, None where it has none.

    Parameters
    ----------
    names : of its outputs, as the base has them
    labels : of the data
    order : those in the order of its outputs; None where it is replaced
    stored : whether there are weights of a classifier
    """
    if not stored:
        return None
    if order is None:
        why = f"its classes are {_list(names)}" if names else "it is not one of whole texts"
        return f"the base's classifier is not kept: {why}, and the data have {_list(labels)}"
    which = f", whose classes {_list(names)} are taken as {_list(order)}" if _differ(names, order) else ""
    return f"the base has a classifier for these labels{which}, which is not trained; name it in `keep` to train it"


def _differ(names: Sequence[str], order: Sequence[str]) -> bool:
    return any(name.casefold() != label.casefold() for name, label in zip(names, order, strict=True))


def _list(names: Sequence[str]) -> str:
    return listed(names, most=_MOST_SHOWN)
