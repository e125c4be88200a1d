"""Where in the user's input something is, as a message says it."""

from __future__ import annotations

from subspace.text import shown

__all__ = ["place"]


def place(path: str, module: str = "") -> str:
    """The file, or a module of it, in words that follow "in" and "of".

    Parameters
    ----------
    path : the file, or `subspace.checkpoints.IN_MEMORY`
    module : a module of it; "" for the file itself, and for a matrix that has no name

    Examples
    --------
    >>> place("adapter.pt", "h.0.q"), place("adapter.pt")
    ('module h.0.q of adapter.pt', 'adapter.pt')
    """
    file = shown(path, longest=1000)
    return f"module {shown(module)} of {file}" if module else file
