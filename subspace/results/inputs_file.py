"""An `Inputs` as a safetensors file, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from subspace.checkpoints import TensorFile, open_tensors
from subspace.checkpoints.atomic_writing import one_writer, write_whole
from subspace.checkpoints.strict_json import parse
from subspace.checkpoints.tensor_bytes import StoredTensor, safetensors_bytes
from subspace.errors import FileError, FormatError, SubspaceError, located
from subspace.flags import Flag
from subspace.geometry import lapack
from subspace.geometry.second_moment import SecondMoment
from subspace.results.cells import plain
from subspace.results.columns import columns_of
from subspace.results.inputs import Gradient, Inputs, ModuleInputs
from subspace.text import shown

__all__ = ["inputs_bytes", "load_inputs", "save_inputs", "vectors_bytes"]

_KIND, _VERSION = "subspace.inputs", "1"
_LARGEST = 1e100  # squares of numbers in float32 are below 1e77
_ABOVE = 1.001  # what rounding to float32 may add
_WIDE = 512  # length up to which vectors are stored in float64
_FLAGS = {flag.value: flag for flag in Flag}


def load_inputs(path: str | os.PathLike[str]) -> Inputs:
    """Read what `subspace inputs` wrote: the same result, with its second moments and gradients.

    Parameters
    ----------
    path : of the .safetensors file

    Raises
    ------
    FileError : no such file, or a damaged one
    FormatError : a file of another kind
    """
    file = open_tensors(path)
    if file.metadata.get(_KIND) != _VERSION:
        raise FormatError(
            f"Not a file of inputs: {shown(file.path, longest=1000)}; give one that subspace inputs wrote"
        )
    with located(shown(file.path, longest=1000)):
        try:
            return _read(file, parse(file.metadata["result"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, SubspaceError):
                raise
            raise FormatError(f"The file of inputs is damaged: {shown(error)}; write it again") from error


def _read(file: TensorFile, written: dict[str, Any]) -> Inputs:
    moments = {name: _moment(file, f"input/{name}") for name in written["moments"]}
    names = {each.name for each in columns_of(ModuleInputs)}
    rows = []
    for each in written["modules"]:
        known = {name: value for name, value in each.items() if name in names}
        known["eigenvalues"] = (
            moments[each["read_with"]].values if each["read_with"] in moments else np.zeros(0)
        )
        rows.append(ModuleInputs(**{**known, "flags": tuple(_FLAGS[flag] for flag in each["flags"])}))
    own = {name: written[name] for name in ("model", "data", "model_sha256", "data_sha256", "tokens")}
    gradients = {name: _gradient(file, f"gradient/{name}") for name in written["gradients"]}
    return Inputs(
        **own, modules=tuple(rows), moments=moments, gradients=gradients, notes=tuple(written["notes"])
    )


def _moment(file: TensorFile, stem: str) -> SecondMoment:
    numbers = _finite(file, f"{stem}/numbers")
    tokens, trace, squares, missed = (float(each) for each in numbers)
    mean, values, vectors = (_finite(file, f"{stem}/{name}") for name in ("mean", "values", "vectors"))
    if vectors.shape != (len(mean), len(values)):
        raise _impossible("the shapes", stem)
    if not (tokens >= 0 and 0 <= missed <= _LARGEST and _is_energy(trace) and squares <= _ABOVE * trace**2):
        raise _impossible("the energies", stem)
    if not (_is_energy(values) and _descend(values) and values.sum() <= _ABOVE * trace):
        raise _impossible("the eigenvalues", stem)
    if not (_is_energy(np.abs(mean)) and mean @ mean <= _ABOVE * trace):
        raise _impossible("the mean", stem)
    _require_orthonormal(vectors, stem)
    return SecondMoment(int(tokens), mean, values, vectors, trace, None if squares < 0 else squares, missed)


def _gradient(file: TensorFile, stem: str) -> Gradient:
    S, U, V = (_finite(file, f"{stem}/{name}") for name in "SUV")
    norm = float(file.read_scalar(f"{stem}/norm"))
    if not S.ndim == 1 or not U.ndim == V.ndim == 2 or not U.shape[1] == V.shape[1] == len(S):
        raise _impossible("the shapes", stem)
    if not (_is_energy(norm) and _is_energy(S) and _descend(S) and _ABOVE * norm**2 >= S @ S):
        raise _impossible("the singular values", stem)
    _require_orthonormal(U, stem)
    _require_orthonormal(V, stem)
    return Gradient(S, U, V, norm)


def _is_energy(numbers: Any) -> bool:
    """Whether numbers are such that they and their squares can be energies of activations."""
    return bool(np.all((numbers >= 0) & (numbers <= _LARGEST)))


def _descend(numbers: np.ndarray) -> bool:
    return bool(np.all(numbers[1:] <= numbers[:-1]))


def _require_orthonormal(M: np.ndarray, stem: str) -> None:
    """By one random combination of the columns, as M^T M would take longer than to read the file."""
    z = np.random.default_rng(0).standard_normal(M.shape[1])
    if np.any(np.abs(M) > _ABOVE) or np.linalg.norm(M.T @ (M @ z) - z) > (_ABOVE - 1) * np.linalg.norm(z):
        raise _impossible("the vectors", stem)


def _impossible(what: str, stem: str) -> FormatError:
    return FormatError(
        f"The file of inputs is damaged: {what} of {shown(stem)} do not fit together; write it again"
    )


def _finite(file: TensorFile, key: str) -> np.ndarray:
    found = np.asarray(file.read(key), dtype=np.float64)
    lapack.refuse(found, name=key)
    return found


def inputs_bytes(result: Inputs) -> bytes:
    """Content of the file: eigenvalues and means in float64, vectors in float64 up to d = 512 and in float32 beyond."""
    tensors: dict[str, StoredTensor] = {}
    for name, moment in result.moments.items():
        squares = -1.0 if moment.squares is None else moment.squares
        numbers = np.array([moment.tokens, moment.trace, squares, moment.missed])
        tensors |= _stored(
            f"input/{name}", {"numbers": numbers, "mean": moment.mean, "values": moment.values}
        )
        tensors |= _stored(f"input/{name}", {"vectors": _narrowed(moment.vectors)})
    for name, each in result.gradients.items():
        stored = {"S": each.S, "U": _narrowed(each.U), "V": _narrowed(each.V), "norm": np.array(each.norm)}
        tensors |= _stored(f"gradient/{name}", stored)
    rows = [{k: v for k, v in each.document().items() if k != "eigenvalues"} for each in result.modules]
    written = {
        name: getattr(result, name) for name in ("model", "data", "model_sha256", "data_sha256", "tokens")
    }
    written |= {"modules": rows, "notes": list(result.notes)}
    written |= {"moments": list(result.moments), "gradients": list(result.gradients)}
    return safetensors_bytes(
        tensors, {_KIND: _VERSION, "result": json.dumps(plain(written), allow_nan=False)}
    )


def _narrowed(vectors: Any) -> np.ndarray:
    """Vectors as they are stored."""
    return np.asarray(vectors, dtype=np.float64 if len(vectors) <= _WIDE else np.float32)


def vectors_bytes(d: int, k: int) -> int:
    """Bytes that k vectors of length d take in the file."""
    return d * k * (8 if d <= _WIDE else 4)


def _stored(stem: str, arrays: Mapping[str, np.ndarray]) -> dict[str, StoredTensor]:
    return {f"{stem}/{name}": StoredTensor(M, str(M.dtype)) for name, M in arrays.items()}


def save_inputs(result: Inputs, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a result as a file of inputs, in one step; return its path.

    Raises
    ------
    FileError : the file is there already, or cannot be written; one that was there stays as it was
    """
    place = Path(path)
    with one_writer(place):
        if place.exists() and not overwrite:
            raise FileError(f"{shown(place, longest=1000)} exists already; give another name, or `overwrite`")
        write_whole({place: inputs_bytes(result)})
    return place
