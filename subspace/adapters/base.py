"""Weights of the base model by module name: found, oriented and read one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.naming import same_module
from subspace.adapters.update import Factor, Update
from subspace.errors import FileError, FormatError, InconclusiveError, ShapeError, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.checkpoints import StoredMatrix, TensorFile

__all__ = ["BaseWeight", "BaseWeights", "load_base", "weights_by_module"]

_SINGLE = ("model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_CONV1D_MODELS = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "gpt_bigcode", "gptj_conv1d"}
_CONV1D_NAMES = {"c_attn", "c_proj", "c_fc", "q_attn"}
_QUANTISED = {
    "qweight": "GPTQ or AWQ (qweight)",
    "weight.SCB": "bitsandbytes int8 (SCB)",
    "SCB": "bitsandbytes int8 (SCB)",
    "weight.absmax": "bitsandbytes 4-bit (absmax)",
}


@dataclass(frozen=True)
class BaseWeight:
    """One weight of the base model in the orientation of its update.

    Attributes
    ----------
    key : its name in the file
    stored : the matrix as it lies in the file
    transposed : whether the file holds (d_in, d_out)
    orientation : how that was decided, for the user
    rows : the rows of W (d_out side) that the update covers, None for all
    """

    key: str
    stored: StoredMatrix
    transposed: bool
    orientation: str
    rows: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of the rows that the update covers."""
        n, m = self.stored.shape
        d_out, d_in = (m, n) if self.transposed else (n, m)
        return (d_out if self.rows is None else self.rows[1] - self.rows[0], d_in)

    def matrix(self, dtype: Any = np.float32) -> NDArray[Any]:
        """The weight as stored (transposed if `transposed`), cut to the rows of the update, in `dtype`."""
        whole = self.stored.full(dtype)
        if self.rows is None:
            return whole
        start, stop = self.rows
        return np.ascontiguousarray(whole[:, start:stop]) if self.transposed else whole[start:stop]

    def streamed(self) -> Any:
        """What streaming code reads row by row: the stored matrix, or the cut one where the update is a group."""
        return self.stored if self.rows is None else self.matrix()

    def factor(self) -> Factor:
        """W (d_out, d_in) as a matrix read when asked for."""
        return Factor(
            self.shape, self.stored.dtype, lambda: self.matrix().T if self.transposed else self.matrix()
        )


@dataclass(frozen=True)
class BaseWeights:
    """The weights of a base model; `tensors` is not read until a weight is asked for."""

    path: str
    tensors: TensorFile
    model_type: str | None = None
    modules: Mapping[str, str] = field(default_factory=dict)
    seen_transposed: dict[str, bool] = field(default_factory=dict)

    def find(self, module: str) -> str | None:
        """Key of a module's weight, None if the base has no such module.

        Raises
        ------
        FormatError : the name fits several modules, or the weight is quantised
        """
        name = module.partition("[")[0]
        if len(self.modules) == 1 and ("" in self.modules or name == ""):
            return next(iter(self.modules.values()))
        hits = same_module(name, self.modules)
        if len(hits) > 1:
            listed = ", ".join(shown(hit) for hit in hits[:4])
            raise FormatError(
                f"a module must be one of the base: {shown(module)} could be {listed}, in {shown(self.path)}"
            )
        if hits:
            return self.modules[hits[0]]
        self._refuse_packed(name)
        return None

    def _refuse_packed(self, name: str) -> None:
        for suffix, what in _QUANTISED.items():
            hits = [k for k in self.tensors.layout if k.endswith(f"{name}.{suffix}")]
            if hits:
                raise _quantised(hits[0], what, self.path)

    def weight(self, update: Update) -> BaseWeight | None:
        """The weight that an update belongs to, None if the base lacks it.

        Raises
        ------
        ShapeError : the weight fits the update in neither orientation
        FormatError : the weight is quantised or ambiguous
        InconclusiveError : which group of a fused layer the update is, is not known
        """
        key = self.find(update.module)
        if key is None:
            return None
        self._refuse_quantised(key)
        stored = self.tensors.stored(key)
        if "group_unknown" in update.flags:
            raise InconclusiveError(
                f"the groups of a fused layer must be known: {shown(update.module)} is one of several in "
                f"{shown(key)}; say which are adapted with --enable-lora, e.g. 1,0,1 for q and v"
            )
        wanted = (update.rows and _fused_rows(stored.shape, update)) or update.d_out, update.d_in
        transposed, why = self._orientation(stored.shape, wanted, key, update)
        return BaseWeight(key, stored, transposed, why, update.rows)

    def _orientation(
        self, shape: tuple[int, int], wanted: tuple[int, int], key: str, update: Update
    ) -> tuple[bool, str]:
        plain, turned = shape == wanted, shape == wanted[::-1]
        if not (plain or turned):
            raise ShapeError(
                f"a base weight must have the shape of its update: got {list(shape)} for {shown(key)} and "
                f"delta_W {[update.d_out, update.d_in]} for module {shown(update.module)}, in {shown(self.path)}; "
                "is it the adapter's base model?"
            )
        if plain and turned:
            return self._square(key, update)
        if update.kind == "embedding":
            return turned, "an embedding, stored (tokens, d_out)"
        return (
            turned,
            "stored (d_in, d_out), by its shape" if turned else "stored (d_out, d_in), by its shape",
        )

    def _square(self, key: str, update: Update) -> tuple[bool, str]:
        """A square weight does not say how it is stored: ask what else does."""
        name = update.module.rpartition(".")[2]
        if update.kind == "embedding":
            return True, "an embedding, stored (tokens, d_out)"
        if self.model_type is not None:
            turned = self.model_type in _CONV1D_MODELS and name in _CONV1D_NAMES
            return (
                turned,
                f"square: {'stored (d_in, d_out)' if turned else 'stored (d_out, d_in)'}, by the model type",
            )
        siblings = {self._stored_transposed(k) for k in self.modules.values() if _is_conv1d(k)}
        if _is_conv1d(key) and siblings - {None}:
            turned = True in siblings
            return turned, "square: as the other Conv1D weights of the base"
        if update.fan_in_fan_out:
            return True, "square: stored (d_in, d_out), by fan_in_fan_out of the configuration"
        return False, "square: taken as stored (d_out, d_in)"

    def _stored_transposed(self, key: str) -> bool | None:
        """Whether a GPT-2 style c_attn or c_fc is stored (d_in, d_out): its larger side is the output."""
        shape = self.tensors.layout[key].shape
        name = key.removesuffix(".weight").rpartition(".")[2]
        if name not in {"c_attn", "c_fc"} or len(shape) != 2 or shape[0] == shape[1]:
            return None
        return shape[1] > shape[0]

    def _refuse_quantised(self, key: str) -> None:
        dtype = self.tensors.layout[key].dtype
        if dtype.startswith(("float", "bfloat")):
            return
        stem = key.removesuffix(".weight")
        beside = [what for suffix, what in _QUANTISED.items() if f"{stem}.{suffix}" in self.tensors.layout]
        raise _quantised(key, beside[0] if beside else f"{dtype} numbers", self.path)


