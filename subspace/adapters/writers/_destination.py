"""Whether an adapter may be written where the user wants it, checked before the work begins and before writing."""

from __future__ import annotations

from pathlib import Path

from subspace.adapters.writer import Writer
from subspace.checkpoints.destination import require_free
from subspace.checkpoints.weights_files import CONFIG, SUFFIXES
from subspace.errors import FileError
from subspace.text import shown

__all__ = ["require_place"]

_TORCH = (".pt", ".pth", ".bin", ".ckpt")


def require_place(source: str, out: str, target: Writer, *, overwrite: bool) -> None:
    """Check the place and the name of an output.

    Parameters
    ----------
    source : the file or directory that was read
    out : a directory, or a file where the format is a single file
    overwrite : whether an adapter that is there may be replaced

    Raises
    ------
    FileError : `out` is an input, exists already, or has the suffix of another kind of file
    """
    if not out:
        raise FileError("The name of the output is empty; give the name of a file or a directory")
    place, read = Path(out), Path(source)
    files = [place] if target.weights is None else [place / target.weights, place / CONFIG]
    inputs = [read, read / CONFIG, read.parent / CONFIG]
    require_free(place, files, inputs=inputs, folder=target.weights is not None, overwrite=overwrite)
    suffix, allowed = place.suffix.lower(), _TORCH if target.torch else (".safetensors",)
    if target.weights is not None and suffix in (*_TORCH, *SUFFIXES):
        raise FileError(
            f"Cannot write {shown(out, longest=1000)}: it is named like a file of weights, but {target.name} is a "
            "directory; give the name of a directory"
        )
    if target.weights is None and suffix not in allowed:
        container = "a torch file" if target.torch else "a safetensors file"
        raise FileError(
            f"Cannot write {shown(out, longest=1000)}: it does not end in {' or '.join(allowed)}, but {target.name} is "
            f"{container}; give a name such as adapter{allowed[0]}"
        )
