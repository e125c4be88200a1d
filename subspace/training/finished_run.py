"""A run that is done: what is known of it, and what is still to be done for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subspace.errors import FileError, SubspaceError
from subspace.text import shown
from subspace.training.content import file_sha256
from subspace.training.run_costs import unmeasured
from subspace.training.run_folder import RunFolder

__all__ = ["Run", "complete"]


@dataclass(frozen=True)
class Run:
    """A run that is finished.

    Attributes
    ----------
    path : its directory; None of a model that was trained without one
    resumed : the step that it went on from; 0 for one that began anew, all steps for one that was done already
    record : content of its ``run.json``
    files : the files that were written at its end; () where it was done already
    """

    path: Path | None
    resumed: int
    record: dict[str, Any]
    files: tuple[Path, ...]


def complete(
    folder: RunFolder, wanted: bool, measure: Callable[[], None], tell: Callable[[str], None]
) -> None:
    """Measure the costs of a run that is done, where they are not known, and remove what a kill left in its directory.

    Parameters
    ----------
    folder : of the run
    wanted : whether its costs are to be measured
    measure : does so, and writes them
    tell : called with a note where they cannot be measured

    Raises
    ------
    FileError : the weights that it wrote are damaged
    """
    _require_undamaged(folder)
    missing = wanted and "accounts" not in folder.record
    try:
        with folder.finished():
            if (
                missing and "accounts" not in folder.record
            ):  # which another process may have measured meanwhile
                measure()
    except SubspaceError as error:
        if missing:
            tell(unmeasured(error))


def _require_undamaged(folder: RunFolder) -> None:
    """Refuse weights that are not as they were written; a configuration may have been edited since."""
    for name, digest in folder.record.get("sha256", {}).items():
        if not name.endswith(".json") and file_sha256(folder.path / name) != digest:
            raise FileError(
                f"The result of the run is damaged: {shown(folder.path / name, longest=1000)} is not what was written; "
                "remove it, and the same command trains it again"
            )
