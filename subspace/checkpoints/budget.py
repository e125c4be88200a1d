"""How much work a file may cause, by its size: one account for each file, which every reader charges.

A file of a kilobyte can ask for hours: a tuple that holds itself twice over, sixty times; a million members that are
one; text that is decoded again and again. Such a request is no single wrong value that a check could find, only too
much of what is allowed. So a reader says what it is about to do, how much of it, and the account says when that is more
than a file of this size can need. Every limit is a number of units that is always free (small files have large
headers), a number for each byte of the file, and a number that no file exceeds.

The limits leave room for adapters of 100,000 modules and for files of many gigabytes, and end any file within seconds.
"""

from __future__ import annotations

from typing import NamedTuple

from subspace.errors import UnsafeFileError
from subspace.text import shown

__all__ = [
    "DECLARED_BYTES",
    "ENCODED_BYTES",
    "ENTRIES",
    "MEMBERS",
    "METADATA",
    "NESTED",
    "OBJECTS",
    "OPCODES",
    "TENSOR_BYTES",
    "Budget",
    "Work",
]


class Work(NamedTuple):
    """One kind of work: what it is called in an error, units that are free, units a byte of the file, and the most."""

    name: str
    free: int
    per_byte: float
    most: float = float("inf")

    def limit(self, size: int) -> int:
        """Units that a file of `size` bytes may cause.

        Examples
        --------
        >>> Work("steps", free=100, per_byte=0.5, most=150).limit(40), Work("steps", 100, 0.5, 150).limit(400)
        (120, 150)
        """
        return int(min(self.free + self.per_byte * size, self.most))


# torch.save writes 35 opcodes and 8 objects a tensor, in 350 bytes of file at the least
OPCODES = Work("opcodes in a pickle", 200_000, 0.3, 10_000_000)
OBJECTS = Work("containers and tensors in a pickle", 100_000, 0.1, 4_000_000)
# what a walk through the nested containers meets, an object as often as it is referred to
NESTED = Work("nested values in a pickle", 1_000_000, 0.5, 20_000_000)
# Python writes bytes as text that is encoded once
ENCODED_BYTES = Work("bytes of encoded text in a pickle", 2**20, 1, 2**26)
# the shortest member of torch.save takes 250 bytes with its two headers
MEMBERS = Work("members in an archive", 4_000, 1 / 200, 500_000)
# weights hardly compress; NumPy's savez_compressed reaches this only for zeros
DECLARED_BYTES = Work("bytes after decompression", 2**26, 20)
# tied weights are in a file once and read twice; parts of a fused weight are read beside the whole
TENSOR_BYTES = Work("bytes of tensors that share their memory", 2**26, 16)
# the shortest entry of a safetensors header takes 50 bytes, and one of GGUF 30
ENTRIES = Work("tensors in a header", 10_000, 1 / 24, 2_000_000)
# the vocabularies of language models have 300,000 entries, of 14 bytes and more
METADATA = Work("values in the metadata", 100_000, 1 / 16, 4_000_000)


class Budget:
    """What one file may still cause.

    Parameters
    ----------
    size : int
        Of the file in bytes.
    name : str
        The file's name in errors.

    Examples
    --------
    >>> budget = Budget(1000, "a.pt")
    >>> budget.left(OPCODES)
    200300
    >>> budget.spend(OPCODES, 200_000)
    >>> budget.spend(OPCODES, 301)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    subspace.errors.UnsafeFileError: Too many opcodes in a pickle for a file of 1000 bytes: more than 200300, in a...
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._spent: dict[Work, int] = {}

    def left(self, work: Work) -> int:
        """Units of a kind of work that may still be spent."""
        return work.limit(self._size) - self._spent.get(work, 0)

    def spend(self, work: Work, amount: int = 1) -> None:
        """Account for work that is about to be done.

        Raises
        ------
        UnsafeFileError
            If the file causes more of it than a file of its size can need.
        """
        spent = self._spent[work] = self._spent.get(work, 0) + amount
        if spent > work.limit(self._size):
            raise UnsafeFileError(
                f"Too many {work.name} for a file of {self._size} bytes: more than {work.limit(self._size)}, in "
                f"{shown(self._name)}; it was not read; if you trust its source, save only the weights again, best as "
                "safetensors"
            )
