"""Why that direction? The leading directions of every delta_W against its inputs, the gradient, W, heads and tokens."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from subspace.adapters import Adapter, BaseWeights, load_base
from subspace.adapters.base.heads import HeadCounts, head_counts, heads_of
from subspace.adapters.place import place
from subspace.adapters.update import DenseUpdate, Update
from subspace.analysis.against_base import Against, Scope, within_scope
from subspace.analysis.damage import Damage, damaged
from subspace.analysis.explained_base import base_shares, with_base
from subspace.analysis.explained_heads import module_heads, with_heads
from subspace.analysis.explained_inputs import KnownInputs
from subspace.analysis.explained_module import (
    Directions,
    directions_of,
    rows_of,
    with_gradient,
    with_inputs,
    without_directions,
)
from subspace.analysis.explained_tokens import TokenTest, with_tokens
from subspace.analysis.resolve import Loading
from subspace.errors import InconclusiveError, ValueRangeError, located
from subspace.flags import Flag, flag_notes
from subspace.results.base_shares import BaseShares
from subspace.results.explanation import DirectionExplanation, Explanation, ModuleHeads
from subspace.results.explanation_facts import limits
from subspace.text import listed

if TYPE_CHECKING:
    from subspace.adapters.base.heads import Heads

__all__ = ["explain"]

_SPOKEN = (Flag.NOT_FINITE,)
_Rows = dict[str, list[DirectionExplanation]]


def explain(
    source: Any,
    *,
    inputs: Any = None,
    base: Any = None,
    directions: int = 4,
    leading: int = 16,
    heads: Sequence[int] | None = None,
    tokens: int = 8,
    draws: int = 199,
    level: float = 0.05,
    tokenizer: str = "auto",
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    layout: str | None = None,
    rename: Mapping[str, str] | None = None,
    modules: Sequence[str] = (),
    layers: Sequence[int] = (),
    jobs: int = 1,
    device: str = "cpu",
    resume: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Explanation:
    """Where the leading directions of every delta_W lie: in the inputs, the gradient, W, heads, tokens; beside chance.

    Parameters
    ----------
    source : the adapter, as `load_adapter` takes it
    inputs : of its modules, a file that `inputs` wrote or its result; with them also the size of what each direction
        adds to the output, and how much of that is the same for every token
    base : base weights, as `load_base` takes them: for W, tokens, and the numbers of heads
    directions : how many leading directions of each module
    leading : how many leading directions of the inputs, and of W, they are compared with
    heads : number of attention heads, and that of keys and values where it is another; by default by the base's
        config.json
    tokens : how many tokens that stand out are kept for each direction; 0: tokens are not compared
    draws : isotropic random directions that tokens are tested against
    level : p-value up to which a token stands out
    tokenizer : "auto", the tokenizer next to the base's weights; "bytes"; or the path of a tokenizer.json
    scale, adapter_name, enable_lora, layout, rename : how the adapter is read, as `load_adapter` takes them
    modules, layers, jobs, device, resume : which modules are measured and how, as `Scope` takes them; the last three
        are of the comparison with W
    progress : called with (modules done, modules in all), with a base a second time for W

    Returns
    -------
    Explanation
        A row per module and direction.

    Raises
    ------
    InconclusiveError : no module has a direction; the inputs, or the base, are of other modules
    ValueRangeError : a number is out of its range, no module in the scope, `resume` without `base`
    SubspaceError : a file cannot be read

    Notes
    -----
    ``delta_W = sum_k sigma_k u_k v_k^T``; v_k reads the input, u_k is written. Where tokens are compared, the embedding
    is read twice for all modules together; every module is tested against the same isotropic directions.

    Examples
    --------
    >>> import numpy as np
    >>> found = explain({"q.lora_A": np.eye(1, 4), "q.lora_B": np.eye(6, 1)}, heads=[2], scale=1.0)
    >>> found.modules[0].energy_share
    1.0
    """
    asked = _Asked(directions, leading, TokenTest(tokens, draws, level, tokenizer))
    asked.check(heads)
    scope = Scope(modules, layers, jobs, device, resume)
    scope.require(base)
    weights = None if base is None else load_base(base)
    loading = Loading(weights, scale, adapter_name, enable_lora, rename, layout)
    adapter = loading.adapter(source)
    wanted = within_scope(adapter, scope)
    known = None if inputs is None else KnownInputs(inputs, wanted, path=adapter.path)
    found = _Found(adapter, known, asked, _HeadsOf(adapter, weights, heads))
    for n, module in enumerate(wanted):
        found.add(adapter[module])
        adapter.release()
        if progress is not None:
            progress(n + 1, len(wanted))
    found.require_directions()
    if weights is None:
        return found.result()
    shares = base_shares(base, source, replace(loading, base=None), scope, (directions, leading), progress)
    return found.with_base(weights, shares)


@dataclass(frozen=True)
class _Asked:
    directions: int
    leading: int
    test: TokenTest

    def check(self, heads: Sequence[int] | None) -> None:
        """Refuse numbers that are out of their range."""
        test = self.test
        for name, value, least in (
            ("directions", self.directions, 1),
            ("leading", self.leading, 1),
            ("tokens", test.most, 0),
            ("draws", test.draws, 1),
        ):
            if value < least:
                raise ValueRangeError(
                    f"Invalid {name} {value}: give `{name}` a whole number of at least {least}"
                )
        if not 0 < test.level < 1:
            raise ValueRangeError(f"Invalid level {test.level}: give `level` between 0 and 1")
        if heads is not None and (not 1 <= len(heads) <= 2 or min(heads) < 1):
            raise ValueRangeError(
                f"Invalid heads ({listed(map(str, heads))}): give `heads` one number, or two: of queries, "
                "and of keys and values"
            )


class _HeadsOf:
    """The heads of modules, by the base's configuration or as they were given."""

    def __init__(self, adapter: Adapter, base: BaseWeights | None, given: Sequence[int] | None) -> None:
        self.counts: HeadCounts | None = head_counts({} if base is None else base.config, given)
        self.model_type = None if base is None else base.model_type
        self.size: int | None = None
        if self.counts is not None and self.counts.size is None:
            # the rows of queries, or the columns of an output projection, say how large a head is
            whole = HeadCounts(self.counts.heads, self.counts.heads)
            sizes = {name: heads_of(update, whole) for name, update in adapter.items()}
            self.size = max((each.size for each in sizes.values() if each is not None), default=None)

    def __call__(self, update: Update) -> Heads | None:
        """The heads of a module, None without."""
        if self.counts is None:
            return None
        return heads_of(update, self.counts, model_type=self.model_type, size=self.size)


