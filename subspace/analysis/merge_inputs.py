"""Adapters that are to be merged: read, under the same names, and without anything that a merge would lose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters import Adapter, load_base, match_modules
from subspace.adapters.format import Role
from subspace.adapters.naming.fused_parts import separated
from subspace.adapters.naming.sorting import in_order
from subspace.adapters.peft_start import start_that_changes_base
from subspace.adapters.place import place
from subspace.adapters.update import DenseUpdate, LowRankUpdate, known
from subspace.adapters.writers import named
from subspace.adapters.writers._spelling import spelled
from subspace.analysis import naming_notes
from subspace.analysis.collection import Member
from subspace.analysis.resolve import Loading
from subspace.errors import FormatError, ShapeError, located
from subspace.flags import Flag
from subspace.geometry.canonical import Canonical, canonical
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters.naming.matching import Matched

__all__ = ["MergeInputs", "merge_inputs"]

_ANCHOR = "\0"  # a name that no file has


@dataclass(frozen=True, eq=False)
class MergeInputs:
    """Adapters of one base whose modules have the same names, as a `Collection` too.

    Attributes
    ----------
    adapters : in the order that they were given
    modules : the modules that any of them has, in natural order
    format : of all of them; "pair" where they were read from several formats and have full names
    notes : what to know of how they were read and matched
    """

    adapters: tuple[Adapter, ...]
    modules: tuple[str, ...]
    format: str
    notes: tuple[str, ...]

    @property
    def members(self) -> tuple[Member, ...]:
        """The adapters as members of a `Collection`."""
        return tuple(Member(adapter.path) for adapter in self.adapters)

    def updates(self, module: str) -> list[tuple[int, LowRankUpdate]]:
        """Return the numbers of the adapters that have a module, and their updates of it."""
        return [
            (n, update)
            for n, adapter in enumerate(self.adapters)
            if isinstance(update := adapter.get(module), LowRankUpdate)
        ]

    def holders(self, module: str) -> list[int]:
        """Return the numbers of the adapters that have a module."""
        return [n for n, _ in self.updates(module)]

    def scales(self, module: str) -> NDArray[np.float64]:
        """Return the scale of the module in each of its holders."""
        return np.array([known(update.scale, module) for _, update in self.updates(module)])

    def forms(self, module: str, numbers: Sequence[int]) -> list[Canonical]:
        """Return the canonical form of a module in some of its holders; none is kept."""
        found = []
        for n in numbers:
            update = self.adapters[n][module]
            assert isinstance(update, LowRankUpdate)
            with located(place(self.adapters[n].path, module)):
                found.append(canonical(update.B, update.A))
            self.adapters[n].release()
        return found

    def release(self) -> None:
        """Free the memory of the factors read so far."""
        for adapter in self.adapters:
            adapter.release()


def merge_inputs(
    sources: Sequence[Any], loading: Sequence[Loading], *, to: str, allow: Collection[str] = ()
) -> MergeInputs:
    """Read the adapters, refuse what cannot be merged, and give their modules the same names.

    Raises
    ------
    FormatError : a DoRA (unless allowed), a start that changed the base, a dense or fused update that cannot be used
    InconclusiveError : an unknown scale
    ShapeError : a module has other shapes in other adapters
    """
    adapters = [each.adapter(source) for source, each in zip(sources, loading, strict=True)]
    for adapter in adapters:
        _require_mergeable(adapter, allow)
    base = next((each.base for each in loading if each.base is not None), None)
    same = len({each.format for each in adapters}) == 1
    form = adapters[0].format if same and adapters[0].format in ("peft", to) else "pair"
    if form != to:
        adapters = [_spelled(each, to, base) for each in adapters]
    adapters, notes = _under_one_name(adapters)
    modules = in_order(dict.fromkeys(module for adapter in adapters for module in adapter))
    found = MergeInputs(tuple(adapters), tuple(modules), form, ())
    for module in modules:
        _require_one_shape(module, found)
    return replace(found, notes=(*_read_notes(adapters), *notes, *_kept_alone(found), *_bases(adapters)))


def _require_mergeable(adapter: Adapter, allow: Collection[str]) -> None:
    where = f"in {place(adapter.path)}"
    dora = [update.module for update in adapter.values() if Flag.DORA in update.flags]
    if dora and "dora" not in allow:
        raise FormatError(
            f"DoRA cannot be merged: its magnitudes, which {counted(len(dora), 'module')} ({listed(dora)}) have, act "
            f"on the sum with the base weight, {where}; give `allow` dora to merge its direction part without them"
        )
    init = start_that_changes_base(adapter.config)
    if init is not None and "init" not in allow:
        raise FormatError(
            f"delta_W is relative to base weights that init_lora_weights {shown(repr(init))} changed, {where}; convert "
            "it to a plain LoRA first, or give `allow` init if all adapters are loaded onto that changed base"
        )
    for module, update in adapter.items():
        if isinstance(update, DenseUpdate):
            raise FormatError(
                f"A delta_W that is no product of two factors cannot be merged, in "
                f"{place(adapter.path, module)}; make factors of it first, by subspace truncate"
            )
        with located(place(adapter.path, module)):
            known(update.scale, module)


def _spelled(adapter: Adapter, to: str, base: Any) -> Adapter:
    """The adapter under full names of its modules, unless they are those of the format that is written."""
    if adapter.format == to:
        return adapter
    return spelled(adapter, None if base is None else load_base(base), flattened=named(to).flattened)[0]


def _under_one_name(adapters: Sequence[Adapter]) -> tuple[list[Adapter], list[str]]:
    """The adapters with each module under the name that it has in the first which has it."""
    adapters = _fused_alike(list(adapters))
    names = dict.fromkeys(adapters[0])
    result, ways = [adapters[0]], Counter[str]()
    for adapter in adapters[1:]:
        matched = naming_notes.settled(_matched(list(names), list(adapter)), adapters[0], adapter)
        turned = [name for name, hit in matched.translated.items() if hit.reordered]
        if turned:
            raise FormatError(
                f"The rows of B may be in another writer's order in {counted(len(turned), 'module')} "
                f"({listed(turned)}), so that they cannot be added, in {place(adapter.path)}; convert it first, with "
                "`base` where that is asked for"
            )
        ways.update(hit.how for hit in matched.translated.values())
        new = {other: name for name, other in matched.pairs} | _with_prefix(
            matched.pairs, matched.only_second
        )
        result.append(_renamed(adapter, new))
        names |= dict.fromkeys(result[-1])
    return result, [f"{counted(n, 'module')} matched by {how} names" for how, n in ways.items()]


def _matched(first: list[str], second: list[str]) -> Matched:
    """Pairs of modules; two single modules of different names are none, though a comparison may be of them."""
    if len(first) == len(second) == 1 and first[0] and second[0]:
        found = match_modules([*first, _ANCHOR], [*second, _ANCHOR])
        return found._replace(pairs=[pair for pair in found.pairs if pair[0] != _ANCHOR])
    return match_modules(first, second)


def _with_prefix(pairs: Sequence[tuple[str, str]], alone: Sequence[str]) -> dict[str, str]:
    """Names for modules that only one adapter has, if all its other names lack, or have, one and the same prefix."""
    changes = {
        (name.removesuffix(other), "") if name.endswith(other) else ("", other.removesuffix(name))
        for name, other in pairs
    }
    if len(changes) != 1:
        return {}
    ((added, removed),) = changes
    return {other: added + other.removeprefix(removed) for other in alone}


def _fused_alike(adapters: list[Adapter]) -> list[Adapter]:
    """The adapters with fused layers split of which another has the parts."""
    for n in range(len(adapters)):
        for other in adapters:
            matched = match_modules(list(adapters[n]), list(other))
            if matched.only_first and matched.only_second:
                parts = {name: other[name] for name in matched.only_second}
                adapters[n] = separated(adapters[n], matched.only_first, parts)
    return adapters


def _renamed(adapter: Adapter, new: Mapping[str, str]) -> Adapter:
    updates = {
        new.get(name, name): replace(update, module=new.get(name, name)) for name, update in adapter.items()
    }
    return replace(adapter, updates=updates)


def _require_one_shape(module: str, found: MergeInputs) -> None:
    updates = found.updates(module)
    first, one = updates[0]
    for n, other in updates[1:]:
        seen = [(each.d_out, each.d_in) for each in (one, other)]
        kinds = [(each.kind, _kernel(each)) for each in (one, other)]
        if seen[0] == seen[1] and kinds[0] == kinds[1]:
            continue
        what = (
            f"{seen[0]} and {seen[1]}" if seen[0] != seen[1] else f"{_kind(*kinds[0])} and {_kind(*kinds[1])}"
        )
        raise ShapeError(
            f"Adapters of different base models cannot be merged: module {shown(module)} is {what}, in "
            f"{place(found.adapters[first].path)} and {place(found.adapters[n].path)}; merge adapters of one base"
        )


def _kernel(update: LowRankUpdate) -> tuple[int, ...]:
    return () if update.kind != "conv" else tuple(update.A_factor.tensor_shape or ())[1:]


def _kind(kind: str, kernel: tuple[int, ...]) -> str:
    return f"{kind} with the kernel {kernel}" if kernel else kind


def _read_notes(adapters: Sequence[Adapter]) -> list[str]:
    """What reading had to say, and which trained tensors are in no update and so in no merge."""
    notes = []
    for adapter in adapters:
        where = place(adapter.path)
        notes += [f"{note}, in {where}" for note in adapter.notes if note.flag is not Flag.SCALE_UNKNOWN]
        left = [item for item in adapter.ignored if item.role is Role.TRAINED]
        if left:
            named_keys = listed(f"{shown(item.key)} ({item.why})" for item in left)
            notes.append(f"{counted(len(left), 'trained tensor')} NOT in the merge, of {where}: {named_keys}")
        if adapter.unknown:
            unknown = listed(adapter.unknown)
            notes.append(
                f"{counted(len(adapter.unknown), 'unknown tensor')} NOT in the merge, of {where}: {unknown}"
            )
    return notes


def _kept_alone(found: MergeInputs) -> list[str]:
    """Modules that not every adapter has."""
    total = len(found.adapters)
    counts = {module: len(found.holders(module)) for module in found.modules}
    some = [module for module, n in counts.items() if n < total]
    if not some:
        return []
    if all(n == 1 for n in counts.values()):
        return [
            "No module in common: each is of one adapter alone, times its weight; if they are the same layers under "
            "other names, map them with `rename`"
        ]
    return [
        f"{counted(len(some), 'module')} of {len(counts)} not in all {total} adapters, and merged of those that have "
        f"them: {listed(some)}"
    ]


def _bases(adapters: Sequence[Adapter]) -> list[str]:
    names = {str(name): None for each in adapters if (name := each.config.get("base_model_name_or_path"))}
    if len(names) < 2:
        return []
    return [f"The configurations name different base models: {listed(map(shown, names), most=5)}"]
