"""GLoRA of LyCORIS: ``delta_W = alpha / r * (W A + B)`` with ``A = a1 a2`` and ``B = b1 b2``, which needs the base.

Of a linear layer or a pointwise convolution this is a product of rank 2 r, ``[W a1, b1] [a2; b2]``; of another
convolution, where A acts on the input channels, it is formed as a matrix.

References
----------
Chavan et al., arXiv 2306.07967. KohakuBlueleaf/LyCORIS 4.1, modules/glora.py: ``_glora_weight``. Files from before
LyCORIS 2.0 have the two factors of A and of B exchanged: comfyanonymous/ComfyUI, weight_adapter/glora.py, "old_glora".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.adapters.format import Source
from subspace.adapters.formats import _multiplicative as multiplicative
from subspace.adapters.formats import _structured as structured
from subspace.adapters.update import DenseUpdate, Factor, LowRankUpdate, Scale, Update
from subspace.errors import ShapeError, located
from subspace.flags import Flag

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from subspace.adapters.base.weight import BaseWeight

__all__ = ["NEEDED", "PARTS", "is_glora", "rank", "update"]

NEEDED = ("a1", "a2", "b1", "b2")
PARTS = {f".{name}.weight": name for name in (*NEEDED, "bm")}


class _Factors(NamedTuple):
    """a1 (d_in, r), a2 (r, d_in), b1 (d_out, r) and b2 (r, d_in * kernel)."""

    a1: Factor
    a2: Factor
    b1: Factor
    b2: Factor


def is_glora(keys: Mapping[str, str]) -> bool:
    """Whether a module has all four factors."""
    return all(name in keys for name in NEEDED)


def rank(keys: Mapping[str, str], source: Source) -> int:
    """The rank of A and of B, which alpha is divided by."""
    return _factors("", keys, source).a2.shape[0]


def update(module: str, keys: Mapping[str, str], scale: Scale, source: Source) -> Update:
    """The update of one module, with the flag "needs_base" where there is no base.

    Raises
    ------
    ShapeError : the factors do not fit together, or not the base weight
    """
    f = _factors(module, keys, source)
    kernel = f.b2.shape[1] // f.a2.shape[1]
    kind = "conv" if any(len(source.shape(keys[name])) > 2 for name in NEEDED) else "linear"
    shape = f.b1.shape[0], f.b2.shape[1]
    weight = multiplicative.site(module, source, size=shape[0], side="out", kind=kind)
    if weight is None:
        return multiplicative.unbound(
            module, lambda: _changes(f), source, shape=shape, dtype=f.a1.dtype, flag=Flag.GLORA, kind=kind
        )
    if weight.shape != shape:
        raise ShapeError(
            f"The update does not fit the base weight: it is {list(shape)} and the weight {list(weight.shape)}, in "
            f"{source.place(module)}; give the base model that the adapter was trained on"
        )
    if kernel == 1:
        return _low_rank(module, f, weight, scale, source, kind=kind)
    matrix = Factor(
        shape, f.a1.dtype, _placed(lambda: _whole(f, weight, kernel), module, source), numbers=_numbers(f)
    )
    return DenseUpdate(module, matrix, scale, kind=kind, flags=(Flag.DENSE, Flag.GLORA))


def _factors(module: str, keys: Mapping[str, str], source: Source) -> _Factors:
    a1, a2, b1, b2 = (source.factor(keys[name]) for name in NEEDED)
    if "bm" in keys:
        shape = source.shape(keys["bm"])
        if len(shape) < 3 or shape[1] != b2.shape[0]:
            raise _misfit(module, keys, source)
        b2 = structured.tucker(source.factor(keys["bm"]), b2, shape[1])
    for f in (_Factors(a1, a2, b1, b2), _Factors(a2, a1, b2, b1)):
        r, d_in = f.a2.shape
        if f.a1.shape == (d_in, r) and f.b1.shape[1] == f.b2.shape[0] == r and f.b2.shape[1] % d_in == 0:
            return f
    raise _misfit(module, keys, source)


def _misfit(module: str, keys: Mapping[str, str], source: Source) -> ShapeError:
    stored = ", ".join(f"{name} {list(source.shape(keys[name]))}" for name in NEEDED)
    return ShapeError(f"The factors of a GLoRA do not fit together: {stored}, in {source.place(module)}")


def _low_rank(
    module: str, f: _Factors, weight: BaseWeight, scale: Scale, source: Source, *, kind: str
) -> LowRankUpdate:
    r = f.a2.shape[0]

    def B() -> NDArray[Any]:
        W, a1, b1 = (each.load().astype(np.float64) for each in (weight.factor(), f.a1, f.b1))
        return np.hstack([W @ a1, b1])

    def A() -> NDArray[Any]:
        return np.vstack([f.a2.load().astype(np.float64), f.b2.load().astype(np.float64)])

    sizes = f.b1.shape[0], f.b2.shape[1]
    numbers = _numbers(f)
    return LowRankUpdate(
        module,
        Factor((2 * r, sizes[1]), f.a2.dtype, _placed(A, module, source), numbers=numbers),
        Factor((sizes[0], 2 * r), f.b1.dtype, _placed(B, module, source), numbers=numbers),
        scale,
        kind=kind,
        flags=(Flag.COMPOSED, Flag.GLORA),
    )


def _whole(f: _Factors, weight: BaseWeight, kernel: int) -> NDArray[Any]:
    """``W A + B`` of a convolution (d_out, d_in * kernel)."""
    W, a1, a2, b1, b2 = (each.load().astype(np.float64) for each in (weight.factor(), *f))
    channels = W.reshape(len(W), -1, kernel)  # (d_out, d_in, kernel)
    turned = np.einsum("oik,ir,rj->ojk", channels, a1, a2, optimize=True)
    result: NDArray[Any] = turned.reshape(W.shape) + b1 @ b2
    return result


def _changes(f: _Factors) -> NDArray[Any]:
    """A and B in one vector: what is known without the weight."""
    a1, a2, b1, b2 = (each.load().astype(np.float64) for each in f)
    return np.concatenate([(a1 @ a2).ravel(), (b1 @ b2).ravel()])


def _placed(load: Callable[[], NDArray[Any]], module: str, source: Source) -> Callable[[], NDArray[Any]]:
    def placed() -> NDArray[Any]:
        with located(f"{source.place(module)}"):
            return load()

    return placed


def _numbers(f: _Factors) -> int:
    return sum(each.shape[0] * each.shape[1] for each in f)
