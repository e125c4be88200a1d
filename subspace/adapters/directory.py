"""The file of an adapter's weights for what a user names: a file, a directory, or a repository of the hub."""

# ruff: noqa: PTH112, PTH118, PTH119, PTH120 - a command that reads one adapter need not wait for pathlib

from __future__ import annotations

import os

from subspace.adapters.choice import undecided
from subspace.adapters.naming.sorting import in_order
from subspace.checkpoints.weights_files import (
    ADAPTER_WEIGHTS,
    CONFIG,
    adapter_files,
    adapter_weights,
    weights_files,
)
from subspace.embedded_base import embedded_or
from subspace.errors import FileError, FormatError, UnrecognisedError
from subspace.text import counted, listed, shown

__all__ = ["adapters_in", "located_weights", "no_adapter_itself"]

_DEFAULT = "default"
_MOST = 12  # paths that a message lists
_AT_WORK = ".subspace-"  # beginning of the names of `subspace.checkpoints.sole_writer`


def located_weights(path: str, adapter_name: str | None = None) -> str:
    """The file of weights that a path stands for; a repository of the hub is downloaded.

    Parameters
    ----------
    path : a file, a directory, its adapter_config.json, ``hf://org/name[@revision][:inside]``, or that without hf://
        where no such path exists
    adapter_name : which adapter of a directory that holds several

    Raises
    ------
    FileError : there is none, or several and no telling which is the adapter
    FormatError : there are several adapters and none was chosen, or none has the name that was given
    """
    if path.startswith("hf://") or not os.path.lexists(path):
        from subspace import hub

        path = hub.local(embedded_or(path), _chosen)
    if os.path.basename(path) == CONFIG:
        path = os.path.dirname(path) or os.curdir
    # isdir is False where pathlib would raise, for a name that is too long
    return _weights_in(path, adapter_name) if os.path.isdir(path) else path


def _chosen(names: list[str], inside: str, path: str) -> list[str]:
    """The files of the one adapter of a repository."""
    wanted = adapter_files(names, inside)
    if not wanted:
        raise UnrecognisedError(
            f"No adapter in the repository {shown(path)}, which holds {listed(names, most=8, empty='no files')}; "
            f"name a folder or file of it: {shown(path.partition(':')[0])}:NAME"
        )
    weights = weights_files([name for name in wanted if "/" not in name.removeprefix(f"{inside}/")])
    if len(weights) > 1:
        raise FormatError(
            f"{len(weights)} adapters in the repository {shown(path)}: {listed(weights, most=8)}; name one behind a "
            "colon, org/name:FILE"
        )
    return wanted


def _weights_in(folder: str, adapter_name: str | None = None) -> str:
    """The one weights file of an adapter's directory, safetensors first.

    PEFT writes the adapter "default" into the directory and every other one into a folder of its name below.
    """
    names = _listed(folder)
    if any(name.startswith(_AT_WORK) and name.endswith(".ready") for name in names):
        from subspace.checkpoints.folder_swap import half_written

        raise half_written(folder)
    if adapter_name is not None and adapter_name in names and adapter_name in _adapters_below(folder, names):
        return _weights_in(os.path.join(folder, adapter_name))
    found = adapter_weights(names)
    if found is not None:
        _require_default(folder, names, adapter_name)
        return os.path.join(folder, found)
    others = weights_files(names)
    below = [] if others else _adapters_below(folder, names)
    if len(below) == 1 and adapter_name is None:
        return _weights_in(os.path.join(folder, below[0]))
    if below:
        raise undecided(below, shown(folder, longest=1000), wanted=adapter_name)
    if others:
        raise FileError(
            f"Cannot tell which file is the adapter: {shown(folder, longest=1000)} holds {len(others)} files "
            f"of weights; give one of these paths: {listed(adapters_in(folder), most=_MOST)}"
        )
    raise FileError(
        f"No adapter in the directory {shown(folder, longest=1000)}: it holds no file of weights; give the directory "
        "or the file of an adapter"
    )


def adapters_in(folder: str) -> list[str]:
    """Paths of what may be adapters in a directory that is not one itself: folders that hold one, files of weights."""
    names = _listed(folder)
    if adapter_weights(names) in (*ADAPTER_WEIGHTS,):
        return [folder]
    below = _adapters_below(folder, names)
    return [os.path.join(folder, name) for name in (*below, *in_order(weights_files(names)))]


def no_adapter_itself(source: object) -> UnrecognisedError | None:
    """The error of a directory that is not an adapter, but holds some in folders of their own; None without any."""
    if not isinstance(source, str | os.PathLike) or not os.path.isdir(source):
        return None
    folder = os.fspath(source)
    below = _adapters_below(folder, _listed(folder))
    if not below:
        return None
    return UnrecognisedError(
        f"The directory {shown(folder, longest=1000)} is not an adapter, but holds {counted(len(below), 'adapter')}; "
        f"give one of these paths: {listed((os.path.join(folder, name) for name in below), most=_MOST)}"
    )


def _listed(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError as error:
        raise FileError(
            f"Cannot read the directory {shown(folder, longest=1000)}: {error.strerror}"
        ) from error


def _adapters_below(folder: str, names: set[str]) -> list[str]:
    """Folders that hold an adapter, in the order of their names."""
    wanted = {CONFIG, *ADAPTER_WEIGHTS}
    folders = [
        name for name in names if not name.startswith(_AT_WORK) and os.path.isdir(os.path.join(folder, name))
    ]
    return in_order(name for name in folders if wanted & _listed(os.path.join(folder, name)))


def _require_default(folder: str, names: set[str], adapter_name: str | None) -> None:
    """Raise `FormatError` for a name that no adapter has, where folders say which names there are."""
    if adapter_name is None or adapter_name == _DEFAULT:
        return
    below = [name for name in _adapters_below(folder, names) if not name.startswith("checkpoint-")]
    if below:
        raise undecided([_DEFAULT, *below], shown(folder, longest=1000), wanted=adapter_name)
