"""Files that hold no matrix at all: metadata alone, scalars alone, or placeholders of DeepSpeed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.adapters.formats._peft_types import peft_type, why_not_read
from subspace.errors import FormatError
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from subspace.adapters.format import Source

__all__ = ["refuse_hollow"]


def refuse_hollow(source: Source) -> None:
    """Raise the error that says what a file holds in the place of matrices; nothing where it holds numbers.

    Raises
    ------
    FormatError : it has no tensors, or no tensor of it has more than one number

    References
    ----------
    microsoft/DeepSpeed, runtime/zero/partition_parameters.py: a partitioned parameter is a tensor of the shape [0]
    until it is gathered; ``zero_to_fp32.py``, which DeepSpeed saves with a checkpoint, gathers them.
    """
    layout = source.tensors.layout
    # a kind of PEFT that has no factors is named by its configuration
    if why_not_read(peft_type(source) or ""):
        return
    if source.tensors.skipped or any(_numbers(info.shape) > 1 for info in layout.values()):
        return
    what, cure = _hollow(source)
    raise FormatError(f"{what}, in {source.path}; {cure}")


def _hollow(source: Source) -> tuple[str, str]:
    layout = source.tensors.layout
    keys = listed(repr(shown(key, longest=80)) for key in layout)
    empty = sum(_numbers(info.shape) == 0 for info in layout.values())
    if not layout:
        metadata = source.tensors.metadata
        held = f", only metadata ({listed(shown(key, longest=80) for key in metadata)})" if metadata else ""
        return f"The file holds no tensors{held}", "save the adapter again, or give the file with its weights"
    if empty:
        return (
            f"The file holds no numbers: {empty} of {counted(len(layout), 'tensor')} ({keys}) are empty, as DeepSpeed "
            "ZeRO-3 leaves them where they are partitioned",
            "gather them with DeepSpeed's zero_to_fp32.py, or train with stage3_gather_16bit_weights_on_model_save",
        )
    return (
        f"The file holds only scalars, such as alpha, and no A or B: {counted(len(layout), 'tensor')} of one number "
        f"({keys})",
        "save the adapter again with its factors, or give the file that has them",
    )


def _numbers(shape: tuple[int, ...]) -> int:
    """How many numbers a tensor has, and 2 for a matrix or for more: a pair of rank 1 may be of 1 x 1."""
    return 0 if 0 in shape else 2 if len(shape) > 1 or max(shape, default=1) > 1 else 1
