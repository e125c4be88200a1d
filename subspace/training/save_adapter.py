"""Adapters and weights as files that PEFT and others load: written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.checkpoints.atomic_writing import write_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["safetensors_file", "save_base", "save_peft"]


def save_peft(
    folder: str | os.PathLike[str], factors: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], *, alpha: float
) -> Path:
    """Write factors (A, B) by module as a PEFT directory, in float32; return its path.

    Parameters
    ----------
    folder : the directory, which is made where it is missing
    factors : module -> (A (r, d_in), B (d_out, r)), of one rank
    alpha : ``lora_alpha``: delta_W = alpha / r * B @ A

    Raises
    ------
    FileError : the directory cannot be written

    References
    ----------
    peft/utils/save_and_load.py, ``get_peft_model_state_dict``, for the keys.
    """
    path = Path(folder)
    tensors = {}
    for module, (A, B) in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = A
        tensors[f"base_model.model.{module}.lora_B.weight"] = B
    config = {
        "peft_type": "LORA",
        "r": int(next(iter(factors.values()))[0].shape[0]),
        "lora_alpha": alpha,
        "target_modules": sorted({module.rpartition(".")[2] for module in factors}),
        "bias": "none",
        "fan_in_fan_out": False,
    }
    write_whole(
        {
            path / "adapter_model.safetensors": _safetensors(tensors),
            path / "adapter_config.json": (json.dumps(config, indent=2) + "\n").encode(),
        }
    )
    return path


def save_base(path: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]]) -> Path:
    """Write arrays as one safetensors file, in float32; return its path.

    Raises
    ------
    FileError : the file cannot be written
    """
    write_whole({Path(path): _safetensors(tensors)})
    return Path(path)


def _safetensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    from safetensors.numpy import save

    small = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in tensors.items()}
    return bytes(save(small, metadata={"format": "pt"}))


def safetensors_file(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the content of a safetensors file; tensors that share their storage are each written in full.

    Parameters
    ----------
    tensors : by name
    metadata : strings in the file's header
    """
    from safetensors.torch import save

    whole: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in tensors.items():
        plain = value.detach().cpu().contiguous()
        whole[name] = plain.clone() if plain.data_ptr() in seen else plain
        seen.add(plain.data_ptr())
    return bytes(save(whole, metadata={"format": "pt", **(metadata or {})}))
