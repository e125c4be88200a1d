"""Results of pairs of members, kept in an index: what was computed once is computed no more.

A batch is what is missing: each of its new members with every member before it. So one adapter that is added to N needs
N pairs, and its block on disk holds those alone. Results are arrays whose last axis goes over the pairs of the batch,
under names of the caller's, for settings of the caller's: the index knows what they are of, not what they say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.checkpoints.atomic_writing import write_whole
from subspace.checkpoints.held_file import HeldFile
from subspace.checkpoints.safetensors import SafetensorsFile
from subspace.checkpoints.tensor_bytes import StoredTensor, safetensors_bytes
from subspace.errors import FileError, ShapeError
from subspace.index.entry import digest
from subspace.index.shard import place
from subspace.text import shown

if TYPE_CHECKING:
    import sqlite3

    from numpy.typing import NDArray

    from subspace.index.database import Database

__all__ = ["Batch", "KeptPairs", "PairArrays"]

_FORMAT = "subspace.index.pairs/1"


@dataclass(frozen=True)
class Batch:
    """Pairs that are computed together: each new member with all old ones and with the new ones before it.

    Attributes
    ----------
    new, old : numbers of members, ascending
    block : number of the block on disk that was lost, and that these pairs replace; None where they are new
    after : number of the last block when the batch was found, by which it is known whether another was faster
    """

    new: tuple[int, ...]
    old: tuple[int, ...]
    block: int | None = None
    after: int = 0

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.new) * len(self.old) + len(self.new) * (len(self.new) - 1) // 2

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the two members of each pair: the earlier ones, and the new ones, in the order of the arrays.

        Examples
        --------
        >>> [numbers.tolist() for numbers in Batch(new=(2, 3), old=(0, 1)).pairs()]
        [[0, 1, 0, 1, 2], [2, 2, 3, 3, 3]]
        """
        earlier = [np.array([*self.old, *self.new[:n]], np.int64) for n in range(len(self.new))]
        new = np.repeat(np.array(self.new, np.int64), [len(each) for each in earlier])
        return np.concatenate([np.empty(0, np.int64), *earlier]), new


