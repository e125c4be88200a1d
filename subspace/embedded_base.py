"""Where the small base model inside this package lies, and the word by which commands and functions call it."""

# ruff: noqa: PTH118, PTH120 - a command that reads one adapter need not wait for pathlib

from __future__ import annotations

import os

__all__ = ["EMBEDDED", "embedded_or"]


def __dir__() -> list[str]:
    return sorted(__all__)


EMBEDDED = "embedded"
_FOLDER = os.path.join(os.path.dirname(__file__), "training", "embedded", "base")


def embedded_or(path: str) -> str:
    """The folder of the embedded base for the word "embedded"; any other path, or one that exists, as it is.

    Examples
    --------
    >>> embedded_or("runs/a"), os.path.basename(embedded_or("embedded"))
    ('runs/a', 'base')
    """
    return _FOLDER if path == EMBEDDED and not os.path.lexists(path) else path
