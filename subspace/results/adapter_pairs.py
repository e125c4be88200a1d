"""Pairs of adapters as rows of a result: kept as columns of numbers, and made into rows when they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from subspace.errors import ValueRangeError
from subspace.flags import Flag
from subspace.results.columns import column, columns_of, row
from subspace.results.result import Row
from subspace.text import listed, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AdapterPair", "PairRows", "PairTable"]


@row
class AdapterPair(Row):
    """Two adapters of a library on one side of their modules, or of one module or layer."""

    first: str = column("Path of the first adapter", place="record")
    second: str = column("Path of the second adapter", place="record")
    first_name: str = column(
        "Path of the first adapter, without what all paths have in common", label="first"
    )
    second_name: str = column(
        "Path of the second adapter, without what all paths have in common", label="second"
    )
    part: str = column(
        "Module or layer that the row is of; empty for all modules together", usual="", default=""
    )
    side: str = column('"a", "b", "left" or "right": which singular vectors are compared')
    modules: int = column("Number of modules that both have, over which the numbers of the row are", drop=4)
    cosine: float | None = column(
        "Signed cosine of the two delta_W over these modules; the same on all sides",
        range="[-1, 1]",
        default=None,
    )
    phi_full: float | None = column(
        "phi of the whole spans, mean over the modules: 1 where one contains the other",
        range="[0, 1]",
        default=None,
    )
    chance: float | None = column("Mean of phi_full over isotropic random spans", drop=3, default=None)
    phi_control: float | None = column(
        "phi of the whole spans of modules of another job: those that read the same input on sides a and right, of "
        "other layers elsewhere; None without such modules",
        label="control",
        default=None,
    )
    p_library: float | None = column(
        "Share of the library that is at least as alike to the first, or to the second where that is more; None below "
        "39 adapters",
        label="p",
        range="(0, 1]",
        default=None,
    )
    distance: float | None = column(
        "Distance of the spans, see `metric` of the result: root mean square over the modules",
        drop=2,
        default=None,
    )
    phi_leading: float | None = column(
        "phi of the leading i directions of the first in the leading j of the second; None unless they were asked for",
        label="phi(i, j)",
        default=None,
    )
    flags: tuple[Flag, ...] = column(
        "What to know before reading the row, see the list of flags", drop=1, default=()
    )

    @property
    def module(self) -> str:  # type: ignore[override]
        """The two adapters, under the name by which every result finds its rows."""
        return f"{self.first_name} | {self.second_name}"

    @property
    def level(self) -> float | None:
        """What phi is without anything in common: the control where there is one, else chance."""
        return self.chance if self.phi_control is None else self.phi_control


_NUMBERS = ("cosine", "phi_full", "chance", "phi_control", "p_library", "distance", "phi_leading")


@dataclass(frozen=True, eq=False)
class PairTable:
    """Rows of pairs as columns.

    Attributes
    ----------
    paths, names : of the adapters
    first, second : numbers of the two adapters of each row
    sides, side : words, and which of them each row has
    parts, part : modules or layers, and which of them each row has
    modules : number of modules of each row
    numbers : the other columns, by their names; NaN where a number does not exist
    shared_start : whether the two of each row began at one start
    """

    paths: Sequence[str]
    names: Sequence[str]
    first: NDArray[np.int32]
    second: NDArray[np.int32]
    sides: Sequence[str]
    side: NDArray[np.int8]
    parts: Sequence[str]
    part: NDArray[np.int32]
    modules: NDArray[np.int32]
    numbers: dict[str, NDArray[np.float64]]
    shared_start: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.first)

    def row(self, n: int) -> AdapterPair:
        """Return one row."""
        first, second = int(self.first[n]), int(self.second[n])
        side = self.sides[self.side[n]]
        return AdapterPair(
            first=self.paths[first],
            second=self.paths[second],
            first_name=self.names[first],
            second_name=self.names[second],
            part=self.parts[self.part[n]],
            side=side,
            modules=int(self.modules[n]),
            flags=(Flag.SHARED_START,) if side == "a" and self.shared_start[n] else (),
            **{name: _known(self.numbers, name, n) for name in _NUMBERS},
        )

    def column(self, name: str) -> NDArray[Any]:
        """Return the values of a column, for all rows."""
        if name in self.numbers:
            return self.numbers[name]
        if name in _NUMBERS:
            return np.full(len(self), np.nan)
        words: dict[str, tuple[Sequence[str], NDArray[Any]]] = {
            "first": (self.paths, self.first),
            "second": (self.paths, self.second),
            "first_name": (self.names, self.first),
            "second_name": (self.names, self.second),
            "side": (self.sides, self.side),
            "part": (self.parts, self.part),
        }
        if name in words:
            of, numbers = words[name]
            found: NDArray[Any] = np.asarray(of, dtype=object)[numbers]
            return found
        return self.modules if name == "modules" else self.shared_start

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """The rows by what matters: the cosine, then the likeness of the spans over its level, largest first."""
        numbers = [self.column(name) for name in ("cosine", "phi_full", "chance", "phi_control")]
        cosine, phi, chance, control = numbers
        over = phi - np.where(np.isnan(control), chance, control)
        # a pair without a cosine stands by its spans alone
        found: NDArray[np.intp] = np.lexsort(
            (self.side, -np.nan_to_num(over, nan=-2.0), -np.nan_to_num(cosine, nan=-2.0))
        )
        return found


def _known(numbers: dict[str, NDArray[np.float64]], name: str, n: int) -> float | None:
    value = float(numbers[name][n]) if name in numbers else np.nan
    return None if np.isnan(value) else value


class PairRows(Sequence[AdapterPair]):
    """Some rows of a table of pairs, in an order."""

    def __init__(self, table: PairTable, order: NDArray[np.intp] | None = None) -> None:
        self.table = table
        self.order = table.order if order is None else order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[AdapterPair]:
        return (self.table.row(int(n)) for n in self.order)

    @overload
    def __getitem__(self, place: int) -> AdapterPair: ...
    @overload
    def __getitem__(self, place: slice) -> PairRows: ...
    def __getitem__(self, place: int | slice) -> AdapterPair | PairRows:
        if isinstance(place, slice):
            return PairRows(self.table, self.order[place])
        return self.table.row(int(self.order[place]))

    def column(self, name: str) -> NDArray[Any]:
        """Return the values of a column, in this order."""
        return self.table.column(name)[self.order]

    def chosen(self, patterns: Sequence[str], sort: str | None, top: int | None) -> PairRows:
        """Return the rows of adapters whose name or path matches, sorted, the first; errors as `Result.selected`."""
        order = self.order
        if patterns:
            hit = np.array(
                [_matches(self.table, n, patterns) for n in range(len(self.table.names))], dtype=bool
            )
            order = order[hit[self.table.first[order]] | hit[self.table.second[order]]]
            if len(self.order) and not len(order):
                raise ValueRangeError(
                    f"No adapter matches {listed(patterns)}; there are {listed(self.table.names, most=5)}"
                )
        if sort is not None:
            order = order[_sorted(self.table, order, sort.removeprefix("-"), reverse=sort.startswith("-"))]
        return PairRows(self.table, order[:top])


def _matches(table: PairTable, n: int, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(text, each) for each in patterns for text in (table.names[n], table.paths[n]))


def _sorted(table: PairTable, order: NDArray[np.intp], name: str, *, reverse: bool) -> NDArray[np.intp]:
    columns = [each.name for each in columns_of(AdapterPair) if each.name != "flags"]
    if name not in columns:
        raise ValueRangeError(
            f"No column {shown(repr(name))} to sort by; there are {listed(columns, most=40)}"
        )
    values = table.column(name)[order]
    if values.dtype == object:
        ranks = np.unique(values.astype(str), return_inverse=True)[1]
        return np.argsort(-ranks if reverse else ranks, kind="stable")
    numbers = values.astype(float)
    ascending = numbers if reverse else -numbers
    return np.argsort(np.where(np.isnan(numbers), np.inf, ascending), kind="stable")
