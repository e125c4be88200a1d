"""IA3 of PEFT: ``base_model.model.<module>.ia3_l``, one number per output, or per input of a feedforward layer.

``delta_W = W * (l - 1)``: rows of W are rescaled by l (out, 1), columns by l (1, in). A convolution has l (1, C, 1, 1)
for either, and ``feedforward_modules`` of the configuration says which. A rescaled bias is not part of delta_W.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subspace.adapters.format import Format, Reading, Source
from subspace.adapters.formats import _channels as channels
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats import _peft_keys as peftkeys
from subspace.adapters.naming.peft_patterns import Patterns
from subspace.adapters.update import DenseUpdate
from subspace.errors import FormatError, ShapeError

__all__ = ["FORMAT"]

_KEY = peftkeys.pattern("ia3_l")
_NAME = re.compile(r"[\w.]+")


def _claims(source: Source) -> bool:
    return any(_KEY.fullmatch(key) for key in source.tensors.layout)


def _read(source: Source) -> Reading:
    modules, ignored = peftkeys.sorted_by_module(source, _KEY)
    updates = [_update(module, keys["ia3_l"], source) for module, keys in modules.items()]
    used = {key for keys in modules.values() for key in keys.values()} | {entry.key for entry in ignored}
    other, unknown = pairs.other_tensors(source, used)
    return Reading(tuple(updates), (*ignored, *other), unknown)


def _update(module: str, key: str, source: Source) -> DenseUpdate:
    shape, dtype = source.shape(key), source.factor(key).dtype
    size = math.prod(shape)
    if size != max(shape):
        raise ShapeError(
            f"ia3_l is not one row or column of numbers: its shape is {list(shape)}, in {source.place(module)}"
        )
    kind = "conv" if len(shape) > 2 else "linear"
    feedforward = _feedforward(module, shape, source)

    def change() -> NDArray[Any]:
        return source.tensors.read(key).reshape(-1).astype(np.float64) - 1.0

    return channels.rescaled(
        module,
        change,
        source,
        size=size,
        side="in" if feedforward else "out",
        kind=kind,
        dtype=dtype,
        rounded=True,
        fan_in_fan_out=source.fan_in_fan_out,
    )


def _feedforward(module: str, shape: tuple[int, ...], source: Source) -> bool:
    """Whether the columns of W are rescaled, by the shape, or by the configuration where the shape does not say.

    References
    ----------
    huggingface/peft 0.21.2, tuners/ia3/model.py: ``_check_target_module_feedforward``.
    """
    if len(shape) == 2 and shape != (1, 1):
        return shape[0] == 1
    names = (source.config or {}).get("feedforward_modules")
    where = f"feedforward_modules of {source.config_place}"
    if isinstance(names, str):
        pattern = Patterns({names: True}, where=where)
        return module == names if _NAME.fullmatch(names) else bool(pattern.match(module))
    if names is None and source.base is None:
        return False  # the side does not matter before there is a base
    if not isinstance(names, list | set | tuple) or not all(isinstance(name, str) for name in names):
        raise FormatError(
            f"Cannot tell whether ia3_l rescales inputs or outputs of a convolution: there are no names in {where}, in "
            f"{source.place(module)}; keep adapter_config.json next to the file"
        )
    return any(module.endswith(name) for name in names)


FORMAT = Format(
    name="ia3",
    about="IA3 of PEFT, ia3_l: delta_W = W * (l - 1) with scale 1, needs the base (peft/tuners/ia3/layer.py)",
    claims=_claims,
    read=_read,
)
