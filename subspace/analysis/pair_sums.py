"""Blocks of pairs, module by module, reduced to the groups that were asked for: the whole, layers or modules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.analysis.pair_blocks import Asked, Block, Crossed, Measured
from subspace.geometry.update_agreement import isotropic_cosine_sd

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.analysis.pair_list import PairList
    from subspace.analysis.pair_plan import Shapes
    from subspace.geometry.lapack import Floats
    from subspace.geometry.stacked_spans import Side

__all__ = ["Sums"]


class _Chosen(NamedTuple):
    """Those pairs of a block that are wanted: each once, the member of the lower number first.

    Attributes
    ----------
    at : their places in the list of pairs
    cells : row and column of each in the block
    swapped : whether the column is of the lower number
    first, second : numbers of the members
    """

    at: Any
    cells: tuple[NDArray[np.intp], NDArray[np.intp]]
    swapped: NDArray[np.bool_]
    first: NDArray[np.intp]
    second: NDArray[np.intp]


class Sums:
    """Running sums over the modules of each group, (groups, pairs) each, in the order that the blocks are added in.

    Parameters
    ----------
    pairs : which pairs
    n_groups : number of groups
    groups : number of the group of every module
    weights : signed scale of every module in all members, 1 where it is not known in any module of its group and NaN
        where it is in some
    shapes : (d_out, d_in) of every module
    asked : what is measured
    repeats : whether an A that several modules share counts in each of them
    """

    def __init__(
        self,
        pairs: PairList,
        n_groups: int,
        groups: Mapping[str, int],
        weights: Mapping[str, Floats],
        shapes: Shapes,
        asked: Asked,
        *,
        repeats: bool,
    ) -> None:
        self.pairs, self.groups, self.weights, self.shapes = pairs, groups, weights, shapes
        self.asked, self.repeats = asked, repeats
        size = n_groups, len(pairs)
        self._sums: dict[tuple[Any, ...], Floats] = defaultdict(lambda: np.zeros(size))
        self._counts: dict[tuple[Any, ...], NDArray[np.int32]] = defaultdict(
            lambda: np.zeros(size, dtype=np.int32)
        )

    def add(self, found: Measured) -> None:
        """Take in a block."""
        chosen = self._chosen(found)
        if isinstance(found, Crossed):
            self._add_control(found, chosen)
        else:
            self._add_block(found, chosen)

    def count(self, *name: Any) -> NDArray[np.int32]:
        """How many modules have a number, (groups, pairs)."""
        return self._counts[name]

    def total(self, *name: Any) -> Floats:
        """Sum of a number over the modules that have it, (groups, pairs)."""
        return self._sums[name]

    def mean(self, *name: Any) -> Floats:
        """Mean of a number over the modules that have it; NaN without any."""
        with np.errstate(invalid="ignore"):
            found: Floats = self._sums[name] / self._counts[name]
        return found

    def cosine(self) -> tuple[Floats, Floats]:
        """Cosine of the updates of all modules of a group together, and its sd for isotropic random updates."""
        inner, squares = self.total("inner"), self.total("squares_first") * self.total("squares_second")
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.clip(inner / np.sqrt(squares), -1, 1), np.sqrt(self.total("variance") / squares)

    def combined(self) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Return z over the modules of a group, its largest, and rows compared with rows."""
        with np.errstate(invalid="ignore"):
            z, largest = (self.total(name) / np.sqrt(self.count("z")) for name in ("z", "z_largest"))
        return z, np.nan_to_num(largest), self.total("z_r").astype(np.int64)

    def _chosen(self, found: Measured) -> _Chosen:
        cells = _cells(len(found.rows), len(found.columns), same=found.same)
        one, other = found.rows[cells[0]], found.columns[cells[1]]
        first, second = np.minimum(one, other), np.maximum(one, other)
        at: Any = self.pairs.at(first, second)
        if len(at) == len(self.pairs) and np.array_equal(at, np.arange(len(at))):
            at = slice(None)
        return _Chosen(at, cells, one > other, first, second)

    def _add_block(self, block: Block, chosen: _Chosen) -> None:
        group = self.groups[block.module]
        self._counts["modules",][group, chosen.at] += 1
        for side in self.asked.sides:
            self._add_side(block, side, group, chosen)
        for (side, i, j), phi in block.leading.items():
            turned = block.leading[side, j, i]
            values = np.where(chosen.swapped, turned[chosen.cells], phi[chosen.cells])
            self._add((side, "phi", i, j), group, chosen, values)
            self._add((side, "phi_chance", i, j), group, chosen, values * 0 + max(i, j) / block.pairs.d[side])
        if block.pairs.cosine is not None:
            self._add_cosine(block, group, chosen, block.pairs.cosine)
        if block.pairs.z is not None:
            self._add_z(block, group, chosen, block.pairs.z)

    def _add_side(self, block: Block, side: Side, group: int, chosen: _Chosen) -> None:
        pairs, cells = block.pairs, chosen.cells
        values = {
            "phi_full": pairs.phi_full(side),
            "chance": pairs.chance(side),
            "chordal": pairs.chordal(side) ** 2,
            "projector": pairs.projector(side) ** 2,
        }
        if self.asked.geodesic:
            values["geodesic"] = pairs.geodesic(side) ** 2
        for name, value in values.items():
            self._add((side, name), group, chosen, value[cells])

    def _add_cosine(self, block: Block, group: int, chosen: _Chosen, cosine: Floats) -> None:
        norms = np.zeros(self.pairs.n)
        norms[block.rows], norms[block.columns] = block.pairs.norms_first, block.pairs.norms_second
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            signed = norms * self.weights[block.module]
            first, second, value = signed[chosen.first], signed[chosen.second], cosine[chosen.cells]
            known = ~np.isnan(value)
            sd = isotropic_cosine_sd(*self.shapes[block.module])
            parts = {
                "inner": first * second * value,
                "squares_first": first**2,
                "squares_second": second**2,
                "variance": (first * second * sd) ** 2,
            }
        for name, part in parts.items():
            self._sums[name,][group, chosen.at] += np.where(known, part, 0.0)

    def _add_z(self, block: Block, group: int, chosen: _Chosen, z: Floats) -> None:
        values = z[chosen.cells]
        if block.repeated is not None and not self.repeats:
            values = np.where(block.repeated[chosen.cells], np.nan, values)
        self._add(("z",), group, chosen, values)
        for name, each in (("z_largest", block.pairs.z_largest), ("z_r", block.pairs.z_r)):
            self._sums[name,][group, chosen.at] += np.where(np.isnan(values), 0, each[chosen.cells])

    def _add_control(self, found: Crossed, chosen: _Chosen) -> None:
        for side, phi in found.phi.items():
            reads = side in ("a", "right")
            for module in found.crossing.reads if reads else found.crossing.writes:
                self._add((side, "control"), self.groups[module], chosen, phi[chosen.cells])

    def _add(self, name: tuple[Any, ...], group: int, chosen: _Chosen, values: Floats) -> None:
        known = ~np.isnan(values)
        self._sums[name][group, chosen.at] += np.where(known, values, 0.0)
        self._counts[name][group, chosen.at] += known


def _cells(n: int, m: int, *, same: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the cells of a block that are pairs, each once."""
    if same:
        return np.triu_indices(n, 1)
    return np.repeat(np.arange(n), m), np.tile(np.arange(m), n)
