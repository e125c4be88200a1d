"""Which way round A and B are stored, where a format does not say it: decided by evidence, or asked for.

Four layouts have a product: A (r, d_in) with B (d_out, r), which is "BA"; both transposed, "AB", of code that computes
``x @ A @ B``; and either factor alone transposed, "BAt" and "BtA". A mixed one counts only where neither of the others
fits. Where the shapes leave two, the rank in the configuration decides, then the other modules of the file, then the
base weights; then a rank above d_in or d_out, which a trained pair rarely has, speaks against a layout.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from subspace.adapters.format import LAYOUTS, Source
from subspace.adapters.update import Factor
from subspace.errors import FormatError, ShapeError, SubspaceError
from subspace.text import listed

__all__ = ["Pair", "is_turned", "oriented"]

Pair: TypeAlias = tuple[Factor, Factor]
_Fits: TypeAlias = tuple[str, ...]

_STORED = {
    "AB": "A is stored (d_in, r) and B (r, d_out)",
    "BAt": "A is stored (d_in, r)",
    "BtA": "B is stored (r, d_out)",
}


def _no_rank(module: str) -> int | None:
    return None


def oriented(
    pairs: Mapping[str, Pair], source: Source, *, rank: Callable[[str], int | None] = _no_rank
) -> tuple[dict[str, Pair], list[str]]:
    """Every pair as A (r, d_in) and B (d_out, r), and notes on those that are stored in another way.

    Parameters
    ----------
    pairs : module -> A and B as they are stored, whose product is known to exist in some layout
    source : the file, with the layout that the user gave and the base weights, if any
    rank : module -> rank that the configuration declares, None if it declares none

    Raises
    ------
    ShapeError : no layout fits a module, or not the one that the user gave
    FormatError : several layouts fit a module and nothing decides between them
    """
    source.asked.update(["layout"] if pairs else [])
    fits = {module: _fitting(pair, module, source) for module, pair in pairs.items()}
    fits |= {m: _by_rank(left, pairs[m], rank(m)) or left for m, left in fits.items() if len(left) > 1}
    chosen = {module: left[0] for module, left in fits.items() if len(left) == 1}
    for narrowed in (_by_others, _by_base_and_size, _by_others):
        votes = _unanimous(chosen.values())
        for module in [m for m in fits if m not in chosen]:
            left = narrowed(fits[module], votes, pairs[module], module, source)
            if len(left) == 1:
                chosen[module] = left[0]
    for module in fits:
        if module not in chosen:
            raise _undecided(_uniform(fits[module]), pairs[module], module, source)
    turned: dict[str, list[str]] = defaultdict(list)
    for module in pairs:
        turned[chosen[module]].append(module or "the pair")
    notes = [f"{_STORED[layout]} in {listed(turned[layout])}" for layout in LAYOUTS[1:] if layout in turned]
    return {module: _turned(pair, chosen[module]) for module, pair in pairs.items()}, notes


def is_turned(A: Factor, B: Factor, module: str, source: Source) -> bool:
    """Whether A is stored (d_in, r) and B (r, d_out), where shapes alone could be read in another way.

    The user says it, or they multiply to the shape of the base weight; without one, any other reading would have a rank
    above a side of its product.
    """
    (d_in, r), (B0, d_out) = A.shape, B.shape
    if r != B0 or source.layout is not None:
        return r == B0 and source.layout == "AB"
    shape = _base_shape(module, source)
    if shape is None:
        return d_out > r
    return shape in {(d_out, d_in), (d_in, d_out)} and shape != (r, r)


def rank_of(pair: Pair, layout: str) -> int:
    """The rank of a pair in a layout."""
    return pair[0].shape[0 if layout in {"BA", "BtA"} else 1]


def _sides(pair: Pair, layout: str) -> tuple[int, int]:
    """d_out and d_in of a pair in a layout."""
    (A, B) = pair[0].shape, pair[1].shape
    return B[1 if layout in {"AB", "BtA"} else 0], A[0 if layout in {"AB", "BAt"} else 1]


def _fitting(pair: Pair, module: str, source: Source) -> _Fits:
    """The layouts in which A and B have one rank."""
    (a, A1), (B0, b) = pair[0].shape, pair[1].shape
    same = {"BA": a == b, "AB": A1 == B0, "BAt": b == A1, "BtA": a == B0}
    if source.layout is not None:
        if not same[source.layout]:
            raise _no_product(pair, module, source, f" in the `layout` {source.layout}")
        return (source.layout,)
    fits = tuple(layout for layout in LAYOUTS if same[layout])
    if not fits:
        raise _no_product(pair, module, source)
    return fits


def _no_product(pair: Pair, module: str, source: Source, layout: str = "") -> ShapeError:
    A, B = pair
    return ShapeError(
        f"A and B have different ranks{layout}: A (r, d_in) is {list(A.shape)} and B (d_out, r) is {list(B.shape)}, "
        f"in {source.place(module)}"
    )


def _by_rank(fits: _Fits, pair: Pair, r: int | None) -> _Fits:
    return tuple(layout for layout in fits if rank_of(pair, layout) == r)


def _unanimous(layouts: Iterable[str]) -> str | None:
    there = set(layouts)
    return there.pop() if len(there) == 1 else None


def _by_others(fits: _Fits, votes: str | None, pair: Pair, module: str, source: Source) -> _Fits:
    """The layout of the other modules of the file, where they have one and it fits."""
    return (votes,) if votes in fits else ()


def _by_base_and_size(fits: _Fits, votes: str | None, pair: Pair, module: str, source: Source) -> _Fits:
    """The layouts that the base weight has, or those without a rank above d_in or d_out."""
    fits = _uniform(fits)
    if len(fits) == 1:
        return fits
    found = _by_base(fits, pair, module, source)
    return found if len(found) == 1 else _by_size(fits, pair)


def _uniform(fits: _Fits) -> _Fits:
    """The layouts of which neither factor alone is transposed, if any fits."""
    return tuple(layout for layout in fits if layout in {"BA", "AB"}) or fits


def _undecided(fits: _Fits, pair: Pair, module: str, source: Source) -> FormatError:
    A, B = pair
    return FormatError(
        f"Cannot tell how the factors are stored: A is {list(A.shape)} and B is {list(B.shape)}, which fits "
        f"{' and '.join(fits)}, in {source.place(module)}; say it with `layout`: BA is A (r, d_in) and B (d_out, r), "
        "AB is both transposed"
    )


def _by_base(fits: _Fits, pair: Pair, module: str, source: Source) -> _Fits:
    """The layouts in which delta_W has the shape of the base weight; none without one."""
    shape = _base_shape(module, source)
    return tuple(layout for layout in fits if shape in {(s := _sides(pair, layout)), s[::-1]})


def _base_shape(module: str, source: Source) -> tuple[int, ...] | None:
    """Shape of the base weight, of the base that the user gave, else of the file itself; None without one."""
    if source.base is None:
        key = source.own.weights.get(module)
        return None if key is None else source.shape(key)
    try:
        key = source.base.find(module)
    except SubspaceError:  # it is ambiguous or quantised, which whoever needs the weight says
        return None
    return None if key is None else source.base.tensors.layout[key].shape


def _by_size(fits: _Fits, pair: Pair) -> _Fits:
    return tuple(layout for layout in fits if rank_of(pair, layout) <= min(_sides(pair, layout)))


def _turned(pair: Pair, layout: str) -> Pair:
    A, B = pair
    return A.T if layout in {"AB", "BAt"} else A, B.T if layout in {"AB", "BtA"} else B
