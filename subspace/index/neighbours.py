"""The nearest neighbours of members among very many: a sketch makes a shortlist, exact overlaps decide.

Every member has one vector, the sketches of its modules one after another. The inner product of two estimates the mean
overlap above chance of the modules that both have, so the nearest by it are looked at more closely: tens of reads for
each question instead of one for each member.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from subspace.errors import FileError, ValueRangeError
from subspace.geometry.all_pairs import phi_between
from subspace.geometry.projector_sketch import projector_sketch, sketch_directions
from subspace.geometry.stacked_spans import SIDES, Side, stacked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.index.batches import Batch
    from subspace.index.index import Index

__all__ = ["Neighbours", "neighbours", "sketches"]

_AT_ONCE = 1024  # members whose sketches are computed, and queries that are answered, together
_QUERIES = 64  # members whose shortlists are looked at together: the facts of a module are read once for them
_LARGE = 20_000  # members from which on a graph is faster than all products
_TRIES = 5


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Nearest neighbours, the nearest first.

    Attributes
    ----------
    numbers : ndarray of int, shape (q,)
        The members that were asked about.
    nearest : ndarray of int, shape (q, k)
        Numbers of their neighbours; -1 where there are fewer.
    phi : ndarray, shape (q, k)
        Mean of the exact overlap of the whole spans over the modules that both have.
    modules : ndarray of int, shape (q, k)
        How many modules that are.
    """

    numbers: NDArray[np.int64]
    nearest: NDArray[np.int64]
    phi: NDArray[np.float64]
    modules: NDArray[np.int64]


def neighbours(
    index: Index,
    numbers: Sequence[int] | None = None,
    *,
    k: int = 10,
    side: Side = "a",
    shortlist: int | None = None,
    size: int = 2048,
    seed: int = 0,
    search: Literal["auto", "products", "usearch"] = "auto",
) -> Neighbours:
    """The members whose spans overlap most with those of some members, by exact phi on a shortlist.

    Parameters
    ----------
    index : Index
    numbers : sequence of int, optional
        Members to ask about; all by default.
    k : int
        Neighbours of each.
    side : {"a", "b", "left", "right"}
    shortlist : int, optional
        How many are looked at exactly, 10 k by default. With all members the answer is exact.
    size : int
        Numbers in a sketch, over all modules; at least one for each.
    seed : int
        Of the sketch.
    search : {"auto", "products", "usearch"}
        How the shortlist is found: by all inner products, or by a graph of the package usearch, which "auto" takes from
        20,000 members on where it is installed.

    Raises
    ------
    ValueRangeError : a number is out of range
    FileError : usearch is asked for and is not installed

    Notes
    -----
    Sketches are kept in the index: they are computed once for each member, by reading all its modules. How many of the
    ten nearest are found is in benchmarks/README.md; overlaps close to chance need a larger shortlist or sketch.
    """
    asked = np.arange(len(index)) if numbers is None else np.asarray(numbers, np.int64)
    if side not in SIDES:
        raise ValueRangeError(f"Unknown side {side!r}: `side` is one of {', '.join(SIDES)}")
    if k < 1 or size < 1 or (asked.size and not 0 <= asked.min() <= asked.max() < len(index)):
        raise ValueRangeError(
            f"Out of range: k = {k}, size = {size}, of {len(index)} members; numbers count from 0"
        )
    vectors = sketches(index, side=side, size=size, seed=seed)
    most = min(max(10 * k if shortlist is None else shortlist, k), max(len(index) - 1, 0))
    near = _graph(vectors, asked, most) if _by_graph(search, len(index)) else _products(vectors, asked, most)
    starts = range(0, len(asked), _QUERIES)
    found = [_nearest(index, asked[n : n + _QUERIES], list(islice(near, _QUERIES)), side, k) for n in starts]
    none = np.zeros((0, k), np.int64), np.zeros((0, k)), np.zeros((0, k), np.int64)
    return Neighbours(asked, *(np.concatenate(each) for each in zip(none, *found, strict=True)))


