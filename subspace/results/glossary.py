"""The glossary, from the declarations: every column of every result, and every flag.

``python -m subspace.results.glossary`` writes it into docs/glossary.md of the current directory, between two comments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import TypeVar

from subspace import results
from subspace.flags import Flag
from subspace.results.columns import Column, columns_of, described
from subspace.results.result import Result, Row

__all__ = ["glossary", "updated"]

BEGIN, END = (
    "<!-- glossary: written by python -m subspace.results.glossary -->\n",
    "<!-- end of glossary -->\n",
)

_T = TypeVar("_T")
_WHERE = {"table": "table", "record": "JSON, CSV", "csv": "CSV", "json": "JSON", "grid": "grid"}


def glossary() -> str:
    """Every column, grouped by the command whose result has it, and every flag, as Markdown tables."""
    sections = [f"## Columns of `{command}`\n\n{_columns(rows)}" for command, rows in _results()]
    return "\n".join([*sections, f"## Flags\n\n{_flags()}"])


def updated(text: str) -> str:
    """A text with the glossary between its two comments.

    Raises
    ------
    ValueError : it lacks one of the comments
    """
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    return f"{text[:before]}\n{glossary()}\n{text[after:]}"


def _results() -> Iterator[tuple[str, list[type[Row]]]]:
    """Name of each command, with the classes of rows that its result has; found from the files of this folder."""
    for found in iter_modules(results.__path__):
        module = import_module(f"{results.__name__}.{found.name}")
        for result in _classes(module, Result):
            if result.SCHEMA:
                command = result.SCHEMA.removeprefix("subspace.").partition("/")[0]
                rows = dict.fromkeys([result.ROW, *_classes(module, Row)])
                yield command, sorted(rows, key=_nested)


def _classes(module: ModuleType, base: type[_T]) -> list[type[_T]]:
    """The classes that a file defines and that derive from a base."""
    own = (each for each in vars(module).values() if isinstance(each, type))
    return [each for each in own if issubclass(each, base) and each.__module__ == module.__name__]


def _nested(row_type: type[Row]) -> bool:
    """Whether rows of this class have no module of their own, as they belong to another row."""
    return "module" not in {each.name for each in columns_of(row_type)}


def _columns(rows: Iterable[type[Row]]) -> str:
    columns: dict[str, Column] = {}
    for each in (each for row_type in rows for each in columns_of(row_type)):
        columns.setdefault(each.name, each)
    lines = ((_named(each), _WHERE[each.place], described(each)) for each in columns.values())
    return _table(("column", "in", "meaning"), lines)


def _named(each: Column) -> str:
    """The name of a column, and its heading on a terminal where that is another."""
    same = each.label.replace(" ", "_") == each.name
    return f"`{each.name}`" if same else f"`{each.name}`, *{each.label}*"


def _flags() -> str:
    return _table(
        ("flag", "meaning", "what to do"), ((f"`{flag}`", flag.meaning, flag.cure) for flag in Flag)
    )


def _table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    ruled = [head, ("---",) * len(head), *lines]
    return "".join(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in line)} |\n" for line in ruled)


if __name__ == "__main__":
    page = Path("docs/glossary.md")
    page.write_text(updated(page.read_text(encoding="utf-8")), encoding="utf-8")
