"""A library of adapters on disk: analysed once, extended one adapter at a time.

    library.index/
      manifest.sqlite                   which adapters there are, and what their files hold
      adapters/3f/3f09...c1.safetensors one file per adapter: the canonical form of each of its modules
      pairs/8a/8a41...77.safetensors    one file per batch of added adapters: their pairs with those before

An adapter has a file of its own, so that to add, replace, check or drop one touches nothing of the others, two
processes add at once without waiting for each other, and a question about some modules of some adapters reads those
bytes alone: the manifest knows where in the file a module begins. The name of the file is a digest of what was read
(the bytes of the adapter's file, and how they were read: the scale that a configuration gives belongs to the update),
so that copies are stored once and no name from an adapter becomes the name of a file.

Everything is written by `checkpoints.atomic_writing`: the file first, then its rows in one transaction. A kill between
the two leaves a file without rows, which the next `add` of the same adapter, or `repair`, takes up. Each file says in
its own metadata what the manifest says of it, so that either can be made again from the other, and both from the
adapter, as long as that is where it was and has the same bytes.

Why safetensors and SQLite: both can be read by programs that never heard of this one, neither can run code when it is
read, and together they have what is needed here, rows that change in a transaction and bytes that are read at an
offset. Parquet and Arrow hold columns of equal rows and are written whole: they are what results are exported to. HDF5
has no transactions, and a killed writer may leave a file that does not open. LMDB maps its file into memory, which this
package does not do (another program that cuts the file short would end the process), and zarr has a file per chunk and
no transactions. One file for each module of all adapters would be faster to read end to end, and would have to be
written anew for each adapter that is added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subspace.index.collection import Collection, Member
    from subspace.index.index import Index

__all__ = ["Collection", "Index", "Member"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from subspace.index import collection, index

    return index.Index if name == "Index" else getattr(collection, name)


def __dir__() -> list[str]:
    return list(__all__)
