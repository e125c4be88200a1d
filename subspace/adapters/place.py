"""Where in the user's input something is, as a message says it."""

from __future__ import annotations

from subspace.text import shown

__all__ = ["adapter_at", "place", "within"]

_IN_MEMORY = "in memory"  # what `subspace.checkpoints` calls tensors that come from no file


def place(path: str, module: str = "") -> str:
    """The file, or a module of it, in words that follow "in" and "of".

    Parameters
    ----------
    path : the file, or "in memory"
    module : a module of it; "" for the file itself, and for a matrix that has no name

    Examples
    --------
    >>> place("adapter.pt", "h.0.q"), place("in memory")
    ('module h.0.q of adapter.pt', 'the tensors in memory')
    """
    file = "the tensors in memory" if path == _IN_MEMORY else shown(path, longest=1000)
    return within(module, file)


def adapter_at(path: str) -> str:
    """An adapter by its file, at the beginning of a sentence."""
    return "The adapter in memory" if path == _IN_MEMORY else shown(path, longest=1000)


def within(module: str, where: str) -> str:
    """A module of one or several files that are in words already; the files alone where it has no name."""
    return f"module {shown(module)} of {where}" if module else where
