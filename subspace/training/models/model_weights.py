"""The weights of a base as float32 tensors, read as every file here is read: no code in a file is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from subspace.checkpoints import TensorFile, open_weights
from subspace.checkpoints.weights_files import model_weights
from subspace.checkpoints.widening import FLOATS
from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["read_weights"]


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of a base under its stored name; all floating types as float32.

    Raises
    ------
    FileError : a file is missing or damaged
    UnsafeFileError : a file asks for something that no weights need
    FormatError : a tensor is of a type that NumPy cannot hold
    """
    name = model_weights([entry.name for entry in folder.iterdir()], only_known=True)
    file = open_weights(folder / (name or ""))
    return {key: _tensor(file, key) for key in file.layout}


def _tensor(file: TensorFile, key: str) -> Tensor:
    dtype = file.info(key).dtype
    if dtype in FLOATS:
        # copied: a view of the file is read-only, and two names may share one storage
        return torch.from_numpy(np.array(file.read(key), dtype=np.float32))
    if "int" in dtype or dtype == "bool":
        return torch.from_numpy(np.array(file.raw(key)))
    raise FormatError(
        f"Cannot load the tensor {shown(key)}: {shown(dtype)} is no type of real numbers, in {shown(file.path)}; "
        "save it in a floating type"
    )
