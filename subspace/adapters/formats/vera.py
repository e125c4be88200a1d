"""VeRA of PEFT: ``vera_lambda_b`` (d_out) and ``vera_lambda_d`` (r) of each module, with projections that all share.

``delta_W = (lambda_b * B) (lambda_d * A)`` with the first columns of A (r, largest d_in) and the first rows of B
(largest d_out, r). The projections are saved once (``base_model.vera_A``), or generated from ``projection_prng_key``.
The file does not hold d_in of a module: it comes from the base, and without one it is taken to be that of A.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subspace.adapters.format import Format, Ignored, Reading, Role, Source
from subspace.adapters.formats import _multiplicative as multiplicative
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats import _peft_keys as peftkeys
from subspace.adapters.update import Factor, LowRankUpdate, Scale
from subspace.errors import FormatError, InconclusiveError, ShapeError
from subspace.flags import Flag
from subspace.text import counted, listed, shown

__all__ = ["FORMAT"]

_KEY = peftkeys.pattern("vera_lambda_[bd]|vera_[AB]")
_SHARED = {"", "base_model"}
_LAMBDAS = ("vera_lambda_b", "vera_lambda_d")


class _Sizes(NamedTuple):
    d_out: int
    r: int
    d_in: int | None


def _claims(source: Source) -> bool:
    return any("vera_lambda_" in key and _KEY.fullmatch(key) for key in source.tensors.layout)


def _read(source: Source) -> Reading:
    found, ignored = peftkeys.sorted_by_module(source, _KEY)
    shared = {part: key for module in _SHARED for part, key in found.get(module, {}).items()}
    modules = {module: keys for module, keys in found.items() if any(name in keys for name in _LAMBDAS)}
    used = {key for keys in (*modules.values(), shared) for key in keys.values()}
    # in the state dict of a model, each layer has the shared projections too
    copies = [key for keys in found.values() for part, key in keys.items() if part in {"vera_A", "vera_B"}]
    ignored += [
        Ignored(key, "a copy of a shared projection", Role.COPY)
        for key in copies
        if key not in shared.values()
    ]
    used.update(entry.key for entry in ignored)
    sizes = {module: _sizes(module, keys, source) for module, keys in modules.items()}
    A, B = _projections(shared, sizes, source)
    updates = tuple(_update(module, keys, sizes[module], A, B, source) for module, keys in modules.items())
    other, unknown = pairs.other_tensors(source, used)
    return Reading(updates, (*ignored, *other), unknown, _notes(sizes, A))


def _sizes(module: str, keys: Mapping[str, str], source: Source) -> _Sizes:
    """Sizes of a module, by its vectors and, for d_in, by the base."""
    pairs.require_both(keys, *_LAMBDAS, module, source)
    shapes = [source.shape(keys[name]) for name in _LAMBDAS]
    if any(len(shape) != 1 or 0 in shape for shape in shapes):
        raise ShapeError(
            f"vera_lambda_b and vera_lambda_d are not vectors: their shapes are {list(shapes[0])} and "
            f"{list(shapes[1])}, in {source.place(module)}"
        )
    (d_out,), (r,) = shapes
    weight = multiplicative.site(module, source, size=d_out, side="out")
    return _Sizes(d_out, r, None if weight is None else weight.shape[1])


def _projections(
    shared: Mapping[str, str], sizes: Mapping[str, _Sizes], source: Source
) -> tuple[Factor, Factor]:
    """The shared A and B: saved, or generated as PEFT generates them."""
    if "vera_A" in shared and "vera_B" in shared:
        return source.factor(shared["vera_A"]), source.factor(shared["vera_B"])
    key = (source.config or {}).get("projection_prng_key")
    if isinstance(key, bool) or not isinstance(key, int) or not -(2**63) <= key < 2**63:
        raise FormatError(
            f"The projections of VeRA are missing: they are not in {source.path}, and projection_prng_key is "
            f"{shown(repr(key))} in {source.config_place}; save the adapter with save_projection"
        )
    widths = [size.d_in for size in sizes.values()]
    known = [width for width in widths if width is not None]
    if len(known) < len(widths):
        raise InconclusiveError(
            "The projections of VeRA cannot be generated without the sizes of the base weights: those of "
            f"{len(widths) - len(known)} of {counted(len(widths), 'module')} are missing, in {source.path}; give the "
            "weights of the base model as `base`"
        )
    ranks = {size.r for size in sizes.values()}
    if len(ranks) != 1:
        raise ShapeError(
            f"The modules of VeRA have different ranks: {listed(sorted(ranks))}, in {source.path}"
        )
    return _regenerated(key, ranks.pop(), max(size.d_out for size in sizes.values()), max(known))


def _regenerated(key: int, r: int, d_out: int, d_in: int) -> tuple[Factor, Factor]:
    """A (r, d_in) and B (d_out, r) from a seed, by torch's generator on the CPU, A first.

    References
    ----------
    huggingface/peft 0.21.2, tuners/vera/model.py: ``_init_vera_A_vera_B`` and ``_kaiming_init``, uniform within
    sqrt(2) * sqrt(3 / fan_in).
    """

    @cache
    def both() -> tuple[NDArray[Any], NDArray[Any]]:
        import torch

        generator = torch.Generator(device="cpu").manual_seed(key)
        drawn = []
        for shape in ((r, d_in), (d_out, r)):
            bound = math.sqrt(3.0) * (math.sqrt(2) / math.sqrt(shape[1]))
            drawn.append(torch.empty(shape).uniform_(-bound, bound, generator=generator).numpy())
        return drawn[0], drawn[1]

    return (
        Factor((r, d_in), "float32", lambda: both()[0]),
        Factor((d_out, r), "float32", lambda: both()[1]),
    )


def _update(
    module: str, keys: Mapping[str, str], size: _Sizes, A: Factor, B: Factor, source: Source
) -> LowRankUpdate:
    d_in = A.shape[1] if size.d_in is None else size.d_in
    if A.shape[0] != size.r or B.shape[1] != size.r or B.shape[0] < size.d_out or A.shape[1] < d_in:
        raise ShapeError(
            f"The projections of VeRA are too small for a module: A is {list(A.shape)} and B is {list(B.shape)} for "
            f"r = {size.r} and delta_W {[size.d_out, d_in]}, in {source.place(module)}"
        )

    def scaled(name: str, M: Callable[[], NDArray[Any]]) -> Callable[[], NDArray[Any]]:
        return lambda: source.tensors.read(keys[name])[:, None].astype(np.float64) * M()

    return LowRankUpdate(
        module,
        Factor(
            (size.r, d_in),
            _type(A, keys["vera_lambda_d"], source),
            scaled("vera_lambda_d", lambda: A.load()[:, :d_in]),
        ),
        Factor(
            (size.d_out, size.r),
            _type(B, keys["vera_lambda_b"], source),
            scaled("vera_lambda_b", lambda: B.load()[: size.d_out]),
        ),
        Scale(1.0, "1 in VeRA"),
        fan_in_fan_out=source.fan_in_fan_out,
        flags=(Flag.COMPOSED,),
    )


def _type(projection: Factor, key: str, source: Source) -> str:
    """The coarser of the types of a projection and its vector."""
    vector = Factor((1, 1), source.tensors.layout[key].dtype, lambda: np.zeros((1, 1)))
    return max(projection, vector, key=lambda factor: factor.resolution).dtype


def _notes(sizes: Mapping[str, _Sizes], A: Factor) -> tuple[str, ...]:
    guessed = [module for module, size in sizes.items() if size.d_in is None]
    if not guessed:
        return ()
    return (
        f"The d_in of {len(guessed)} of {counted(len(sizes), 'module')} is taken to be {A.shape[1]}, that of the "
        "shared projection, since files of VeRA do not say it; give the base model as `base`",
    )


FORMAT = Format(
    name="vera",
    about="VeRA of PEFT, vera_lambda_b and vera_lambda_d with shared projections: scale 1 (peft/tuners/vera/layer.py)",
    claims=_claims,
    read=_read,
)
