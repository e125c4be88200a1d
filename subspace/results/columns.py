"""Columns of a result, each declared once: on a field or property of its row, with meaning, unit and range.

Records, tables, CSV, JSON, notebooks and the glossary follow from the declaration, in the order of the class body.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Any:
        """Stand in for a decorator that only type checkers read."""
        return lambda function: function


__all__ = ["Column", "column", "columns_of", "derived", "row"]

Place: TypeAlias = Literal["table", "record", "csv", "json", "grid"]
_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])
_numbers = itertools.count()
_LATE = 10**6


@dataclass(frozen=True)
class Column:
    """One column of a result.

    Attributes
    ----------
    name : key in records, CSV and JSON, and attribute of the row
    meaning : what the number is, one phrase
    label : heading on a terminal and in a notebook
    unit, range : such as "radians" and "[0, 1]", empty where there is none
    place : "table", shown everywhere; "record", in records, CSV and JSON; "csv", in records and CSV; "json", in JSON;
        "grid", in JSON where the whole grid is asked for
    drop : which columns a narrow terminal leaves out: 1 goes first, then 2; 0 stays
    usual : a table leaves out a column in which every row has this value
    absent : whether a row has no such column, neither in its record nor in its JSON object
    """

    name: str
    meaning: str
    label: str
    unit: str = ""
    range: str = ""
    place: Place = "table"
    drop: int = 0
    usual: Any = None
    absent: Callable[[Any], bool] | None = None
    order: int = 0


def column(
    meaning: str,
    *,
    label: str = "",
    unit: str = "",
    range: str = "",
    place: Place = "table",
    drop: int = 0,
    usual: Any = None,
    absent: Callable[[Any], bool] | None = None,
    late: bool = False,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
) -> Any:
    """Declare a field of a row as a column; parameters as `Column`.

    One of a base class is `late` if it follows those of the row itself, whose last is always flags.
    """
    order = next(_numbers) + (_LATE if late else 0)
    result = Column("", meaning, label, unit, range, place, drop, usual, absent, order)
    return dataclasses.field(default=default, default_factory=default_factory, metadata={"column": result})


def derived(
    *,
    label: str = "",
    unit: str = "",
    range: str = "",
    place: Place = "table",
    drop: int = 0,
    usual: Any = None,
) -> Callable[[_F], _F]:
    """Declare a property of a row as a column, under ``@property``; its meaning is the first line of its docstring."""

    def declare(function: _F) -> _F:
        meaning = (function.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        result = Column(
            function.__name__, meaning, label, unit, range, place, drop, usual, None, next(_numbers)
        )
        function.column = result  # type: ignore[attr-defined]
        return function

    return declare


@dataclass_transform(
    frozen_default=True, eq_default=False, kw_only_default=True, field_specifiers=(column, dataclasses.field)
)
def row(cls: type[_T]) -> type[_T]:
    """Make a class a frozen row: a dataclass with keywords whose `COLUMNS` are those declared in its body, in order.

    The docstring of the class gets the meaning of each field.
    """
    result = dataclass(frozen=True, eq=False, kw_only=True)(cls)
    declared = sorted(_declared(result), key=lambda each: (each.name == "flags", each.order))
    result.COLUMNS = tuple(declared)  # type: ignore[attr-defined]
    result.__doc__ = (
        f"{(cls.__doc__ or '').rstrip()}\n\n    Attributes\n    ----------\n{_attributes(declared)}"
    )
    return result


def _declared(cls: Any) -> Iterable[Column]:
    for field in dataclasses.fields(cls):
        if "column" in field.metadata:
            yield _named(field.metadata["column"], field.name)
    for value in vars(cls).values():
        function: Any = getattr(value, "fget", None) or getattr(value, "func", None)
        if hasattr(function, "column"):
            yield _named(function.column, function.column.name)


def _named(result: Column, name: str) -> Column:
    return dataclasses.replace(result, name=name, label=result.label or name)


def _attributes(columns: Iterable[Column]) -> str:
    return "\n".join(f"    {each.name} : {described(each)}" for each in columns) + "\n    "


def described(each: Column) -> str:
    """The meaning of a column, with its unit and range.

    Examples
    --------
    >>> described(Column("theta", "Principal angles, ascending", "theta", "radians", "[0, pi/2]"))
    'Principal angles, ascending; radians, in [0, pi/2]'
    """
    extent = f"in {each.range}" if each.range.startswith(("[", "(", "{")) else each.range
    details = ", ".join(filter(None, (each.unit, extent)))
    return f"{each.meaning.rstrip('.')}{'; ' if details else ''}{details}"


def columns_of(row_type: Any) -> tuple[Column, ...]:
    """The columns of a row, or of a class of rows."""
    return tuple(row_type.COLUMNS)
