"""Text from users and files made fit for a message: escaped, shortened, counted, listed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

__all__ = ["counted", "listed", "module_shown", "shown"]


def __dir__() -> list[str]:
    return sorted(__all__)


_LONGEST = 200


def shown(text: object, *, longest: int = _LONGEST) -> str:
    r"""Text from a user or a file, made safe to print on one line of a terminal.

    Control, bidirectional and unpaired surrogate characters are escaped, and a text longer than `longest`
    keeps its two ends.

    Examples
    --------
    >>> shown("layers.0\x1b[31m.q")
    'layers.0\\x1b[31m.q'
    >>> shown("x" * 1000, longest=9)
    'xxxx…xxxx'
    """
    line = str(text)
    if len(line) > longest:
        half = (longest - 1) // 2
        line = f"{line[:half]}…{line[-half:]}"
    if line.isascii() and line.isprintable():
        return line
    return "".join(c if _printable(c) else c.encode("unicode_escape").decode("ascii") for c in line)


def _printable(character: str) -> bool:
    return character == " " or unicodedata.category(character) not in {
        "Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs",
    }  # fmt: skip


def listed(names: Iterable[object], *, most: int = 3, empty: str = "none") -> str:
    """The first names of a list, and how many more there are; `empty` where there is none.

    Examples
    --------
    >>> listed(["q", "k"]), listed(["q", "k", "v", "o", "up"]), listed([])
    ('q, k', 'q, k, v and 2 more', 'none')
    """
    every = list(names)
    if not every:
        return empty
    more = len(every) - most
    first = ", ".join(shown(name) for name in every[:most])
    return f"{first} and {more} more" if more > 0 else first


def module_shown(name: str) -> str:
    """Name of a module on one line of a message; what has none, as a file of one matrix, is called so.

    Examples
    --------
    >>> module_shown("layers.0.q"), module_shown("")
    ('layers.0.q', 'a matrix without a name')
    """
    return shown(name) or "a matrix without a name"


def counted(n: int, noun: str) -> str:
    """A number with its noun.

    Examples
    --------
    >>> counted(1, "module"), counted(6, "module")
    ('1 module', '6 modules')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
