"""Where in the user's input something is, as a message says it."""

from __future__ import annotations

from subspace.text import shown

__all__ = ["adapter_at", "place", "within"]


def place(path: str, module: str = "") -> str:
    """The file, or a module of it, in words that follow "in" and "of".

    Parameters
    ----------
    path : the file, or what `subspace.checkpoints` calls tensors that come from no file
    module : a module of it; "" for the file itself, and for a matrix that has no name

    Examples
    --------
    >>> place("adapter.pt", "h.0.q"), place("the state dict in memory")
    ('module h.0.q of adapter.pt', 'the state dict in memory')
    """
    return within(module, shown(path, longest=1000))


def adapter_at(path: str) -> str:
    """An adapter by its file, at the beginning of a sentence."""
    text = shown(path, longest=1000)
    return f"The {text[4:]}" if text.startswith("the ") else text


def within(module: str, where: str) -> str:
    """A module of one or several files that are in words already; the files alone where it has no name."""
    return f"module {shown(module)} of {where}" if module else where
