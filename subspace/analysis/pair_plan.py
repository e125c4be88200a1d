"""What is measured together: modules whose pairs or controls need one another, and members in panels.

The controls of a pair of members come from modules of another job: q of one against k and v of the other, which read
the same input, or the same kind of module in a neighbouring layer. Layers are taken two by two, so that each module has
one neighbour: half the products of taking all neighbours, for a mean over as many modules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias

from subspace.adapters.naming.same_input import place_of
from subspace.analysis.controls import kinds_of

__all__ = ["Crossing", "Shapes", "Task", "crossings_of", "tasks_of"]

Kind: TypeAlias = Literal["same_input", "layers"]
Shapes: TypeAlias = Mapping[str, "tuple[int, int]"]
Holders: TypeAlias = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Crossing:
    """Two modules of different jobs, measured against each other.

    Attributes
    ----------
    module, other : their names
    kind : "same_input" or "layers"
    reads : for which of the two this is the control on the sides that read the input, a and right
    writes : the same for the sides b and left
    """

    module: str
    other: str
    kind: Kind
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """Some modules and how they cross, for the pairs of one panel of members with another, or of one with itself."""

    modules: tuple[str, ...]
    crossings: tuple[Crossing, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def same(self) -> bool:
        """Whether a panel meets itself."""
        return self.rows == self.columns


def crossings_of(shapes: Shapes, holders: Holders, controls: str) -> tuple[Crossing, ...]:
    """The crossings that the controls of some modules are made of.

    Parameters
    ----------
    shapes : (d_out, d_in) of every module
    holders : numbers of the members that have each module
    controls : one of `CONTROLS`: with "all" those of the same input where all holders of a module have such a module
        too, and those of the neighbouring layer elsewhere

    Raises
    ------
    ValueRangeError : `controls` is none of the words
    """
    kinds = kinds_of(controls)
    same = _same_input(shapes) if "same_input" in kinds else []
    by_input = (
        {m for pair in same for m in pair if _all_have(m, same, holders)} if "layers" in kinds else None
    )
    found = [Crossing(m, n, "same_input", _of((m, n), by_input), ()) for m, n in same]
    if "layers" in kinds:
        layers = _neighbours(shapes)
        found += [Crossing(m, n, "layers", _but((m, n), by_input or set()), (m, n)) for m, n in layers]
    return tuple(each for each in found if each.reads or each.writes)


def _of(pair: tuple[str, str], among: set[str] | None) -> tuple[str, ...]:
    return tuple(module for module in pair if among is None or module in among)


def _but(pair: tuple[str, str], others: set[str]) -> tuple[str, ...]:
    return tuple(module for module in pair if module not in others)


def _same_input(shapes: Shapes) -> list[tuple[str, str]]:
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for module, (_, d_in) in shapes.items():
        place = place_of(module)
        if place.input is not None:
            groups[place.input, d_in].append(module)
    return [pair for members in groups.values() for pair in combinations(members, 2)]


def _all_have(module: str, pairs: Sequence[tuple[str, str]], holders: Holders) -> bool:
    """Whether every member that has a module has one that reads the same input too."""
    others = [set(holders[n if m == module else m]) for m, n in pairs if module in (m, n)]
    return set(holders[module]) <= set().union(*others)


def _neighbours(shapes: Shapes) -> list[tuple[str, str]]:
    kinds: dict[Hashable, list[str]] = defaultdict(list)
    for module in sorted(shapes, key=lambda name: place_of(name).layer):
        kinds[place_of(module).kind, shapes[module]].append(module)
    found = []
    for members in kinds.values():
        found += [(members[n], members[n + 1]) for n in range(0, len(members) - 1, 2)]
        if len(members) > 1 and len(members) % 2:
            found.append((members[-2], members[-1]))
    return found


def tasks_of(
    modules: Sequence[str], crossings: Sequence[Crossing], *, n: int, new: Sequence[int], panel: int
) -> tuple[Task, ...]:
    """Everything that is to be measured, in a fixed order.

    Parameters
    ----------
    modules : names of the modules, in order
    crossings : of `crossings_of`
    n, new : number of members, and those that every pair has at least one of
    panel : most members in a panel
    """
    is_new = set(new)
    fresh = _panels(sorted(is_new), panel)
    known = _panels([m for m in range(n) if m not in is_new], panel)
    blocks = [(one, other) for k, one in enumerate(fresh) for other in (*fresh[k:], *known)]
    return tuple(
        Task(together, tuple(c for c in crossings if c.module in together), *block)
        for together in _together(modules, crossings)
        for block in blocks
    )


def _panels(numbers: Sequence[int], most: int) -> list[tuple[int, ...]]:
    return [tuple(numbers[k : k + most]) for k in range(0, len(numbers), most)]


def _together(modules: Sequence[str], crossings: Sequence[Crossing]) -> list[tuple[str, ...]]:
    """The modules that cross one another, or read one input and may so share one A, in the order given."""
    group = {module: [module] for module in modules}
    by_input: dict[str, str] = {}
    links = [(c.module, c.other) for c in crossings]
    for module in modules:
        place = place_of(module).input
        if place is not None:
            links.append((by_input.setdefault(place, module), module))
    for one, other in links:
        if group[one] is not group[other]:
            group[one] += group[other]
            for module in group[other]:
                group[module] = group[one]
    order = {module: k for k, module in enumerate(modules)}
    unique = {id(members): members for members in group.values()}
    return [tuple(sorted(members, key=order.__getitem__)) for members in unique.values()]
