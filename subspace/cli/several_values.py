"""Options that take several values, as a shell spells them where it replaces a pattern by the names of files."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["each_with_option"]


def each_with_option(args: Sequence[str], options: Sequence[str]) -> list[str]:
    """Arguments with the option before every value of it; only for commands whose arguments are all options.

    Examples
    --------
    >>> each_with_option(["--data", "a.csv", "b.csv", "-o", "out"], ("--data",))
    ['--data', 'a.csv', '--data', 'b.csv', '-o', 'out']
    """
    spread: list[str] = []
    option = None
    for arg in args:
        if arg.startswith("-"):
            option = name if (name := arg.partition("=")[0]) in options else None
        elif option and spread[-1] != option:
            spread.append(option)
        spread.append(arg)
    return spread
