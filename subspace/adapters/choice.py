"""Which of several adapters: a file, a directory or a model may hold more than one."""

from __future__ import annotations

from collections.abc import Iterable

from subspace.errors import FormatError
from subspace.text import listed

__all__ = ["chosen_adapter", "undecided"]


def chosen_adapter(names: Iterable[str | None], wanted: str | None, where: str) -> str | None:
    """The name of the adapter that is asked for, or of the only one.

    Parameters
    ----------
    names : of the adapters that are there, None for one without a name; a name may come more than once
    wanted : the name that the user gave, None if none
    where : the file, directory or model, for a message

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
    """The error that one of several adapters must be chosen, or that none has the name `wanted`."""
    there = list(names)
    what = f"There are {len(there)} adapters" if wanted is None else f"No adapter {wanted!r}"
    held = listed((name or "(unnamed)" for name in there), most=8)
    return FormatError(
        f"{what} in {where}: {held}; choose one with `adapter_name`"
        if wanted is None
        else f"{what} in {where}, which holds {held}; choose one of them with `adapter_name`"
    )
