"""Adapters and weights as files that PEFT and others load: written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.checkpoints.atomic_writing import write_whole
from subspace.checkpoints.peft_files import factor_keys, lora_config, peft_files
from subspace.checkpoints.tensor_bytes import StoredTensor, safetensors_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["base_content", "peft_contents", "safetensors_file", "save_base", "save_peft"]


def peft_contents(
    folder: Path, factors: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], *, alpha: float
) -> dict[Path, bytes]:
    """Return path -> content of the files that `save_peft` writes."""
    tensors = {}
    for module, pair in factors.items():
        for key, M in zip(factor_keys(module), pair, strict=True):
            tensors[key] = StoredTensor(np.ascontiguousarray(M, dtype=np.float32), "float32")
    config = lora_config(
        {
            "r": int(next(iter(factors.values()))[0].shape[0]),
            "lora_alpha": alpha,
            "target_modules": sorted({module.rpartition(".")[2] for module in factors}),
        }
    )
    return {folder / name: content for name, content in peft_files(tensors, config).items()}


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
    """
    write_whole(peft_contents(Path(folder), factors, alpha=alpha))
    return Path(folder)


def base_content(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the content of the file that `save_base` writes."""
    small = {
        name: StoredTensor(np.ascontiguousarray(array, dtype=np.float32), "float32")
        for name, array in tensors.items()
    }
    return safetensors_bytes(small, {"format": "pt"})


def save_base(path: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]]) -> Path:
    """Write arrays as one safetensors file, in float32; return its path.

    Raises
    ------
    FileError : the file cannot be written
    """
    write_whole({Path(path): base_content(tensors)})
    return Path(path)


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
