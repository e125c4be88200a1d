"""An index of adapters on disk, which is a collection: what a library asks of its adapters, it reads from here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.naming.sorting import in_order
from subspace.checkpoints.held_file import HeldFile
from subspace.errors import FileError, FormatError
from subspace.index import manifest
from subspace.index.adding import Added, Adding
from subspace.index.collection import Member
from subspace.index.database import Database
from subspace.index.entry import StoredModule
from subspace.index.repair import Repaired, checked, healed, recovered, repaired
from subspace.index.shard import place, read_form
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from subspace.geometry.canonical import Canonical
    from subspace.index.kept_pairs import KeptPairs
    from subspace.index.kept_rows import KeptRows

__all__ = ["Index"]

_KEPT_MODULES = 4  # whose rows are kept in memory: a question goes over the modules one by one


class Index:
    """Adapters in a folder on disk, each in canonical form, as a `Collection`.

    What it shows is what was there when it was opened, until `add`, `remove`, `repair` or `refresh`: numbers of members
    do not change while another process adds. It can be pickled, and is opened again where it is unpickled.

    Parameters
    ----------
    folder : path
        Of the index.
    create : bool
        Whether to make it where there is none; the folder must be empty then.

    Attributes
    ----------
    folder : Path
    notes : list of str
        What was repaired when it was opened or read.

    Raises
    ------
    FileError
        If it is not an index, was written by a newer version, or cannot be read or made.

    Examples
    --------
    >>> import tempfile
    >>> adapter = {"q.lora_A": np.eye(2, 4), "q.lora_B": 3 * np.eye(3, 2)}
    >>> with tempfile.TemporaryDirectory() as folder, Index(folder) as index:
    ...     _ = index.add([adapter])
    ...     len(index), index.modules, index.forms("q", [0])[0].S
    (1, ['q'], array([3., 3.]))
    """

    def __init__(self, folder: str | os.PathLike[str], *, create: bool = True) -> None:
        self.folder = Path(folder)
        self.notes: list[str] = []
        self._database = recovered(self.folder, create=create, notes=self.notes)
        self.refresh()

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<Index {shown(self.folder)}: {counted(len(self), 'adapter')}, {counted(len(self.modules), 'module')}>"

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        last = self._rows[-1].id if self._rows else 0
        return {"folder": str(self.folder.absolute()), "last": last, "count": len(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.folder, self.notes = Path(state["folder"]), []
        self._database = Database(self.folder, create=False)
        self._show(state["last"])
        if len(self) != state["count"]:
            raise FileError(
                f"The index changed while it was in use: {shown(self.folder, longest=1000)} lost adapters; open it "
                "again"
            )

    def close(self) -> None:
        """Close the manifest; the next question opens it again."""
        self._database.close()

    def refresh(self) -> None:
        """Show what is in the folder now, other processes' additions included."""
        self._show(None)

    def _show(self, until: int | None) -> None:
        with self._database.reading() as connection:
            self._rows = manifest.member_rows(connection, until)
            self._modules = in_order(manifest.names(connection))
        self._numbers: dict[int, list[int]] = {}
        for number, row in enumerate(self._rows):
            self._numbers.setdefault(row.entry, []).append(number)
        self._members = [Member(row.path, row.sha256, row.step) for row in self._rows]
        self._of_module: dict[str, dict[int, tuple[int, StoredModule]]] = {}

    # what a collection is asked for

    @property
    def members(self) -> Sequence[Member]:
        """The adapters in the order in which they were added; a member is known by its number, from 0."""
        return self._members

    @property
    def modules(self) -> Sequence[str]:
        """The modules that any member has, in natural order."""
        return self._modules

    def holders(self, module: str) -> Sequence[int]:
        """Return the numbers of the members that have a module, ascending."""
        with self._database.reading() as connection:
            entries = manifest.entries_with(connection, module)
        return sorted(number for entry in entries for number in self._numbers.get(entry, ()))

    def scales(self, module: str) -> NDArray[np.float64]:
        """Return the scale of the module in each of its holders; NaN where it is unknown."""
        found = (facts.scale for facts in self.facts(module).values())
        return np.array([np.nan if scale is None else scale for scale in found], dtype=np.float64)

    def forms(self, module: str, numbers: Sequence[int]) -> list[Canonical]:
        """Return the canonical form of a module in some of its holders, in float64, read when it is asked for.

        Directions were stored in float32; S, a and b in float64. An entry that is damaged is made again from its
        adapter where that is still there, with a note among `notes`.

        Raises
        ------
        FormatError : a member has no such module
        FileError : an entry is damaged, and its adapter is gone or has other bytes
        """
        there = self._module(module)
        missing = [number for number in numbers if self._rows[number].entry not in there]
        if missing:
            raise FormatError(
                f"No such module: {shown(module)} in {listed(self._rows[n].path for n in missing)}, in "
                f"{shown(self.folder, longest=1000)}; ask for its holders"
            )
        return [self._form(module, number) for number in numbers]

    # what else is known of members

    @property
    def keys(self) -> list[str]:
        """Digest of the content of each member: members with the same bytes, read in the same way, share it."""
        return [row.key for row in self._rows]

    @property
    def ids(self) -> list[int]:
        """Number of each member's row, which no other member is ever given, whatever is removed."""
        return [row.id for row in self._rows]

    @property
    def bases(self) -> list[str | None]:
        """Name of each member's base model, where its configuration says it."""
        return [row.base for row in self._rows]

    @property
    def formats(self) -> list[str]:
        """Format of each member, such as "peft"."""
        return [row.format for row in self._rows]

    def facts(self, module: str) -> Mapping[int, StoredModule]:
        """Return holder -> name in the file, kind, rank, dimensions, scale and flags of a module; ascending."""
        found = self._module(module)
        pairs = ((number, facts) for entry, (_, facts) in found.items() for number in self._numbers[entry])
        return dict(sorted(pairs, key=lambda pair: pair[0]))

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(d_out, d_in) of every module."""
        with self._database.reading() as connection:
            found = {name: manifest.shape_of(connection, name) for name in self._modules}
        return {name: shape for name, shape in found.items() if shape is not None}

    def names(self, number: int) -> dict[str, str]:
        """Return the name in the index -> the name in its own file, of each module of a member."""
        with self._database.reading() as connection:
            found = manifest.entry_of(connection, self._rows[number].key)
        return {} if found is None else {name: stored for stored, name in found[1].items()}

    @property
    def pairs(self) -> KeptPairs:
        """Results of pairs that are kept, so that an added adapter is compared with the others once."""
        from subspace.index.kept_pairs import KeptPairs

        return KeptPairs(self.folder, self._database, self.ids)

    @property
    def rows(self) -> KeptRows:
        """Results of single members that are kept, such as sketches."""
        from subspace.index.kept_rows import KeptRows

        return KeptRows(self.folder, self._database, self.ids)

    # changes

    def add(
        self,
        adapters: Iterable[Any],
        *,
        reading: Mapping[str, Any] | None = None,
        names: Mapping[str, str] | None = None,
        step: int | None = None,
        keep_going: bool = False,
    ) -> Added:
        """Add adapters, and return which members are new.

        A kill at any point leaves each adapter in the index whole, or not in it; adding again goes on from there. One
        whose path, content and reading are in the index is known and left; one whose content changed takes the place of
        what was there, under a new number.

        Parameters
        ----------
        adapters : paths, tensors by name, models, or `Adapter` objects
        reading : options of `load_adapter` that they were, or are to be, read with: plain values, as they are kept, so
            that an entry can be made again (of `base`, the path). They belong to what an entry is.
        names : name of a module in an adapter -> its name in the index, where those that `CommonNames` finds are not to
            be used
        step : of the checkpoint, where the name of its folder, checkpoint-500, does not say it
        keep_going : whether an adapter that cannot be read is passed over, and returned among `refused`

        Raises
        ------
        FileError : an adapter cannot be read, or the index cannot be written; what was added before stays
        """
        adding = Adding(self.folder, self._database, names)
        kept = {key: value for key, value in (reading or {}).items() if value is not None}
        try:
            adding.add(adapters, kept, step, keep_going=keep_going)
        finally:
            self.refresh()
        return adding.done

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove members; the others keep their order, and are numbered anew."""
        ids = [self._rows[number].id for number in numbers]
        with self._database.writing() as connection:
            manifest.remove_members(connection, self.folder, ids)
        self.refresh()

    def repair(self, *, sources: bool = True) -> Repaired:
        """Check every entry and every number, make what is damaged again, and drop what cannot be; say what was done.

        Parameters
        ----------
        sources : whether adapters may be read again, where they are where they were and have the same bytes
        """
        notes: list[str] = []
        self._database = checked(self.folder, self._database, notes)
        done = repaired(self.folder, self._database, sources=sources)
        done.notes[:0] = notes
        self.refresh()
        return done

    def _module(self, module: str) -> dict[int, tuple[int, StoredModule]]:
        """(Where the numbers begin in the file, the facts) of a module, by entry; a damaged row is made again first."""
        if module not in self._of_module:
            if len(self._of_module) >= _KEPT_MODULES:
                self._of_module.pop(next(iter(self._of_module)))
            self._of_module[module] = self._read_module(module)
        return self._of_module[module]

    def _read_module(self, module: str) -> dict[int, tuple[int, StoredModule]]:
        with self._database.reading() as connection:
            rows = [row for row in manifest.module_rows(connection, module) if row[0] in self._numbers]
        found, damaged = {}, []
        for entry, begin, row in rows:
            try:
                found[entry] = begin, StoredModule.of_row(row)
            except ValueError:
                damaged.append(entry)
        for entry in damaged:
            self._heal(entry)
        return found if not damaged else self._read_module(module)

    def _form(self, module: str, number: int) -> Canonical:
        entry = self._rows[number].entry
        try:
            return self._read(module, number)
        except FileError:
            self._heal(entry)  # which another process may have done
            self._of_module.pop(module, None)
            return self._read(module, number)

    def _read(self, module: str, number: int) -> Canonical:
        row = self._rows[number]
        file = HeldFile(place(self.folder, "adapters", row.key))
        return read_form(file, *self._module(module)[row.entry])

    def _heal(self, entry: int) -> None:
        key = next(self._rows[number].key for number in self._numbers[entry])
        self.notes += healed(self.folder, self._database, key)
