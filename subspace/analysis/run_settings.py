"""Settings of the run that trained an adapter, as the ``run.json`` in its directory has them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from subspace.adapters import Adapter
from subspace.checkpoints import read_json
from subspace.errors import SubspaceError, ValueRangeError
from subspace.text import listed, shown

__all__ = ["common_setting", "run_settings"]

_SCHEMA = "subspace.train/"


def run_settings(source: Any) -> dict[str, Any] | None:
    """Return the settings of the run that an adapter, or a checkpoint of it, is of; None where nothing says so.

    Parameters
    ----------
    source : an adapter as `load_adapter` takes it; only a path, and what was read from one, has a directory
    """
    path = source.path if isinstance(source, Adapter) else source
    if not isinstance(path, str | bytes | os.PathLike):
        return None
    place = Path(os.fsdecode(path))
    folder = place if place.is_dir() else place.parent
    for each in (folder, folder.absolute().parent):
        if (each / "run.json").is_file():
            return _settings(each / "run.json")
    return None


def _settings(path: Path) -> dict[str, Any] | None:
    try:
        record = read_json(path)
    except SubspaceError:  # whatever it is, it is no record of a run
        return None
    settings = record.get("settings")
    if not str(record.get("schema")).startswith(_SCHEMA) or not isinstance(settings, dict):
        return None
    return settings


def common_setting(runs: Sequence[Mapping[str, Any]], name: str, default: Any = None) -> Any:
    """Return the value that a setting has in all runs, the default where no run has it.

    Raises
    ------
    ValueRangeError : the runs have different values
    """
    values = [run[name] for run in runs if name in run]
    if any(value != values[0] for value in values):
        different = dict.fromkeys(shown(repr(value)) for value in values)
        raise ValueRangeError(
            f"The adapters were trained with different settings of {name}: {listed(different)}; give `{name}`"
        )
    return values[0] if values else default
