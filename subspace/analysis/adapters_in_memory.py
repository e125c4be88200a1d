"""N adapters as `load_adapter` reads them, as one collection: forms are computed when they are asked for."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.naming.across import CommonNames, in_best_order
from subspace.adapters.naming.sorting import in_order
from subspace.analysis.adapter_survey import Surveyed, surveyed
from subspace.analysis.canonical_update import canonical_of
from subspace.analysis.collection import Member
from subspace.analysis.split_layers import with_parts
from subspace.errors import SubspaceError
from subspace.text import counted, listed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters import Adapter
    from subspace.analysis.resolve import Loading
    from subspace.geometry.canonical import Canonical

__all__ = ["Adapters", "Skipped", "opened"]

_OPEN = 128  # files that are held open at once; a system allows some hundreds
_KEPT = 2**28  # bytes of forms that are kept: each is asked for several times


@dataclass(frozen=True)
class Skipped:
    """A source that could not be read, and why."""

    path: str
    why: str


@dataclass(eq=False)
class Adapters:
    """Adapters as a `Collection`; see `opened`.

    Attributes
    ----------
    surveyed : what is known of each adapter
    names : of each adapter, common name of a module -> its name in the file
    loading : how each is read
    numbers : place of each among the sources
    skipped : sources that could not be read
    notes : on names and shapes
    """

    surveyed: Sequence[Surveyed]
    names: Sequence[Mapping[str, str]]
    loading: Loading
    numbers: Sequence[int]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    _opened: OrderedDict[int, Adapter] = field(default_factory=OrderedDict, repr=False)
    _kept: OrderedDict[tuple[int, str], Canonical] = field(default_factory=OrderedDict, repr=False)
    _room: int = _KEPT

    def __post_init__(self) -> None:
        holders: dict[str, list[int]] = defaultdict(list)
        for number, names in enumerate(self.names):
            for module in names:
                holders[module].append(number)
        self._holders = dict(holders)
        self._modules = in_order(holders)

    def __getstate__(self) -> dict[str, Any]:
        # another process opens the files again
        return {**vars(self), "_opened": OrderedDict(), "_kept": OrderedDict(), "_room": _KEPT}

    @property
    def members(self) -> Sequence[Member]:
        """The adapters, in the order given."""
        return [each.member for each in self.surveyed]

    @property
    def modules(self) -> Sequence[str]:
        """The modules that any member has, trained and finite, in natural order."""
        return self._modules

    def holders(self, module: str) -> Sequence[int]:
        """Return the numbers of the members that have a module, ascending."""
        return self._holders[module]

    def scales(self, module: str) -> NDArray[np.float64]:
        """Return the scale of the module in each of its holders; NaN where it is unknown."""
        return np.array(
            [self.surveyed[n].modules[self.names[n][module]].scale for n in self._holders[module]], float
        )

    def forms(self, module: str, numbers: Sequence[int]) -> list[Canonical]:
        """Return the canonical form of a module in some of its holders, read from their files."""
        return [self._form(number, self.names[number][module]) for number in numbers]

    def _form(self, number: int, stored: str) -> Canonical:
        form = self.surveyed[number].forms.get(stored) or self._kept.get((number, stored))
        if form is None:
            adapter = self._adapter(number)
            form = canonical_of(adapter[stored])
            adapter.release()
            self._keep(number, stored, form)
        return form

    def _keep(self, number: int, stored: str, form: Canonical) -> None:
        """Keep a form, in the place of those that were read first where there is no room."""
        self._kept[number, stored] = form
        self._room -= _size(form)
        while self._room < 0:
            self._room += _size(self._kept.popitem(last=False)[1])

    def _adapter(self, number: int) -> Adapter:
        """The adapter, opened again where it is not among the last that were."""
        adapter = self._opened.pop(number, None)
        if adapter is None:
            found = self.surveyed[number]
            adapter = with_parts(self.loading.adapter(found.source), found.parts)
        self._opened[number] = adapter
        if len(self._opened) > _OPEN:
            self._opened.popitem(last=False)
        return adapter


def _size(form: Canonical) -> int:
    return form.right.nbytes + form.left.nbytes


def opened(
    sources: Iterable[Any], loading: Loading, *, progress: Callable[[int, int], None] | None = None
) -> Adapters:
    """Read the headers and check the numbers of adapters of any formats; one name for each module of all.

    What cannot be read is in `skipped`. Modules that are untrained or hold a number that is not finite are left out.

    Parameters
    ----------
    sources : as `load_adapter` takes them
    loading : how each is read
    progress : called with (adapters read, adapters in all)
    """
    sources = list(sources)
    found: list[Surveyed] = []
    numbers: list[int] = []
    skipped: list[Skipped] = []
    for n, source in enumerate(sources):
        try:
            found.append(surveyed(source, loading))
            numbers.append(n)
        except SubspaceError as error:
            skipped.append(
                Skipped(str(source) if isinstance(source, str) else "tensors in memory", str(error))
            )
        if progress is not None:
            progress(n + 1, len(sources))
    found = _with_parts_split(found, [sources[n] for n in numbers], loading)
    names, notes = _named(found)
    return Adapters(found, names, loading, numbers, tuple(skipped), tuple(notes))


def _with_parts_split(found: Sequence[Surveyed], sources: Sequence[Any], loading: Loading) -> list[Surveyed]:
    """The same adapters, those with a fused layer split of which another has the parts as layers of their own."""
    from subspace.analysis.split_layers import layers_to_split

    parts = layers_to_split([each.shapes for each in found])
    return [
        surveyed(source, loading, parts=part, sha256=each.member.sha256) if part else each
        for each, source, part in zip(found, sources, parts, strict=True)
    ]


def _named(found: Sequence[Surveyed]) -> tuple[list[dict[str, str]], list[str]]:
    """Common name -> stored name, of the modules of each adapter that can be compared; and notes."""
    common = CommonNames()
    kept = {each.layout: each.rows_kept for each in found}
    layouts = {names: common.of(names, rows_kept=kept[names]) for names in in_best_order(kept)}
    shapes = _usual_shapes(found, layouts)
    names = []
    other: dict[str, None] = {}
    for each in found:
        own = {}
        for stored, module in each.modules.items():
            if not module.usable:
                continue
            name = layouts[each.layout][stored]
            if module.shape != shapes[name]:
                name = f"{name} ({module.shape[0]} x {module.shape[1]})"
                other[name] = None
            own[name] = stored
        names.append(own)
    return names, [*_notes(common), *_shape_notes(other)]


def _usual_shapes(
    found: Sequence[Surveyed], layouts: Mapping[tuple[str, ...], Mapping[str, str]]
) -> dict[str, tuple[int, int]]:
    """The shape that most adapters have of each module; the first of those that are equally frequent."""
    seen: dict[str, Counter[tuple[int, int]]] = defaultdict(Counter)
    for each in found:
        for stored, module in each.modules.items():
            seen[layouts[each.layout][stored]][module.shape] += 1
    return {name: shapes.most_common(1)[0][0] for name, shapes in seen.items()}


def _notes(common: CommonNames) -> list[str]:
    notes = [
        f"{counted(n, 'name')} matched by {how} names"
        for how, n in Counter(common.translated.values()).items()
    ]
    if common.ambiguous:
        name, like = next(iter(common.ambiguous.items()))
        notes.append(
            f"{counted(len(common.ambiguous), 'name')} could be several modules and so are compared with none of them: "
            f"{listed(common.ambiguous)} ({listed([name])} could be {listed(like)}); rename modules with `rename`"
        )
    if common.reordered:
        notes.append(
            f"{counted(len(common.reordered), 'module')} may have the rows of B in the other writer's order, and so "
            f"are compared among themselves only: {listed(common.reordered)}"
        )
    return notes


def _shape_notes(other: Iterable[str]) -> list[str]:
    names = list(other)
    if not names:
        return []
    return [
        f"{counted(len(names), 'module')} of one name and another shape, as of another base, compared among themselves "
        f"only: {listed(names)}"
    ]
