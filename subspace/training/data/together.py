"""The examples of several files as one, and the classes that their labels name."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from subspace.errors import FormatError
from subspace.text import counted, listed, shown
from subspace.training.data.assemble import places
from subspace.training.data.labels import missing, sorted_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.training.data.assemble import Part, Row

__all__ = ["UNLABELLED", "kind_of_texts", "together"]

UNLABELLED = ("refuse", "drop", "keep")  # what to do with rows whose label is missing


def together(
    parts: Sequence[Part], *, unlabelled: str = "refuse", classes: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """Return what `Examples` has of the rows of all files, by the names of its attributes.

    Parameters
    ----------
    parts : one per file
    unlabelled : one of `UNLABELLED`: "drop" leaves out the rows whose label is empty, nan or -1, "keep" takes nan
        and -1 for classes
    classes : names that the labels must be among; None: those that are there, at least two

    Raises
    ------
    FormatError
        If only some have labels, prompts, conversations or pairs, labels are missing, or classes do not fit.

    Examples
    --------
    >>> from subspace.training.data.assemble import Part, Row
    >>> parts = [Part("a.csv", [Row("so good", "pos")], [], "label"), Part("b.csv", [Row("bad", "neg")], [], "label")]
    >>> found = together(parts)
    >>> found["texts"], found["labels"], found["label_names"]
    (('so good', 'bad'), (1, 0), ('neg', 'pos'))
    """
    _require_alike(parts)
    notes = _notes(parts)
    kept, dropped = _labelled(parts, unlabelled) if parts[0].column is not None else (parts, [])
    rows = [row for part in kept for row in part.rows]
    names: tuple[str, ...] = ()
    if parts[0].column is not None:
        names = classes or sorted_names(row.label for row in rows if row.label is not None)
        _require_classes(kept, names, classes is None)
    index: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    return {
        "texts": tuple(row.text for row in rows),
        "labels": tuple(index[row.label] for row in rows) if names else None,
        "label_names": names,
        "notes": tuple(dict.fromkeys([*notes, *dropped])),
        "prompts": _all(rows, "prompt"),
        "messages": _all(rows, "turns"),
        "seconds": _all(rows, "second"),
    }


def _all(rows: Sequence[Row], name: str) -> tuple[Any, ...] | None:
    return None if getattr(rows[0], name) is None else tuple(getattr(row, name) for row in rows)


def _notes(parts: Sequence[Part]) -> list[str]:
    """The notes on all files, each once, with the files that it is about where they are not all."""
    about: dict[str, list[Part]] = {}
    for part in parts:
        for note in part.notes:
            about.setdefault(note, []).append(part)
    named = {note: listed(shown(part.path) for part in those) for note, those in about.items()}
    return [
        note if len(those) == len(parts) or those[0].path in note else f"{note}, in {named[note]}"
        for note, those in about.items()
    ]


def kind_of_texts(prompts: object, messages: object, seconds: object, *, labelled: bool) -> str:
    """Return what examples are that have these (not None), in words."""
    kinds = ("prompts and completions", prompts), ("conversations", messages), ("pairs of texts", seconds)
    kind = next((kind for kind, value in kinds if value is not None), "texts")
    return f"{kind} {'with' if labelled else 'without'} labels"


def _kind(part: Part) -> str:
    row = part.rows[0]
    return kind_of_texts(row.prompt, row.turns, row.second, labelled=part.column is not None)


def _require_alike(parts: Sequence[Part]) -> None:
    for part in parts[1:]:
        if _kind(part) != _kind(parts[0]):
            raise FormatError(
                f"The data are not all of one kind: {shown(parts[0].path)} has {_kind(parts[0])}, and "
                f"{shown(part.path)} has {_kind(part)}; give files of one kind, or turn `labels` off to train on the "
                "texts alone"
            )


def _labelled(parts: Sequence[Part], unlabelled: str) -> tuple[list[Part], list[str]]:
    """The parts without the rows whose label is missing, if these may be left out, and a note on them."""
    none = missing(row.label for part in parts for row in part.rows)
    if unlabelled == "keep":
        none &= {None}
    at = [(part, [row for row in part.rows if row.label in none]) for part in parts]
    n = sum(len(rows) for _, rows in at)
    if not n:
        return list(parts), []
    total = sum(len(part.rows) for part in parts)
    found = Counter(row.label or "empty" for _, rows in at for row in rows)
    values = listed((f"{value} in {counted(n, 'row')}" for value, n in found.most_common()))
    where = listed(
        f"{shown(part.path)} {places(part.unit, [r.number for r in rows])}" for part, rows in at if rows
    )
    if unlabelled != "drop" or n == total:
        cures = ["give `unlabelled` as drop to leave these rows out"] if n < total else []
        cures += ["give `unlabelled` as keep if they are classes"] if none - {None} and n < total else []
        raise FormatError(
            f"Labels are missing in {n:,} of {total:,} rows: {values}, in the column {shown(parts[0].column)} "
            f"of {where}; {', or '.join([*cures, 'turn `labels` off to train on the texts alone'])}"
        )
    kept = [replace(part, rows=[row for row in part.rows if row.label not in none]) for part in parts]
    return kept, [
        f"{counted(n, 'row')} without a label {'was' if n == 1 else 'were'} left out ({values}): {where}"
    ]


def _require_classes(parts: Sequence[Part], names: tuple[str, ...], own: bool) -> None:
    column, paths = shown(parts[0].column), listed(shown(part.path) for part in parts)
    if len(names) < 2:
        raise FormatError(
            f"A classifier needs at least two classes, and all labels are {shown(names[0])}, in the column {column} of "
            f"{paths}; add the other classes, or turn `labels` off to train on the texts alone"
        )
    strange = sorted_names(
        row.label for part in parts for row in part.rows if row.label not in names and row.label
    )
    if strange and not own:
        raise FormatError(
            f"The held-out data have classes that the data to train on do not have: {listed(map(shown, strange))}, in "
            f"the column {column} of {paths}; the others have {listed(map(shown, names), most=5)}"
        )
