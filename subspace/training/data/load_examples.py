"""The examples that a run trains on: the user's, or a text that comes with Python; as they are, or as a control."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from hashlib import sha256
from typing import Any

from subspace.errors import FileError, FormatError, ValueRangeError
from subspace.text import listed, shown
from subspace.training.data.control_text import CONTROLS, control_examples, with_control_labels
from subspace.training.data.examples import Examples, read_examples
from subspace.training.data.pydoc import documentation

__all__ = ["READING", "load_examples"]

# the settings of a job that say how its data are read
READING = (
    "text_column", "label_column", "labels", "encoding", "unlabelled", "control_labels", "held_out_data",
)  # fmt: skip


def load_examples(
    data: str | Sequence[str] | None,
    *,
    labels: bool = True,
    held_out_data: str | Sequence[str] | None = None,
    control_labels: str | None = None,
    **reading: Any,
) -> Examples:
    """Return the examples in files or folders, Python's own help topics where none is named.

    Parameters
    ----------
    data : str, sequence of str, or None
        A path or several, or a pattern such as "reviews-*.csv" that stands for several. Or a control, of Python's help
        topics or of a path: "scrambled" and "scrambled:reviews.txt" have their characters shuffled, "scrambled-words"
        its words, "scrambled-tokens" its tokens, "uniform" is as long and random; see `control_examples`. A path of
        that very name comes first.
    labels : bool, keyword-only
        As `read_examples` has it.
    held_out_data : str, sequence of str, or None, keyword-only
        What is held out, named like `data`; its own texts and labels, whatever is done to those of `data`. None: the
        task holds out a fraction of `data`.
    control_labels : str or None, keyword-only
        One of `LABEL_CONTROLS`: what is done to the labels of `data`.
    **reading
        text_column, label_column, encoding and unlabelled, as `read_examples` has them.

    Raises
    ------
    FileError, FormatError
        If they cannot be read, or what is held out is of another kind.
    ValueRangeError
        If a control has no path after its colon, or only some of the paths are of a control.

    Examples
    --------
    >>> sorted(load_examples("scrambled").texts[0]) == sorted(load_examples(None).texts[0])
    True
    """
    examples = _loaded(data, labels=labels, **reading)
    # those of a control are shuffled already
    if control_labels is not None and (control_labels != "shuffled" or not examples.altered):
        examples = with_control_labels(examples, control_labels)
    if held_out_data is None:
        return examples
    has_labels = examples.labels is not None
    classes = examples.label_names if has_labels else None
    held = _loaded(held_out_data, labels=has_labels, classes=classes, **reading)
    _require_same_kind(examples, held)
    if examples.scrambled_tokens:  # by the one tokenizer that both have
        held = replace(held, scrambled_tokens=True, altered=examples.altered)
    notes = [f"held out: {note}" for note in held.notes]
    if held.sha256 == examples.sha256:
        notes.append("the held-out data are the data that are trained on")
    digest = sha256(f"{examples.sha256}\nheld out {held.sha256}".encode()).hexdigest()
    return replace(examples, held_out=held, notes=(*examples.notes, *notes), sha256=digest)


def _require_same_kind(examples: Examples, held: Examples) -> None:
    if examples.kind() != held.kind():
        raise FormatError(
            f"The held-out data are of another kind: {shown(held.path)} has {held.kind()}, and {shown(examples.path)} "
            f"has {examples.kind()}; give `held_out_data` of the same kind"
        )
    if held.scrambled_tokens and not examples.scrambled_tokens:
        raise ValueRangeError(
            "The tokens of the held-out data alone cannot be shuffled; give `data` as scrambled-tokens too"
        )


def _loaded(data: str | Sequence[str] | None, *, labels: bool, **reading: Any) -> Examples:
    named = [data] if isinstance(data, (str, os.PathLike)) else list(data or ())
    parted = [_parted(os.fspath(each)) for each in named]
    controls = {control for control, _ in parted}
    if len(controls) > 1:
        raise ValueRangeError(
            f"Only some of the data are of a control: {listed(map(shown, named))}; give every `data` as the same one"
        )
    paths = [path for _, pattern in parted if pattern is not None for path in _expanded(pattern)]
    if not paths:
        _require_no_column(reading)
        found = documentation()
    else:
        found = read_examples(paths, labels=labels, **reading)
    control = next(iter(controls), None)
    return found if control is None else control_examples(found, control)


def _expanded(pattern: str) -> list[str]:
    """The paths that a pattern stands for, in order; a path as it is."""
    found = [] if os.path.lexists(pattern) or not glob.has_magic(pattern) else sorted(glob.glob(pattern))  # noqa: PTH207
    return found or [pattern]


def _parted(data: str) -> tuple[str | None, str | None]:
    """Which control is asked for, and the path, None for Python's help topics."""
    if os.path.lexists(data):
        return None, data
    control, colon, path = data.partition(":")
    if control not in CONTROLS:
        _require_no_slip(data, control)
        return None, data
    if colon and not path:
        raise ValueRangeError(
            f"No path follows '{shown(data)}'; give `data` as {control}:reviews.txt, or as {control} for Python's help "
            "topics"
        )
    return control, path or None


def _require_no_slip(data: str, word: str) -> None:
    """Refuse a name that is no path and nearly the name of a control."""
    meant = get_close_matches(word, CONTROLS, n=1, cutoff=0.8)
    if meant:
        control = data.replace(word, meant[0], 1)
        raise FileError(
            f"No such file or directory: {shown(data)}; check the path, or give `data` as {shown(control)}"
        )


def _require_no_column(reading: Mapping[str, Any]) -> None:
    named = reading.get("text_column") or reading.get("label_column")
    if named:
        column = named if isinstance(named, str) else named[0]
        raise FormatError(
            f"Python's help topics have no columns, and the column {shown(column)} was named; leave it out, or give "
            "`data` a table"
        )
