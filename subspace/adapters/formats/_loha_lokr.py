"""LoHa and LoKr, as LyCORIS and PEFT write them: a product of two matrices, each of which may have factors.

LoHa is the element-wise product ``(w1_a w1_b) * (w2_a w2_b)``, LoKr the Kronecker product ``kron(w1, w2)``, where
either may be ``w_a w_b``. The second matrix of a convolution may have a Tucker core, ``t`` (r, r, kernel), and then has
the outer factors (r, out) and (r, in).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from subspace.adapters.format import Source
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats import _structured as structured
from subspace.adapters.formats._structured import Built, Product
from subspace.adapters.update import Scale
from subspace.errors import ShapeError

__all__ = ["PARTS", "by_own_rank", "is_loha", "is_lokr", "kind", "loha", "lokr", "own_rank"]

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
    """Kind of the layer by the shapes; a convolution that is stored flattened looks like a linear layer."""
    wide = any(
        len(source.shape(keys[name])) > 2 for name in ("hada_t1", "lokr_t2", "lokr_w2") if name in keys
    )
    return "conv" if wide else "linear"


def own_rank(keys: Mapping[str, str], source: Source) -> int | None:
    """Rank of the trained factors, which alpha is divided by; None where both blocks of a LoKr are full.

    References
    ----------
    KohakuBlueleaf/LyCORIS 4.1, modules/loha.py and lokr.py: ``make_module_from_state_dict``; with a Tucker core
    w2_a is (r, out), and lycoris.functional takes the rank from w2_b.
    """
    for name in ("hada_w1_b", "lokr_w1_b", "lokr_w2_b"):
        if name in keys:
            return source.factor(keys[name]).shape[0]
    return None


def by_own_rank(scale: Scale, keys: Mapping[str, str], source: Source) -> Scale:
    """The scale with the rank of the trained factors beside it, which alpha is divided by where the file has one."""
    r = own_rank(keys, source)
    rule = f"{scale.source}: alpha / {r}" if scale.source == "tensor" else scale.source
    return replace(scale, source=rule, r=r)


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
            f"The two products of a LoHa have different shapes: {[n1, m1]} and {[n2, m2]}, in {source.place(module)}"
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
            if has in keys:
                raise pairs.unpaired(module, has, lacks, source)
            raise ShapeError(f"{a} and {b} are missing for {source.place(module)}; the file is incomplete")
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
    stored = " and ".join(str(list(shape)) for shape in shapes)
    return ShapeError(f"The factors of a block do not fit together: {stored}, in {source.place(module)}")
