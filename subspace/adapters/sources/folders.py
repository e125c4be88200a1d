"""Which file of an adapter's directory holds the weights, and which of its folders hold other adapters."""

# ruff: noqa: PTH112, PTH118 - a command that reads one adapter need not wait for pathlib

from __future__ import annotations

import os

from subspace.adapters.keys.pairs import in_order
from subspace.errors import FileError, FormatError, shown

__all__ = ["ADAPTER_WEIGHTS", "CONFIG", "SUFFIXES", "WEIGHTS", "weights_in"]

CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = (
    "adapter_model.safetensors",
    "adapter_model.bin",
    "pytorch_lora_weights.safetensors",
    "pytorch_lora_weights.bin",
    "adapters.safetensors",
    "lit_model.pth.lora",
)
WEIGHTS = (
    *ADAPTER_WEIGHTS,
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
    "model.safetensors",
    "pytorch_model.bin",
)
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".npz", ".npy", ".gguf", ".pth.lora")
# what a trainer leaves beside the weights
_NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")
_DEFAULT = "default"


def weights_in(folder: str, adapter_name: str | None = None) -> str:
    """The one weights file of an adapter's directory, safetensors first.

    PEFT writes the adapter "default" into the directory and every other one into a folder of its name below.

    Raises
    ------
    FileError : there is none, or which of several files it is cannot be told
    FormatError : there are several adapters and none was chosen, or not one of them
    """
    names = _listed(folder)
    if adapter_name is not None and adapter_name in names and adapter_name in _adapters_below(folder, names):
        return weights_in(os.path.join(folder, adapter_name))
    others = sorted(n for n in names if n.lower().endswith(SUFFIXES) and not n.startswith(_NO_WEIGHTS))
    found = next((name for name in WEIGHTS if name in names), others[0] if len(others) == 1 else None)
    if found is not None:
        _require_default(folder, names, adapter_name)
        return os.path.join(folder, found)
    below = [] if others else _adapters_below(folder, names)
    if len(below) == 1 and adapter_name is None:
        return weights_in(os.path.join(folder, below[0]))
    if below:
        raise _not_chosen(folder, below)
    told = f"got {len(others)} ({shown(', '.join(others[:8]))})" if others else "got none"
    raise FileError(
        f"an adapter's directory must hold adapter_model.safetensors or one file of weights: {told}, "
        f"in {shown(folder, longest=1000)}; name the file"
    )


def _listed(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError as error:
        raise FileError(
            f"an adapter's directory must be readable: {shown(folder, longest=1000)}: {error.strerror}"
        ) from error


def _adapters_below(folder: str, names: set[str]) -> list[str]:
    """Folders that hold an adapter, in the order of their names."""
    wanted = {CONFIG, *ADAPTER_WEIGHTS}
    folders = [name for name in names if os.path.isdir(os.path.join(folder, name))]
    return in_order(name for name in folders if wanted & _listed(os.path.join(folder, name)))


def _require_default(folder: str, names: set[str], adapter_name: str | None) -> None:
    """Refuse a name that is not there, where the names of the other adapters are known from their folders."""
    if adapter_name is None or adapter_name == _DEFAULT:
        return
    below = [name for name in _adapters_below(folder, names) if not name.startswith("checkpoint-")]
    if below:
        raise _not_chosen(folder, [_DEFAULT, *below])


def _not_chosen(folder: str, names: list[str]) -> FormatError:
    listed = ", ".join(shown(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
    return FormatError(
        f"one adapter must be chosen: {shown(folder, longest=1000)} holds {len(names)} ({listed}); "
        "give one with --adapter-name"
    )
