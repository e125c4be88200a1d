"""OFT and BOFT of PEFT: ``W' = s * (W R^T)`` with a rotation R of the inputs in blocks.

OFT has ``oft_R.weight`` (blocks, b (b - 1) / 2), the upper triangles of skew matrices, BOFT ``boft_R`` (factors,
blocks, b, b) and ``boft_s`` (out, 1). ``delta_W = W' - W`` needs the base. Files of PEFT before 0.16 (``oft_r``) and
embeddings are not supported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subspace.adapters.format import Format, Ignored, Reading, Source
from subspace.adapters.formats import _multiplicative as multiplicative
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats import _peft_keys as peftkeys
from subspace.adapters.formats import _rotation as rotation
from subspace.adapters.formats._rotation import Rotation
from subspace.adapters.update import DenseUpdate
from subspace.checkpoints.peft_files import PREFIX
from subspace.errors import FormatError, ShapeError
from subspace.flags import Flag
from subspace.text import shown

__all__ = ["FORMAT"]

_OFT = peftkeys.pattern("oft_R", suffix=r"\.weight")
_BOFT = peftkeys.pattern("boft_R|boft_s")
_MOST_TERMS = 1000


def _claims(source: Source) -> bool:
    return any(_OFT.fullmatch(key) or _BOFT.fullmatch(key) for key in source.tensors.layout)


def _read(source: Source) -> Reading:
    updates: list[DenseUpdate] = []
    used: set[str] = set()
    ignored: list[Ignored] = []
    for pattern, rotated in ((_OFT, _oft), (_BOFT, _boft)):
        modules, others = peftkeys.sorted_by_module(source, pattern)
        ignored += others
        for module, keys in modules.items():
            used.update(keys.values())
            updates.append(_update(module, rotated(module, keys, source), source))
    other, unknown = pairs.other_tensors(source, used | {entry.key for entry in ignored})
    return Reading(tuple(updates), (*ignored, *other), unknown)


def _update(module: str, turn: Rotation, source: Source) -> DenseUpdate:
    flag = Flag.OFT if turn.scaling is None else Flag.BOFT
    turned = source.fan_in_fan_out
    weight = multiplicative.site(module, source, size=turn.size or None, side="in", fan_in_fan_out=turned)
    if weight is None:
        return multiplicative.unbound(
            module, turn.change, source, shape=(0, turn.size), dtype=turn.dtype, flag=flag
        )
    turn.require(weight.shape, f"{source.place(module)}")
    if _is_of_sd_scripts(source) and source.base is not None:
        turn = _turned_back(turn, source.base.tensors.layout[weight.key].shape)
    return multiplicative.bound(
        module, weight, turn.delta, source, dtype=turn.dtype, flag=flag, fan_in_fan_out=turned
    )


def _is_of_sd_scripts(source: Source) -> bool:
    """Whether a file with the parameters of PEFT's OFT is not PEFT's: neither its configuration nor its prefix."""
    if source.config is not None and "peft_type" in source.config:
        return False
    return not any(key.startswith(PREFIX) for key in source.tensors.layout)


def _turned_back(turn: Rotation, shape: tuple[int, ...]) -> Rotation:
    """The rotation of sd-scripts: that of PEFT for a linear layer, R in the place of R^T for a convolution.

    References
    ----------
    kohya-ss/sd-scripts, networks/oft_v2.py: ``OFTv2Module._rotate_conv_weight`` and ``merge_to``.
    """
    if len(shape) < 3 or turn.scaling is not None:
        return turn
    return replace(turn, blocks=lambda: np.swapaxes(turn.blocks(), -1, -2))


def _oft(module: str, keys: Mapping[str, str], source: Source) -> Rotation:
    """The rotation of OFT, whose size of a block follows from the length of a triangle.

    References
    ----------
    huggingface/peft 0.21.2, tuners/oft/layer.py: ``OFTRotationModule.get_weight``; tuners/oft/config.py, for defaults.
    """
    upper = source.factor(keys["oft_R"])
    b = (1 + math.isqrt(1 + 8 * upper.shape[1])) // 2
    if b * (b - 1) // 2 != upper.shape[1] or len(source.shape(keys["oft_R"])) != 2:
        raise ShapeError(
            f"oft_R does not hold triangles of b (b - 1) / 2 numbers: its shape is "
            f"{list(source.shape(keys['oft_R']))}, in {source.place(module)}"
        )
    series, terms = _field("use_cayley_neumann", True, source), _field("num_cayley_neumann_terms", 5, source)
    constrained, eps = _field("coft", False, source), _field("eps", 6e-5, source)
    shared = bool(_field("block_share", False, source))

    def blocks() -> NDArray[Any]:
        Q = rotation.skew(upper.load().astype(np.float64), b)
        Q = rotation.projected(Q, float(eps)) if constrained else Q
        return (rotation.neumann(Q, int(terms)) if series else rotation.cayley(Q))[None]

    return Rotation(blocks, (1, upper.shape[0], b), upper.dtype, shared=shared)


def _field(name: str, default: float, source: Source) -> float:
    """A number or truth value of the configuration, PEFT's default where it is missing."""
    value: Any = (source.config or {}).get(name, default)
    wrong = isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, int | float)
    if wrong or not 0 <= value <= _MOST_TERMS:
        wanted = "true or false" if isinstance(default, bool) else f"a number from 0 to {_MOST_TERMS}"
        raise FormatError(f"Invalid {name}: {shown(repr(value))} is not {wanted}, in {source.config_place}")
    return float(value)


def _boft(module: str, keys: Mapping[str, str], source: Source) -> Rotation:
    """The rotation of BOFT, which also rescales the rows."""
    pairs.require_both(keys, "boft_R", "boft_s", module, source)
    R, s = source.factor(keys["boft_R"]), source.factor(keys["boft_s"])
    shape = source.shape(keys["boft_R"])
    if len(shape) != 4 or shape[2] != shape[3]:
        raise ShapeError(
            f"boft_R does not have the shape (factors, blocks, b, b): it is {list(shape)}, in {source.place(module)}"
        )

    def blocks() -> NDArray[Any]:
        data = R.load().astype(np.float64).reshape(shape)
        return rotation.cayley(0.5 * (data - np.swapaxes(data, 2, 3)))

    def scaling() -> NDArray[Any]:
        return s.load().reshape(-1).astype(np.float64)

    return Rotation(blocks, shape[:3], R.dtype, scaling=scaling, outputs=s.shape[0] * s.shape[1])


FORMAT = Format(
    name="oft",
    about="OFT and BOFT of PEFT: delta_W = s * (W R^T) - W with scale 1, needs the base (peft/tuners/oft/layer.py, "
    "boft/layer.py)",
    claims=_claims,
    read=_read,
)