def sketches(index: Index, *, side: Side = "a", size: int = 2048, seed: int = 0) -> NDArray[np.float32]:
    """One vector of length 1 for each member, shape (N, numbers): kept ones are read, the others computed and kept.

    Parameters
    ----------
    side, size, seed : as of `neighbours`
    """
    modules = list(index.modules)
    each = max(1, size // max(1, len(modules)))
    settings = {"sketch": 1, "side": side, "each": each, "seed": seed, "modules": modules}
    kept = index.rows
    for _ in range(_TRIES * (2 + len(index) // _AT_ONCE)):
        missing = kept.missing(settings)
        if not missing:
            break
        batch = missing[0].leading(_AT_ONCE)
        kept.put_rows(settings, batch, {"sketch": _computed(index, batch, side, each, seed)})
    found = kept.read_rows(settings)
    vectors = np.zeros((len(index), each * len(modules)), np.float32)
    if found is not None:
        vectors[found[0]] = found[1]["sketch"].T
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(lengths > 0, lengths, np.float32(1))
    return vectors


def _computed(index: Index, batch: Batch, side: Side, each: int, seed: int) -> NDArray[np.float32]:
    """Sketches of the new members of a batch, shape (numbers, members)."""
    place = {number: n for n, number in enumerate(batch.new)}
    found = np.zeros((each * len(index.modules), len(batch.new)), np.float32)
    for n, module in enumerate(index.modules):
        holders = [number for number in index.holders(module) if number in place]
        d_out, d_in = index.shapes[module]
        G = sketch_directions(d_in if side in ("a", "right") else d_out, each, seed=seed)
        for number in holders:
            X = stacked(index.forms(module, [number])).spans(side).X
            found[n * each : (n + 1) * each, place[number]] = projector_sketch(X, G) / np.sqrt(max(len(X), 1))
    return found


def _products(vectors: NDArray[Any], asked: NDArray[np.int64], most: int) -> Iterator[NDArray[np.int64]]:
    """Numbers of the most similar members of each, in no order."""
    for start in range(0, len(asked), _AT_ONCE):
        part = asked[start : start + _AT_ONCE]
        similar = vectors[part] @ vectors.T
        similar[np.arange(len(part)), part] = -np.inf
        yield from np.argpartition(-similar, max(most - 1, 0), axis=1)[:, :most]


def _graph(vectors: NDArray[Any], asked: NDArray[np.int64], most: int) -> Iterator[NDArray[np.int64]]:
    """The same by a graph of near neighbours, which may miss some."""
    from usearch.index import Index as Graph

    graph = Graph(ndim=vectors.shape[1], metric="ip", dtype="f16", expansion_search=max(64, 2 * most))
    graph.add(np.arange(len(vectors), dtype=np.uint64), vectors)
    for number in asked:
        found = graph.search(vectors[number], most + 1).keys.astype(np.int64)
        yield found[found != number][:most]


def _by_graph(search: str, n: int) -> bool:
    if search not in ("auto", "products", "usearch"):
        raise ValueRangeError(f"Unknown search {search!r}: `search` is one of auto, products, usearch")
    if search == "products" or (search == "auto" and n < _LARGE):
        return False
    from importlib.util import find_spec

    there = find_spec("usearch") is not None
    if search == "usearch" and not there:
        raise FileError(
            "The package usearch is not installed; it is needed for `search` usearch: "
            "pip install lora-subspace[search]"
        )
    return there


def _nearest(
    index: Index, asked: NDArray[np.int64], near: list[NDArray[np.int64]], side: Side, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """The k nearest on the shortlist of each, their mean exact overlap, and the modules that it is over."""
    most = max((len(row) for row in near), default=0)
    width = max(most, k)
    sums, counts = np.zeros((len(asked), width)), np.zeros((len(asked), width), np.int64)
    for module in index.modules:
        has = np.zeros(len(index), bool)
        has[index.holders(module)] = True
        for n, place in ((n, np.flatnonzero(has[row])) for n, row in enumerate(near) if has[asked[n]]):
            own, others = (
                stacked(index.forms(module, each)).spans(side)
                for each in ([int(asked[n])], near[n][place].tolist())
            )
            phi = phi_between(own, others)[0]
            there = np.isfinite(phi)
            sums[n, place[there]] += phi[there]
            counts[n, place[there]] += 1
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    order = np.argsort(-np.nan_to_num(mean, nan=-1.0), axis=1, kind="stable")[:, :k]
    numbers = np.full((len(asked), width), -1, np.int64)
    for n, row in enumerate(near):
        numbers[n, : len(row)] = row
    numbers[counts == 0] = -1
    rows = np.arange(len(asked))[:, None]
    return numbers[rows, order], mean[rows, order], counts[rows, order]
