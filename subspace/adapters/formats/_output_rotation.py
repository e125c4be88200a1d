"""OFT and BOFT of LyCORIS and sd-scripts: ``W' = s * (R W)``, which rotates the outputs of a weight in blocks.

OFT has ``oft_blocks`` (blocks, b, b), BOFT of LyCORIS (factors, blocks, b, b), whose skew part is Q in ``R = (I + Q)
(I - Q)^-1``; ``alpha`` bounds the norm of Q, and ``rescale`` is s. sd-scripts has ``oft_blocks.0`` ... for the parts of
a fused layer of Flux. ``delta_W = W' - W`` needs the base.

References
----------
KohakuBlueleaf/LyCORIS 4.1, functional/diag_oft.py: ``get_r``, ``diff_weight``; functional/boft.py: ``diff_weight``;
modules/diag_oft.py, modules/boft.py: ``constraint``. kohya-ss/sd-scripts, networks/oft.py: ``OFTModule.get_weight``;
networks/oft_flux.py: ``split_dims``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.format import Source
from subspace.adapters.formats import _multiplicative as multiplicative
from subspace.adapters.formats import _rotation as rotation
from subspace.adapters.update import DenseUpdate
from subspace.errors import ShapeError
from subspace.flags import Flag

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PARTS", "is_rotation", "update"]

_MOST = 8  # parts of a fused layer; Flux has four at most
_NAMES = ("oft_blocks", *(f"oft_blocks.{n}" for n in range(_MOST)))
PARTS = {f".{name}": name for name in (*_NAMES, "rescale")}
_SD_SCRIPTS = "oft_unet"  # what its names begin with; LyCORIS' begin with lora_ or lycoris_
_SMALL = 1e-8


@dataclass(frozen=True)
class _Rotation:
    """How a weight is rotated: R of each part of its rows, and s.

    Attributes
    ----------
    shapes : of the tensors in the file, one per part: (blocks, b, b), or (factors, blocks, b, b) of BOFT
    load : -> R of each part
    scaling : -> s (out,), None where rows are not rescaled
    """

    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    load: Callable[[], list[NDArray[Any]]]
    scaling: Callable[[], NDArray[Any]] | None

    @property
    def outputs(self) -> int:
        return sum(shape[-3] * shape[-1] for shape in self.shapes)

    def change(self) -> NDArray[Any]:
        """``R - I``, then ``s - 1``, in one vector: what is known without the weight."""
        numbers = [(R - np.eye(R.shape[-1])).ravel() for R in self.load()]
        return np.concatenate(numbers if self.scaling is None else [*numbers, self.scaling() - 1.0])

    def delta(self, W: NDArray[Any]) -> NDArray[Any]:
        """``s * (R W) - W`` for W (d_out, d_in) in float64."""
        turned, start = np.empty_like(W), 0
        for R in self.load():
            stop = start + R.shape[-3] * R.shape[-1]
            turned[start:stop] = _turned(R, W[start:stop])
            start = stop
        change: NDArray[Any] = (turned if self.scaling is None else turned * self.scaling()[:, None]) - W
        return change


def is_rotation(keys: Mapping[str, str]) -> bool:
    """Whether a module has blocks of a rotation."""
    return any(name in keys for name in _NAMES)


def update(module: str, keys: Mapping[str, str], source: Source) -> DenseUpdate:
    """The update of one module, with the flag "needs_base" where there is no base.

    Raises
    ------
    ShapeError : the blocks are not square, or do not divide the rows of the base weight
    """
    turn = _rotation(module, keys, source)
    flag = Flag.BOFT if len(turn.shapes[0]) == 4 else Flag.OFT
    conv = "rescale" in keys and len(source.shape(keys["rescale"])) > 2
    kind = "conv" if conv else "linear"
    weight = multiplicative.site(module, source, size=turn.outputs, side="out", kind=kind)
    if weight is None:
        return multiplicative.unbound(
            module, turn.change, source, shape=(turn.outputs, 0), dtype=turn.dtype, flag=flag, kind=kind
        )
    return multiplicative.bound(module, weight, turn.delta, source, dtype=turn.dtype, flag=flag, kind=kind)


def _rotation(module: str, keys: Mapping[str, str], source: Source) -> _Rotation:
    found = [keys[name] for name in _NAMES if name in keys]
    shapes = tuple(source.shape(key) for key in found)
    for shape in shapes:
        _require_blocks(shape, module, source, several=len(shapes) > 1)
    alpha = source.tensors.read_scalar(keys["alpha"]) if "alpha" in keys else None
    sd_scripts = module.startswith(_SD_SCRIPTS)

    def load() -> list[NDArray[Any]]:
        blocks = (source.tensors.read(key).astype(np.float64) for key in found)
        return [_orthogonal(each, alpha, sd_scripts=sd_scripts) for each in blocks]

    scaling = None
    if "rescale" in keys:
        s = source.factor(keys["rescale"])
        outputs = sum(shape[-3] * shape[-1] for shape in shapes)
        if s.shape[0] * s.shape[1] != outputs:
            raise ShapeError(
                f"rescale has {s.shape[0] * s.shape[1]} numbers for {outputs} rows, in {source.place(module)}; the "
                "file is damaged"
            )

        def scaling() -> NDArray[Any]:
            return s.load().reshape(-1).astype(np.float64)

    return _Rotation(shapes, source.factor(found[0]).dtype, load, scaling)


def _require_blocks(shape: tuple[int, ...], module: str, source: Source, *, several: bool) -> None:
    """Raise `ShapeError` unless a tensor holds square blocks, in factors whose halves can be exchanged."""
    fits = len(shape) in ((3,) if several else (3, 4)) and shape[-1] == shape[-2] and 0 not in shape
    if fits and len(shape) == 4:
        factors, n, b, _ = shape
        # factor i mixes rows that are 2^i * b / 2 apart, in groups of twice as many
        fits = b % 2 == 0 and factors < 64 and n % 2 ** (factors - 1) == 0
    if not fits:
        raise ShapeError(
            f"oft_blocks does not have the shape (blocks, b, b) or (factors, blocks, b, b): it is {list(shape)}, in "
            f"{source.place(module)}"
        )


def _orthogonal(blocks: NDArray[Any], alpha: float | None, *, sd_scripts: bool) -> NDArray[Any]:
    """R of the blocks: ``R W`` is the rotated weight."""
    Q = blocks - np.swapaxes(blocks, -1, -2)
    if alpha is not None:
        rows = blocks.shape[-3] * blocks.shape[-1]
        Q = Q * _shortened(float(np.sqrt(np.sum(Q * Q))), alpha * rows, sd_scripts=sd_scripts)
    R = rotation.cayley(-Q)
    # OFT multiplies by the transposed blocks, BOFT by the blocks
    return R if blocks.ndim == 4 else np.swapaxes(R, -1, -2)


def _shortened(norm: float, longest: float, *, sd_scripts: bool) -> float:
    """What Q is multiplied by so that its norm is at most `longest`; in LyCORIS 0 is no bound."""
    if sd_scripts:
        return (min(norm, longest) + _SMALL) / (norm + _SMALL)
    norm += _SMALL
    return longest / norm if 0 < longest < norm else 1.0


def _turned(R: NDArray[Any], W: NDArray[Any]) -> NDArray[Any]:
    """``R W`` by blocks of rows; of a butterfly one factor after the other."""
    n, m = W.shape
    if R.ndim == 3:
        turned: NDArray[Any] = R @ W.reshape(R.shape[0], R.shape[1], m)
        return turned.reshape(n, m)
    for i, factor in enumerate(R):
        k = 2**i * R.shape[-1] // 2
        # rows j and j + k come together, are rotated in blocks and go back
        mixed = W.reshape(-1, 2, k, m).swapaxes(1, 2).reshape(R.shape[1], R.shape[2], m)
        W = (factor @ mixed).reshape(-1, k, 2, m).swapaxes(1, 2).reshape(n, m)
    return W
