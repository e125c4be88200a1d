"""A figure as a file, and next to it a file of the numbers that were drawn.

Both are put in place in one step, so that a failure leaves what was there. What is already there is only replaced if it
is a file of the same kind; a user's `adapter_config.json` is never overwritten by the data of a figure.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from subspace.checkpoints.atomic_writing import may_replace, write_whole
from subspace.errors import FileError
from subspace.plots.canvas import rendered
from subspace.plots.drawn_panels import drawn
from subspace.plots.figure_data import CSV_START, JSON_START, as_csv, as_json
from subspace.text import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["contents", "numbered", "save"]

# How a file of each kind begins; only such a file may be replaced by a new one
_STARTS: Mapping[str, tuple[bytes, ...]] = {
    ".png": (b"\x89PNG\r\n\x1a\n",),
    ".pdf": (b"%PDF-",),
    ".svg": (b"<?xml", b"<svg"),
    ".json": (JSON_START,),
    ".csv": (CSV_START,),
}


def save(figure: Figure, path: str | os.PathLike[str], *, csv: bool = False) -> tuple[Path, ...]:
    """Write the figure and the numbers drawn on it; return the paths written, the figure first.

    Parameters
    ----------
    figure : matplotlib Figure
        Any figure; the numbers are those of the heatmaps of this package that are on it.
    path : path
        Ends in .png, .pdf or .svg. The data get the same name with .json.
    csv : bool
        Whether to write the same data as .csv too, a line per cell.

    Raises
    ------
    FileError
        If the name ends otherwise, the directory cannot be made or written, or a file of another kind has the name
        of one of the outputs. Nothing is written then.

    Notes
    -----
    Equal figures give equal bytes: no date, fixed identifiers. A symbolic link at `path` is replaced, not
    followed.
    """
    files = contents(figure, Path(path), csv=csv)
    write_whole(files)
    return tuple(files)


def contents(figure: Figure, target: Path, *, csv: bool = False) -> dict[Path, bytes]:
    """Return path -> content of the files that `save` writes, once it is sure that each may be put there.

    Raises
    ------
    FileError : as `save` does
    """
    kind = target.suffix.lower()
    if kind not in (".png", ".pdf", ".svg"):
        raise FileError(
            f"A figure cannot be saved as '{shown(target.suffix)}', in {shown(target)}; choose a name that ends in "
            ".png, .pdf or .svg"
        )
    makers: dict[Path, Callable[[], bytes]] = {
        target: lambda: rendered(figure, kind[1:]),
        target.with_suffix(".json"): lambda: as_json(drawn(figure)),
    }
    if csv:
        makers[target.with_suffix(".csv")] = lambda: as_csv(drawn(figure))
    for output in makers:
        may_replace(output, _STARTS[output.suffix.lower()])
    return {output: make() for output, make in makers.items()}


def numbered(path: str | os.PathLike[str], index: int, *, title: str = "") -> Path:
    """Return `path` with an index and a short hash of `title` in its name: one of a series of figures.

    A title may come from an untrusted file, so no part of it stands in the name.

    Examples
    --------
    >>> numbered("out/grid.png", 2, title="../../etc/passwd").as_posix()
    'out/grid-002-3754d6cb.png'
    """
    base = Path(path)
    digest = hashlib.sha256(title.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return base.with_name(f"{base.stem}-{index:03d}-{digest}{base.suffix}")
