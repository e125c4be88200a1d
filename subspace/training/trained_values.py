"""The values that a finished run trained, from its files back into the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from subspace.checkpoints import open_tensors
from subspace.checkpoints.peft_files import PREFIX
from subspace.errors import FileError
from subspace.text import shown
from subspace.training.adapted_layer import AdaptedLayer
from subspace.training.injection import adapted
from subspace.training.loading import tensor_of
from subspace.training.methods._group_rows import parted
from subspace.training.methods._low_rank import LowRank

__all__ = ["restore"]


@torch.no_grad()
def restore(model: nn.Module, folder: Path, files: Callable[[], Mapping[str, bytes]]) -> None:
    """Give what is trained of a model the values in the files of its run.

    Parameters
    ----------
    model : as the run had it before its first step
    folder : of the run, which is done
    files : gives what the run would write of the model as it is

    Raises
    ------
    FileError : they cannot be read, or what the model would write then is not what was written
    """
    name = next(name for name in files() if not name.endswith(".json"))
    content, stored = _content(folder / name), _read(folder / name)
    state = model.state_dict()  # which shares the storage of the model
    for key, value in stored.items():
        place = state.get(key.removeprefix(PREFIX))
        if place is not None and place.shape == value.shape:
            place.copy_(value)
    _put_factors(model, stored)
    if files()[name] != content:
        raise FileError(
            f"The trained values in {shown(folder / name, longest=1000)} cannot be put back into the model; begin anew "
            "with `overwrite`"
        )


def _put_factors(model: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Give the adapters their values from PEFT's names for them."""
    for name, layer in adapted(model):
        if layer.active is None:
            continue
        method, found = layer.methods[layer.active], dict[str, Tensor]()
        for part, place in method.peft_tensors(layer, layer.active).items():
            value = stored.get(f"{PREFIX}{name}.{part}")
            if value is not None and value.shape == place.shape:
                place.copy_(value)  # where the file has it as the layer does
                found[part] = value.to(place.device)
        if isinstance(method, LowRank) and found:
            _put_pair(layer, method, found)


def _put_pair(layer: AdaptedLayer, method: LowRank, found: Mapping[str, Tensor]) -> None:
    """Give a layer A and B, of which PEFT's file may hold those of all groups as one, and the start with them."""
    A, B = (found.get(f"lora_{part}.weight", found.get(f"lora_embedding_{part}")) for part in "AB")
    if A is None or B is None:
        return
    if method.groups and layer.layer_kind != "conv":
        B = parted(layer, method, B)
    if method.of_weight:
        A, B = torch.cat([both[: method.r] for both in A.split(2 * method.r)]), B[:, : method.r]
    held = layer.factors(layer.active or "")
    held["lora_A"].copy_(A)
    held["lora_B"].copy_(B)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(
            f"Cannot read {shown(path, longest=1000)}: {error.strerror}; begin anew with `overwrite`"
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    file = open_tensors(path)
    return {key: tensor_of(file, key) for key in file.layout}
