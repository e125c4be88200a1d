"""Which of several adapters: a file, a directory or a model may hold more than one."""

from __future__ import annotations

from collections.abc import Iterable

from subspace.errors import FormatError
from subspace.text import listed

__all__ = ["chosen_adapter", "undecided"]


def chosen_adapter(names: Iterable[str | None], wanted: str | None, where: str) -> str | None:
    """The name of the adapter that is asked for, or of the only one; None is one without a name.

    Raises
    ------
    FormatError : there are several, or the one asked for is not among them

    Examples
    --------
    >>> chosen_adapter(["default"], None, "a.bin"), chosen_adapter([None], "any", "a.bin")
    ('default', None)
    """
    there = list(dict.fromkeys(names))
    if wanted is not None and wanted in there:
        return wanted
    if len(there) == 1 and (wanted is None or there == [None]):
        return there[0]
    raise undecided(there, where, wanted=wanted)


def undecided(names: Iterable[str | None], where: str, *, wanted: str | None = None) -> FormatError:
    """The error that a name must be chosen among several, or is not among them."""
    there = list(names)
    what = f"{len(there)} adapters" if wanted is None else f"No adapter {wanted!r}"
    held = listed((name or "(unnamed)" for name in there), most=8)
    return FormatError(
        f"{what} in {where}: {held}; choose one with `adapter_name`"
        if wanted is None
        else f"{what} in {where}, which holds {held}; choose one of them with `adapter_name`"
    )
