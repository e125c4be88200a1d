"""Which commands there are, from the files of `subspace.cli.commands`, without importing any."""

from __future__ import annotations

from functools import cache
from pkgutil import iter_modules

from subspace.cli import commands

__all__ = ["command_names", "summary"]

# the order in which --help lists them; others follow by name
_FIRST = (
    "reproduce",
    "inspect",
    "compare",
    "library",
    "amplify",
    "intruders",
    "align",
    "visibility",
    "spectrum",
    "inputs",
    "explain",
    "convert",
    "truncate",
    "extract",
    "train",
    "evaluate",
    "demo",
)


@cache
def command_names() -> list[str]:
    """Names of the commands, the customary ones first."""
    names = sorted(found.name for found in iter_modules(commands.__path__) if not found.name.startswith("_"))
    return sorted(names, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))


def summary(name: str) -> str:
    """What a command is for: the first line of its file."""
    for folder in commands.__path__:
        try:
            with open(f"{folder}/{name}.py", encoding="utf-8") as file:  # noqa: PTH123 - no command waits for pathlib
                return file.readline().strip().strip('"')
        except OSError:
            continue
    return ""