def _quantised(key: str, what: str, path: str) -> FormatError:
    return FormatError(
        f"a base weight must be stored as floating point numbers: {shown(key)} is quantised, {what}, in {shown(path)}; "
        "dequantise the model first"
    )


def _is_conv1d(key: str) -> bool:
    return key.removesuffix(".weight").rpartition(".")[2] in _CONV1D_NAMES


def _fused_rows(shape: tuple[int, int], update: Update) -> int | None:
    """d_out of the whole fused layer: the side of the stored weight that is not d_in and holds the rows."""
    assert update.rows is not None
    sides = [side for side, other in (shape, shape[::-1]) if other == update.d_in and side >= update.rows[1]]
    return max(sides) if sides else None


def load_base(source: Any) -> BaseWeights:
    """Open base weights; nothing but headers is read.

    Parameters
    ----------
    source : one matrix (``.npy``, ``.pt``, ``.safetensors``), a file of weights, a sharded directory or its index,
        a Hugging Face model directory, a mapping of arrays, a matrix in memory, an ``nn.Module``, or a `BaseWeights`

    Raises
    ------
    FileError, FormatError : the file cannot be read, or holds no matrix
    """
    from subspace import checkpoints

    if isinstance(source, BaseWeights):
        return source
    if hasattr(source, "state_dict"):
        source = dict(source.state_dict())
    if isinstance(source, Mapping):
        tensors, model_type = checkpoints.from_memory(source), None
    elif isinstance(source, str | os.PathLike):
        tensors, model_type = _opened(Path(source))
    else:
        tensors, model_type = checkpoints.from_memory({"": source}), None
    modules = dict(weights_by_module(tensors.layout.items()))
    if not modules:
        raise FormatError(
            f"a base must hold at least one matrix: {shown(tensors.path, longest=1000)} has none"
        )
    return BaseWeights(tensors.path, tensors, model_type, modules)


def weights_by_module(layout: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, str]]:
    """(module, key) of every tensor that can be a weight."""
    for key, info in layout:
        if len(info.shape) >= 2:
            module = key.removesuffix(".weight").removesuffix(".base_layer").removeprefix("base_model.model.")
            yield module if key.endswith(".weight") or "." in key else "", key


def _opened(path: Path) -> tuple[TensorFile, str | None]:
    from subspace import checkpoints

    if not path.is_dir():
        if path.name.endswith(".index.json"):
            return checkpoints.open_index(str(path)), _model_type(path.parent)
        return checkpoints.open_tensors(str(path)), _model_type(path.parent)
    names = set(os.listdir(path))
    for index in _INDEXES:
        if index in names:
            return checkpoints.open_index(str(path / index)), _model_type(path)
    for name in _SINGLE:
        if name in names:
            return checkpoints.open_tensors(str(path / name)), _model_type(path)
    others = sorted(n for n in names if n.endswith((".safetensors", ".bin", ".pt", ".npy")))
    if len(others) == 1:
        return checkpoints.open_tensors(str(path / others[0])), _model_type(path)
    raise FileError(
        f"a base directory must hold model.safetensors, an index of shards or one file of weights: got "
        f"{shown(', '.join(others[:8])) or 'none of them'}, in {shown(path, longest=1000)}"
    )


def _model_type(folder: Path) -> str | None:
    from subspace import checkpoints

    config = folder / "config.json"
    if not config.is_file():
        return None
    value = checkpoints.read_json(str(config)).get("model_type")
    return value if isinstance(value, str) else None
