"""LoHa and LoKr: what LyCORIS and PEFT both write, a product of two matrices that may be factored each.

LoHa is the element-wise product ``(w1_a w1_b) * (w2_a w2_b)``, LoKr the Kronecker product ``kron(w1, w2)`` where
either may be ``w_a w_b``. The second one of a convolution may have a Tucker core, ``t`` (r, r, kernel); its outer
factors are then (r, out) and (r, in).
"""

from __future__ import annotations

from collections.abc import Mapping

from subspace.adapters.format import Source
from subspace.adapters.formats import _structured as structured
from subspace.adapters.formats._structured import Built, Product
from subspace.errors import ShapeError
from subspace.text import shown

__all__ = ["PARTS", "is_loha", "is_lokr", "kind", "loha", "lokr", "own_rank"]

PARTS = {
    f".{name}": name
    for name in (
        "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
        "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
    )
}  # fmt: skip


def is_loha(keys: Mapping[str, str]) -> bool:
    """Whether a module has a part of a LoHa."""
    return any(name.startswith("hada_") for name in keys)


def is_lokr(keys: Mapping[str, str]) -> bool:
    """Whether a module has a part of a LoKr."""
    return any(name.startswith("lokr_") for name in keys)


def kind(keys: Mapping[str, str], source: Source) -> str:
    """Kind of the layer, as far as the shapes say it: a convolution may be stored flattened, as a linear layer is."""
    wide = any(
        len(source.shape(keys[name])) > 2 for name in ("hada_t1", "lokr_t2", "lokr_w2") if name in keys
    )
    return "conv" if wide else "linear"


def own_rank(keys: Mapping[str, str], source: Source) -> int | None:
    """Rank of the trained factors that alpha is divided by; None where both blocks of a LoKr are full.

    References
    ----------
    KohakuBlueleaf/LyCORIS 4.1, modules/loha.py and lokr.py: ``make_module_from_state_dict``; a Tucker core there has
    w2_a as (r, out), whose rank lycoris.functional reads off w2_b.
    """
    for name in ("hada_w1_b", "lokr_w1_b", "lokr_w2_b"):
        if name in keys:
            return source.factor(keys[name]).shape[0]
    return None


def loha(module: str, keys: Mapping[str, str], source: Source) -> Built:
    """The element-wise product of one module.

    Raises
    ------
    ShapeError : a part is missing, or the parts do not fit together
    """
    first = _factored(module, keys, ("hada_w1_a", "hada_w1_b", "hada_t1"), source)
    second = _factored(module, keys, ("hada_w2_a", "hada_w2_b", "hada_t2"), source)
    (n1, m1), (n2, m2) = _shape(first), _shape(second)
    if (n1, m1) != (n2, m2):
        raise ShapeError(
            f"the two products of a LoHa must have one shape: got {[n1, m1]} and {[n2, m2]}, "
            f"in module {shown(module)} of {source.path}"
        )
    return structured.hadamard(first, second)


def lokr(module: str, keys: Mapping[str, str], source: Source) -> Built:
    """The Kronecker product of one module; the second block of a convolution is flattened to (out, in * kernel).

    Raises
    ------
    ShapeError : a part is missing, or the parts do not fit together
    """
    blocks = []
    for n in "12":
        name = f"lokr_w{n}"
        full = structured.whole(source.factor(keys[name])) if name in keys else None
        blocks.append(full or _factored(module, keys, (f"{name}_a", f"{name}_b", f"lokr_t{n}"), source))
    return structured.kronecker(blocks[0], blocks[1])


def _factored(module: str, keys: Mapping[str, str], names: tuple[str, str, str], source: Source) -> Product:
    """``w_a w_b``, with a Tucker core ``w_a^T (t . w_b)``."""
    a, b, t = names
    for has, lacks in ((a, b), (b, a)):
        if lacks not in keys:
            got = has if has in keys else "neither"
            raise ShapeError(
                f"a block must be full or have both factors: got {got} without {lacks}, in module "
                f"{shown(module)} of {source.path}; the file is incomplete"
            )
    P, Q = source.factor(keys[a]), source.factor(keys[b])
    if t in keys:
        shape = source.shape(keys[t])
        core = source.factor(keys[t])
        if len(shape) < 3 or shape[:2] != (P.shape[0], Q.shape[0]):
            raise _misfit(module, [P.shape, shape, Q.shape], source)
        return Product(P.T, structured.tucker(core, Q, shape[1]))
    if P.shape[1] != Q.shape[0]:
        raise _misfit(module, [P.shape, Q.shape], source)
    return Product(P, Q)


def _shape(product: Product) -> tuple[int, int]:
    return product.P.shape[0], product.Q.shape[1]


def _misfit(module: str, shapes: list[tuple[int, ...]], source: Source) -> ShapeError:
    listed = ", ".join(str(list(shape)) for shape in shapes)
    return ShapeError(
        f"the factors of a block must multiply: got {listed}, in module {shown(module)} of {source.path}"
    )
