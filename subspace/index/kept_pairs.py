"""Results of pairs of members, kept in an index: what was computed once is computed no more.

A batch is what is missing: each of its new members with every member before it. So one adapter that is added to N needs
N pairs, and its block on disk holds those alone. Results are arrays whose last axis goes over the pairs of the batch,
under names of the caller's, for settings of the caller's: the index knows what they are of, not what they say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.checkpoints.atomic_writing import write_whole
from subspace.checkpoints.held_file import HeldFile
from subspace.checkpoints.safetensors import SafetensorsFile
from subspace.checkpoints.tensor_bytes import StoredTensor, safetensors_bytes
from subspace.errors import FileError, ShapeError
from subspace.index.batches import Batch, PairArrays, members_of, ranges
from subspace.index.entry import digest
from subspace.index.shard import place
from subspace.text import shown

if TYPE_CHECKING:
    import sqlite3

    from numpy.typing import NDArray

    from subspace.index.database import Database

__all__ = ["Batch", "KeptPairs", "PairArrays", "require_fitting"]

_FORMAT = "subspace.index.pairs/1"


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
        self._whole: dict[str, bool] = {}  # files whose bytes were looked at

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
        lost = [
            self._batch(block.new, block.old, block.id, after)
            for block in blocks
            if not self._is_whole(block)
        ]
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
        batch : as `missing` returned it, or its `leading` members
        first, second : numbers of the members of each pair, in any order; all pairs of the batch are among them
        arrays : each with one number for each pair on its last axis, of any real type

        Raises
        ------
        ShapeError : an array has another length, or a pair of the batch is missing
        FileError : the index cannot be written
        """
        at = self._places(batch, first, second)
        require_fitting(len(first), arrays)
        return self._keep(settings, batch, {name: array[..., at] for name, array in arrays.items()})

    def _keep(self, settings: Mapping[str, Any], batch: Batch, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """Write a block, its file first; whether it was kept."""
        new, old = ([self._ids[number] for number in numbers] for numbers in (batch.new, batch.old))
        tensors = {
            name: StoredTensor(np.ascontiguousarray(array), str(array.dtype))
            for name, array in arrays.items()
        }
        content = safetensors_bytes(tensors, {"format": _FORMAT})
        row = (ranges(new), ranges(old), digest([dict(settings), new, old]), sha256(content).hexdigest())
        write_whole({place(self._folder, "pairs", row[2]): content})
        self._whole[row[3]] = True
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
        found = [self._read(block) for block in self._blocks(settings) if self._is_whole(block)]
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

    def _is_whole(self, block: _Block) -> bool:
        """Whether a file has the bytes that were written; it is looked at once."""
        if block.content not in self._whole:
            try:
                self._whole[block.content] = HeldFile(block.path).sha256() == block.content
            except FileError:
                self._whole[block.content] = False
        return self._whole[block.content]

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
    """A row of a block, and where its file is."""

    def __init__(self, row: Sequence[Any], folder: Path) -> None:
        self.id, self.content = int(row[0]), row[4]
        self.new, self.old = members_of(row[1]), members_of(row[2])
        self.path = place(folder, "pairs", row[3])


def require_fitting(count: int, arrays: Mapping[str, NDArray[Any]]) -> None:
    """ShapeError unless the last axis of every array has this length."""
    for name, array in arrays.items():
        if array.ndim == 0 or array.shape[-1] != count:
            raise ShapeError(
                f"The last axis is not that of the members or pairs: an array of shape {array.shape} for {count}, in "
                f"{shown(name)}"
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
