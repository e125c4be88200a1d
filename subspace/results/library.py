"""The result of `library`: which adapters of many are alike, of one start, of one run or the same."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from subspace.errors import ValueRangeError
from subspace.results.adapter_pairs import AdapterPair, PairRows
from subspace.results.cells import plain
from subspace.results.columns import Column
from subspace.results.library_facts import library_facts
from subspace.results.library_parts import (
    Cluster,
    LayerPairs,
    LibraryAdapter,
    Lineage,
    Neighbour,
    Nested,
    SharedDirections,
    Unread,
)
from subspace.results.result import Result, Row
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from typing_extensions import Self

    from subspace.geometry.cluster_tree import ClusterTree

__all__ = [
    "AdapterPair",
    "Cluster",
    "LayerPairs",
    "Library",
    "LibraryAdapter",
    "Lineage",
    "Neighbour",
    "Nested",
    "SharedDirections",
    "Unread",
]


@dataclass(frozen=True, eq=False, repr=False)
class Library(Result[AdapterPair]):
    """Many adapters, all pairs of them, and what follows from those.

    ``result.pairs`` are the rows, ``result["run1", "run2"]`` the one of a pair (``result["run1", "run2", "b"]`` on one
    side), ``result.neighbours("run1")`` what is nearest to an adapter.

    Attributes
    ----------
    modules : one row per pair, side and part; the most alike first
    adapters : what was read
    by : "total", "layer" or "module"
    metric : which distance the rows have: "chordal", "projector" or "geodesic"
    clusters, duplicates, near_duplicates, start_groups, lineage : groups of paths, see `Cluster` and `Lineage`;
        duplicates are files of the same bytes, near-duplicates the same update stored in another way
    untestable : adapters for which no pair could have shown a common start, such as those of rank 1
    nested : pairs of unequal ranks of which the smaller lies in part inside the larger, the most first
    shared : the shared subspace in some modules
    layers : phi between layers, where it was asked for
    index, new : folder of the index, and how many adapters are new in it
    common : number of modules that all adapters have, untrained ones aside
    p_floor : the least that `p_library` can be here; None without it
    skipped : what could not be read
    similarity : what clusters are made of: "cosine", or the side whose phi, over its control, is taken
    tree : the hierarchy of the adapters, as a `ClusterTree`
    likeness : "cosine" or side -> likeness of all pairs of adapters over all modules, (N, N); of a side, phi over its
        control. NaN where two have nothing in common
    notes : what to know before reading the numbers
    """

    SCHEMA: ClassVar[str] = "subspace.library/1"
    ROW: ClassVar[type[Row]] = AdapterPair
    KEYS: ClassVar[tuple[str, ...]] = ("module", "side", "part")

    modules: PairRows  # type: ignore[assignment]
    adapters: tuple[LibraryAdapter, ...]
    by: str = "total"
    metric: str = "chordal"
    clusters: tuple[Cluster, ...] = ()
    duplicates: tuple[tuple[str, ...], ...] = ()
    near_duplicates: tuple[tuple[str, ...], ...] = ()
    start_groups: tuple[tuple[str, ...], ...] = ()
    untestable: tuple[str, ...] = ()
    lineage: tuple[Lineage, ...] = ()
    nested: tuple[Nested, ...] = ()
    shared: tuple[SharedDirections, ...] = ()
    layers: tuple[LayerPairs, ...] = ()
    index: str | None = None
    new: int = 0
    common: int = 0
    p_floor: float | None = None
    skipped: tuple[Unread, ...] = ()
    notes: tuple[str, ...] = ()
    similarity: str = "cosine"
    tree: ClusterTree | None = None
    likeness: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def pairs(self) -> PairRows:
        """The rows: pairs of adapters, the most alike first."""
        return self.modules

    def __getitem__(self, key: Any) -> Any:
        """Return a row by its number, or by two adapters (paths, names or ends of them), a side and a part."""
        if not isinstance(key, tuple):
            return self.modules[key]
        first, second = (self.number(each) for each in key[:2])
        rows = [
            row for row in self._of(first, second) if list(key[2:]) == [row.side, row.part][: len(key) - 2]
        ]
        if len(rows) == 1:
            return rows[0]
        found = (
            "no row"
            if not rows
            else f"{len(rows)} rows, of sides {listed(dict.fromkeys(r.side for r in rows))}"
        )
        raise KeyError(f"{found} for {shown(key)}; name the side, and the part where there are several")

    def _of(self, first: int, second: int) -> PairRows:
        table = self.modules.table
        hit = ((table.first == first) & (table.second == second)) | (
            (table.first == second) & (table.second == first)
        )
        return PairRows(table, np.flatnonzero(hit))

    def number(self, adapter: str | int) -> int:
        """Return the number of an adapter by its path, its name, or the end of either.

        Raises
        ------
        ValueRangeError : there is none, or several
        """
        if not isinstance(adapter, str):
            return int(adapter)
        wanted = adapter.rstrip("/")
        exact = [n for n, each in enumerate(self.adapters) if wanted in (each.path.rstrip("/"), each.name)]
        found = exact or [n for n, each in enumerate(self.adapters) if f"/{each.path}".endswith(f"/{wanted}")]
        if len(found) != 1:
            what = f"{len(found)} adapters are called" if found else "No adapter is called"
            names = [self.adapters[n].name for n in found] or [each.name for each in self.adapters]
            raise ValueRangeError(f"{what} {shown(repr(adapter))}; there are {listed(names, most=8)}")
        return found[0]

    def neighbours(self, adapter: str | int, *, most: int = 5) -> list[Neighbour]:
        """Return the adapters that are nearest to one, by the cosine of delta_W, then by phi over its level.

        Parameters
        ----------
        adapter : its path, name or number
        most : how many
        """
        number, table = self.number(adapter), self.modules.table
        order = table.order
        whole = order[((table.first == number) | (table.second == number))[order]]
        found: dict[int, list[AdapterPair]] = {}
        for n in whole:
            other = int(table.second[n] if table.first[n] == number else table.first[n])
            if other not in found and len(found) == most:
                continue
            found.setdefault(other, []).append(table.row(int(n)))
        return [_neighbour(self.adapters[other].path, rows) for other, rows in found.items()]

    def selected(
        self, *, modules: Sequence[str] = (), sort: str | None = None, top: int | None = None
    ) -> Self:
        """Return the same result with some of its rows.

        Parameters
        ----------
        modules : patterns with * and ?, of which the name or path of one of the two adapters has to match one
        sort : column to sort by, numbers from the largest and text from A to Z; "-" before it reverses
        top : how many rows to keep, from the first

        Raises
        ------
        ValueRangeError : no adapter matches, or there is no such column
        """
        return replace(self, modules=self.modules.chosen(modules, sort, top))

    def document(self, *, most: int | None = None) -> dict[str, Any]:
        """Return the JSON document ``subspace.library/1``; of the pairs at most the first so many."""
        pairs = self.modules if most is None else self.modules[:most]
        return {
            "schema": self.SCHEMA,
            "headline": self.headline(),
            "by": self.by,
            "metric": self.metric,
            "similarity": self.similarity,
            "common": self.common,
            "p_floor": plain(self.p_floor),
            "adapters": [plain(vars(each)) for each in self.adapters],
            "pairs": [row.document() for row in pairs],
            "pairs_in_all": len(self.modules),
            "neighbours": self._nearest(),
            "clusters": [plain(vars(each)) for each in self.clusters],
            "duplicates": [list(group) for group in self.duplicates],
            "near_duplicates": [list(group) for group in self.near_duplicates],
            "start_groups": [list(group) for group in self.start_groups],
            "untestable": list(self.untestable),
            "lineage": [{"from": e.earlier, "to": e.later, "kind": e.kind} for e in self.lineage],
            "nested": [plain(vars(each)) for each in self.nested],
            "shared": [plain(asdict(each)) for each in self.shared],
            "layers": [plain(vars(each)) for each in self.layers],
            "index": self.index,
            "new": self.new,
            "skipped": [dict(vars(each)) for each in self.skipped],
            "notes": list(self.notes),
        }

    def _nearest(self) -> list[dict[str, Any]]:
        """The nearest other of each adapter, by the cosine."""
        return [
            {"path": self.adapters[n].path, "nearest": self.adapters[m].path, "cosine": plain(value)}
            for n, m, value in self.nearest()
        ]

    def nearest(self) -> list[tuple[int, int, float]]:
        """Return (number, number of its nearest other, cosine) of each adapter that has one."""
        cosine = self.likeness.get("cosine")
        if cosine is None or len(cosine) < 2:
            return []
        S = np.where(np.eye(len(cosine), dtype=bool) | np.isnan(cosine), -np.inf, cosine)
        best = S.argmax(axis=1)
        return [(n, int(m), float(S[n, m])) for n, m in enumerate(best) if np.isfinite(S[n, m])]

    def table_columns(self) -> list[Column]:
        """Return the columns of the short table, without those that are empty."""
        rows = [*self.modules[:1000]]
        one = {"side"} if len(self.modules.table.sides) == 1 else set[str]()
        return [
            each
            for each in self.ROW.COLUMNS
            if each.place == "table"
            and each.name not in one
            and any(getattr(row, each.name) not in (None, (), each.usual) for row in rows)
        ]

    def headline(self) -> str:
        """Return what there is, what is the same, of one start, of one run or alike, and how much all share."""
        return " ".join(self.facts())

    def facts(self) -> tuple[str, ...]:
        """Return the sentences of the headline."""
        return library_facts(self)

    def __repr__(self) -> str:
        facts = self.facts()
        what = f"{counted(len(self.adapters), 'adapter')}, {counted(len(self.modules), 'row')}"
        return f"<Library of {what}: {' '.join(dict.fromkeys((facts[0], facts[-1])))}>"

    def save_parquet(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
        """Write all rows to a Parquet file, one column each, and return what was written; needs pyarrow.

        Parameters
        ----------
        overwrite : replace a file that is there

        Raises
        ------
        ValueRangeError : pyarrow is not installed
        FileError : the file is there already, or cannot be written
        """
        from subspace.results.parquet_file import save_parquet

        return save_parquet(self.modules, path, overwrite=overwrite)

    def plot(self, kind: str = "heatmap", ax: Axes | None = None, **keywords: Any) -> Any:
        """Draw the library and return the axes.

        Parameters
        ----------
        kind : one of `subspace.plots.library_plots.KINDS`
        ax : where to draw
        keywords : of the chart

        Raises
        ------
        ValueRangeError : there is no such kind
        """
        from subspace.plots.library_plots import drawn

        return drawn(self, kind, ax=ax, **keywords)


def _neighbour(path: str, rows: Sequence[AdapterPair]) -> Neighbour:
    return Neighbour(
        path, rows[0].cosine, {row.side: row.phi_full for row in rows if row.part == rows[0].part}
    )