class _Found:
    """Collects what is found in the modules."""

    def __init__(
        self, adapter: Adapter, known: KnownInputs | None, asked: _Asked, heads_of: _HeadsOf
    ) -> None:
        self.adapter, self.known, self.asked, self.heads_of = adapter, known, asked, heads_of
        self.rows: _Rows = {}
        self.directions: dict[str, Directions] = {}
        self.heads: list[ModuleHeads] = []
        self.damage = Damage()

    def add(self, update: Update) -> None:
        """Take in a module without its base."""
        module = update.module
        if isinstance(update, DenseUpdate) and Flag.NEEDS_BASE in update.flags:
            self.rows[module] = [without_directions(update)]
            return
        try:
            with located(place(self.adapter.path, module)):
                found = directions_of(update, self.asked.directions)
        except ValueRangeError:
            bad = damaged([(self.adapter.path, update)])
            if not bad:
                raise
            self.damage.add(module, tuple(bad))
            self.rows[module] = [without_directions(update, Flag.NOT_FINITE)]
            return
        if found is None:
            self.rows[module] = [without_directions(update, Flag.UNTRAINED)]
            return
        # a dense delta_W is not held
        self.rows[module] = self._explained(found)
        self.directions[module] = replace(found, matrix=None)

    def _explained(self, found: Directions) -> list[DirectionExplanation]:
        rows, update = rows_of(found), found.update
        moment = None
        if self.known is not None:
            moment, gradient = self.known.moment(update), self.known.gradient(update)
            if moment is None:
                rows = [replace(row, flags=(*row.flags, Flag.NO_INPUTS)) for row in rows]
            else:
                rows = with_inputs(rows, found, moment, self.asked.leading)
            rows = rows if gradient is None else with_gradient(rows, found, gradient)
        heads = self.heads_of(update)
        if heads is not None:
            rows = with_heads(rows, found, heads)
            self.heads.append(module_heads(found, heads, moment))
        return rows

    def require_directions(self) -> None:
        """An answer that does not exist for any module is an error."""
        if self.directions:
            return
        flags = {module: [f for f in rows[0].flags if f.warns] for module, rows in self.rows.items()}
        why = self.damage.notes() or flag_notes(flags)
        raise InconclusiveError(f"No module has a direction: {'; '.join(why)}, in {place(self.adapter.path)}")

    def with_base(self, base: BaseWeights, shares: Against[BaseShares]) -> Explanation:
        """The result with W and tokens."""
        of = {each.module: each for each in shares.rows}
        rows = {module: with_base(each, of.get(module)) for module, each in self.rows.items()}
        source, tied, test = "", False, self.asked.test
        if test.most:
            inside = {module: each for module, each in self.directions.items() if module in of}
            rows, source, tied = with_tokens(rows, inside, base, test)
        found = self.result(rows)
        notes = dict.fromkeys((*found.notes, *shares.notes()))
        found = replace(
            found,
            base=base.path,
            tokenizer=source,
            draws=test.draws,
            missing=shares.missing,
            notes=tuple(notes),
        )
        return replace(found, limits=limits(found, tied=tied))

    def result(self, rows: _Rows | None = None) -> Explanation:
        """The result without a base."""
        rows = self.rows if rows is None else rows
        flags = {
            module: tuple(dict.fromkeys(f for row in each for f in row.flags))
            for module, each in rows.items()
        }
        spoken = {note.flag for note in self.adapter.notes if note.flag is not None} | set(_SPOKEN)
        notes = [str(note) for note in self.adapter.notes]
        notes += [*flag_notes(flags, without=spoken), *self.damage.notes()]
        found = Explanation(
            self.adapter.path,
            tuple(row for each in rows.values() for row in each),
            inputs=None if self.known is None else self.known.described(),
            level=self.asked.test.level,
            heads=tuple(self.heads),
            notes=tuple(dict.fromkeys(notes)),
        )
        return replace(found, limits=limits(found))
