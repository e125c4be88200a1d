"""The updates of several adapters in one module, and the same across modules of another job, which is their control."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from subspace.adapters.naming.same_input import place_of
from subspace.flags import Flag
from subspace.geometry import chance
from subspace.geometry.interference import RandomInterference, interference, random_interference
from subspace.geometry.joint import Joint, crossed_overlaps, joint

if TYPE_CHECKING:
    from subspace.analysis.by_inputs import ByInputs
    from subspace.analysis.collection import Collection
    from subspace.geometry.lapack import Floats

__all__ = ["SIDES", "Controls", "Met", "in_order", "met"]

SIDES = ("left", "right")


@dataclass(eq=False)
class Met:
    """The updates of N adapters in one module; arrays are (N, N) and NaN where a number does not exist.

    Attributes
    ----------
    module : its name
    N : number of adapters, of which some may not have the module
    adapters : how many have it
    shape : (d_out, d_in)
    places : which of the N adapters have it
    size : what inner products are divided by, squared
    inner : of the weighted updates; NaN where a scale is unknown
    inner_unscaled : the same with every unknown scale taken as 1, for cosines
    inner_outputs, variance_outputs : of their outputs on the measured inputs; None without those
    overlaps, chances : side -> phi_full of all pairs, and its mean for isotropic spans
    controls : side -> the same of modules of another job, mean over these
    kinds : side -> which control that is
    sti, sti_random : None where a scale is unknown
    flags : of the module
    """

    module: str
    N: int
    adapters: int
    shape: tuple[int, int] = (0, 0)
    size: float = 0.0
    inner: Floats = field(default_factory=lambda: np.empty(0))
    inner_unscaled: Floats = field(default_factory=lambda: np.empty(0))
    inner_outputs: Floats | None = None
    variance_outputs: Floats | None = None
    overlaps: dict[str, Floats] = field(default_factory=dict)
    chances: dict[str, Floats] = field(default_factory=dict)
    controls: dict[str, Floats] = field(default_factory=dict)
    kinds: dict[str, str | None] = field(default_factory=dict)
    sti: float | None = None
    sti_random: RandomInterference | None = None
    flags: tuple[Flag, ...] = ()
    places: tuple[int, ...] = ()


def in_order(modules: Sequence[str]) -> Iterator[str]:
    """Modules such that those that read one input follow one another, else as they are given."""
    groups: dict[Hashable, list[str]] = {}
    for module in modules:
        groups.setdefault(place_of(module).input or (module,), []).append(module)
    for members in groups.values():
        yield from members


def met(
    collection: Collection,
    module: str,
    numbers: Sequence[int],
    weights: Sequence[float],
    inputs: ByInputs | None,
    seed: int,
) -> tuple[Met, Joint | None]:
    """The updates of some members of a collection in one module, without its controls."""
    N, holders = len(numbers), list(collection.holders(module))
    places = [n for n, number in enumerate(numbers) if number in holders]
    nothing = np.full((N, N), np.nan)
    sides = dict.fromkeys(SIDES, nothing)
    found = Met(module, N, len(places), inner=nothing, inner_unscaled=nothing)
    found.overlaps, found.chances, found.controls = dict(sides), dict(sides), dict(sides)
    found.kinds = dict.fromkeys(SIDES)
    scales = np.array([collection.scales(module)[holders.index(numbers[n])] for n in places])
    forms = collection.forms(module, [numbers[n] for n in places])
    if len({(form.left.shape[1], form.right.shape[1]) for form in forms}) > 1:
        found.flags = (Flag.SHAPE_DIFFERS,)
        return found, None
    known = bool(np.isfinite(scales).all())
    own = [
        weights[n] * scale
        for n, scale in zip(places, np.where(np.isfinite(scales), scales, 1.0), strict=True)
    ]
    together = joint(forms, own)
    found.places, found.shape, found.size = tuple(places), together.shape, together.size
    found.flags = _flags(together, known, len(places))
    found.inner_unscaled = _spread(together.inner(), places, N)
    if known:
        found.inner = found.inner_unscaled
        found.sti = interference(together)
        found.sti_random = random_interference(together, seed=seed)
    for side, d in zip(SIDES, together.shape, strict=True):
        found.overlaps[side] = _spread(together.overlaps(side), places, N)
        found.chances[side] = _spread(_chance(together.ranks, d), places, N)
    _add_outputs(found, together, inputs)
    return found, together


def _flags(together: Joint, known: bool, adapters: int) -> tuple[Flag, ...]:
    flags = {
        Flag.ONE_ADAPTER: adapters == 1,
        Flag.UNTRAINED: not together.ranks.all(),
        Flag.SCALE_UNKNOWN: not known,
    }
    return tuple(flag for flag, so in flags.items() if so)


def _add_outputs(found: Met, together: Joint, inputs: ByInputs | None) -> None:
    if inputs is None:
        return
    moment = inputs.moment(found.module, found.shape[1])
    if moment is None:
        found.flags = (*found.flags, Flag.NO_INPUTS)
        return
    found.inner_outputs = _spread(together.inner_of_outputs(moment), found.places, found.N)
    found.variance_outputs = _spread(together.variance_of_outputs(moment), found.places, found.N)


def _chance(ranks: Floats, d: int) -> Floats:
    return np.array(
        [[chance.phi_mean(int(i), int(j), d) if i and j else np.nan for j in ranks] for i in ranks]
    )


def _spread(M: Floats, places: Sequence[int], N: int) -> Floats:
    """A matrix of the adapters that have a module, as one of all."""
    whole = np.full((N, N), np.nan)
    whole[np.ix_(places, places)] = M
    return whole


class Controls:
    """Collects, while modules go by, the overlaps of pairs of modules whose jobs differ.

    On the right these are the modules that read the same input, or where there are none the neighbouring layers; on the
    left the neighbouring layers. Every pair of modules is a control of both. The directions of the last module of each
    kind, and of the modules that read one input, are held.

    Parameters
    ----------
    modules : names of all modules, in the order of `in_order`
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self._places = {module: place_of(module) for module in modules}
        self._readers = Counter(place.input for place in self._places.values())
        self._same_input: list[tuple[Met, Joint]] = []
        self._last: dict[str, tuple[Met, Joint]] = {}
        self._sums: dict[tuple[str, str], list[Floats]] = defaultdict(list)

    def add(self, found: Met, together: Joint) -> None:
        """Take in a module."""
        place, own = self._places[found.module], (found, together)
        if self._same_input and self._places[self._same_input[0][0].module].input != place.input:
            self._same_input = []
        if place.input and self._readers[place.input] > 1:
            for other in self._same_input:
                self._cross(own, other, "right")
            self._same_input.append(own)
        for side in SIDES:
            if place.kind in self._last and (
                side == "left" or self._readers[place.input] < 2 or not place.input
            ):
                self._cross(own, self._last[place.kind], side)
        self._last[place.kind] = own

    def _cross(self, first: tuple[Met, Joint], second: tuple[Met, Joint], side: str) -> None:
        (one, joint_one), (other, joint_other) = first, second
        which = SIDES.index(side)
        if joint_one.shape[which] != joint_other.shape[which]:
            return
        whole = np.full((one.N, one.N), np.nan)
        whole[np.ix_(one.places, other.places)] = crossed_overlaps(joint_one, joint_other, side)
        for each in (one, other):
            self._sums[each.module, side].append((whole + whole.T) / 2)

    def settle(self, found: Met) -> None:
        """Give a module its controls, once all modules were taken in."""
        for side in SIDES:
            pairs = self._sums.get((found.module, side))
            if not pairs:
                continue
            place = self._places[found.module]
            same_input = side == "right" and bool(place.input) and self._readers[place.input] > 1
            found.controls[side] = np.mean(pairs, axis=0)
            found.kinds[side] = "same_input" if same_input else "layers"