@dataclass(frozen=True)
class PairArrays:
    """Kept results of pairs.

    Attributes
    ----------
    first, second : numbers of the members of each pair, first < second
    arrays : by the names that they were kept under; the last axis is that of the pairs
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    arrays: Mapping[str, NDArray[Any]]


class KeptPairs:
    """What an index keeps of the pairs of its members; made by `Index.pairs`.

    Parameters
    ----------
    folder, database : of the index
    ids : of the rows of its members, by their numbers
    """

    def __init__(self, folder: Path, database: Database, ids: Sequence[int]) -> None:
        self._folder, self._database = folder, database
        self._ids = list(ids)
        self._numbers = {member: number for number, member in enumerate(self._ids)}

    def missing(self, settings: Mapping[str, Any]) -> list[Batch]:
        """Return the batches of pairs that are not kept for these settings, those of lost blocks first.

        Parameters
        ----------
        settings : all that the results depend on but the members, as values that JSON can hold

        Raises
        ------
        FileError
            If another process has added members whose pairs it kept, which this view of the index does not show.
        """
        blocks = self._blocks(settings)
        covered = {member for block in blocks for member in block.new}
        self._require_shown(covered)
        after = blocks[-1].id if blocks else 0
        lost = [self._batch(block.new, block.old, block.id, after) for block in blocks if not block.is_whole]
        rest = [member for member in self._ids if member not in covered]
        added = [self._batch(rest, sorted(covered), None, after)] if rest else []
        return [batch for batch in (*lost, *added) if batch.new]

    def put(
        self,
        settings: Mapping[str, Any],
        batch: Batch,
        first: NDArray[Any],
        second: NDArray[Any],
        arrays: Mapping[str, NDArray[Any]],
    ) -> bool:
        """Keep the results of a batch; whether they were kept: not where another process was faster.

        Parameters
        ----------
        batch : as `missing` returned it
        first, second : numbers of the members of each pair, in any order; all pairs of the batch are among them
        arrays : each with one number for each pair on its last axis, of any real type

        Raises
        ------
        ShapeError : an array has another length, or a pair of the batch is missing
        FileError : the index cannot be written
        """
        at = self._places(batch, first, second)
        _require_fitting(len(first), arrays)
        new, old = ([self._ids[number] for number in numbers] for numbers in (batch.new, batch.old))
        tensors = {
            name: StoredTensor(np.ascontiguousarray(array[..., at]), str(array.dtype))
            for name, array in arrays.items()
        }
        content = safetensors_bytes(tensors, {"format": _FORMAT})
        row = (_ranges(new), _ranges(old), digest([dict(settings), new, old]), sha256(content).hexdigest())
        write_whole({place(self._folder, "pairs", row[2]): content})
        with self._database.writing() as connection:
            return _put(connection, settings, batch, row)

    def _places(self, batch: Batch, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.intp]:
        """Where in the arrays each pair of a batch is."""
        n = len(self._ids)
        given = np.minimum(first, second).astype(np.int64) * n + np.maximum(first, second)
        earlier, new = batch.pairs()
        wanted = np.minimum(earlier, new) * n + np.maximum(earlier, new)
        order = np.argsort(given, kind="stable")
        at = np.searchsorted(given, wanted, sorter=order)
        if at.size and (at.max() >= given.size or (given[order[at]] != wanted).any()):
            raise ShapeError(
                f"Pairs of the batch are missing: {given.size} pairs, of {len(batch)} that it has"
            )
        return order[at] if at.size else np.empty(0, np.intp)

    def read(self, settings: Mapping[str, Any]) -> PairArrays | None:
        """Return all that is kept for these settings, of members that are still there; None where nothing is.

        Notes
        -----
        Blocks whose bytes are not those that were written are left out: `missing` names their pairs.
        """
        found = [self._read(block) for block in self._blocks(settings) if block.is_whole]
        whole = [pairs for pairs in found if pairs is not None]
        if not whole:
            return None
        return PairArrays(
            np.concatenate([pairs.first for pairs in whole]),
            np.concatenate([pairs.second for pairs in whole]),
            {
                name: np.concatenate([pairs.arrays[name] for pairs in whole], axis=-1)
                for name in whole[0].arrays
            },
        )

    def settings(self) -> list[dict[str, Any]]:
        """Return the settings that results are kept for."""
        with self._database.reading() as connection:
            return [
                json.loads(text) for (text,) in connection.execute("SELECT text FROM settings ORDER BY id")
            ]

    def _batch(self, new: Sequence[int], old: Sequence[int], block: int | None, after: int) -> Batch:
        return Batch(self._there(new), self._there(old), block, after)

    def _there(self, members: Sequence[int]) -> tuple[int, ...]:
        return tuple(sorted(self._numbers[member] for member in members if member in self._numbers))

    def _require_shown(self, covered: set[int]) -> None:
        unseen = covered - self._numbers.keys()
        if not unseen:
            return
        with self._database.reading() as connection:
            there = {member for (member,) in connection.execute("SELECT id FROM members")}
        if unseen & there:
            raise FileError(
                f"The index grew while it was in use: {shown(self._folder, longest=1000)} has adapters that another "
                "process added; refresh it"
            )

    def _blocks(self, settings: Mapping[str, Any]) -> list[_Block]:
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT id, new, old, key, content FROM blocks "
                "WHERE setting = (SELECT id FROM settings WHERE digest = ?) ORDER BY id",
                (digest(dict(settings)),),
            ).fetchall()
        return [_Block(row, self._folder) for row in rows]

    def _read(self, block: _Block) -> PairArrays | None:
        tensors = SafetensorsFile(block.path)
        place_of = {member: n for n, member in enumerate([*block.old, *block.new])}
        ids = np.array([*block.old, *block.new], np.int64)
        numbers = np.array([self._numbers.get(int(member), -1) for member in ids], np.int64)
        earlier, new = Batch(
            tuple(place_of[member] for member in block.new), tuple(place_of[member] for member in block.old)
        ).pairs()
        first, second = numbers[earlier], numbers[new]
        there = (first >= 0) & (second >= 0)
        if not there.any():
            return None
        arrays = {name: tensors.raw(name)[..., there] for name in tensors.layout}
        low, high = np.minimum(first, second)[there], np.maximum(first, second)[there]
        return PairArrays(low, high, arrays)


class _Block:
    """A row of a block; whether its file has the bytes that were written is looked at once."""

    def __init__(self, row: Sequence[Any], folder: Path) -> None:
        self.id = int(row[0])
        self.new, self.old = _members(row[1]), _members(row[2])
        self.path = place(folder, "pairs", row[3])
        try:
            self.is_whole = HeldFile(self.path).sha256() == row[4]
        except FileError:
            self.is_whole = False


def _require_fitting(count: int, arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        if array.ndim == 0 or array.shape[-1] != count:
            raise ShapeError(
                f"Not one number for each pair: an array of shape {array.shape} for {count} pairs, in {shown(name)}"
            )


def _put(
    connection: sqlite3.Connection, settings: Mapping[str, Any], batch: Batch, row: tuple[str, ...]
) -> bool:
    """Write the row of a block, unless others were written since the batch was found."""
    setting = _setting(connection, settings)
    last = connection.execute("SELECT max(id) FROM blocks WHERE setting = ?", (setting,)).fetchone()[0]
    if (last or 0) != batch.after:
        return False
    if batch.block is None:
        connection.execute(
            "INSERT INTO blocks (setting, new, old, key, content) VALUES (?, ?, ?, ?, ?)", (setting, *row)
        )
    else:
        connection.execute(
            "UPDATE blocks SET (new, old, key, content) = (?, ?, ?, ?) WHERE id = ?", (*row, batch.block)
        )
    return True


def _setting(connection: sqlite3.Connection, settings: Mapping[str, Any]) -> int:
    name = digest(dict(settings))
    text = json.dumps(dict(settings), sort_keys=True)
    connection.execute("INSERT OR IGNORE INTO settings (digest, text) VALUES (?, ?)", (name, text))
    ((number,),) = connection.execute("SELECT id FROM settings WHERE digest = ?", (name,))
    return int(number)


def _ranges(members: Sequence[int]) -> str:
    """Ascending numbers as text that is short where they follow each other.

    Examples
    --------
    >>> _ranges([1, 2, 3, 7]), _members("1-3,7")
    ('1-3,7', [1, 2, 3, 7])
    """
    parts: list[list[int]] = []
    for member in members:
        if parts and member == parts[-1][-1] + 1:
            parts[-1][1:] = [member]
        else:
            parts.append([member])
    return ",".join("-".join(map(str, part)) for part in parts)


def _members(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
