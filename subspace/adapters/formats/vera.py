"""VeRA of PEFT: per module ``vera_lambda_b`` (d_out) and ``vera_lambda_d`` (r), with projections that all share.

``delta_W = (lambda_b * B) (lambda_d * A)`` with A (r, largest d_in) and B (largest d_out, r) cut to the module. They
are saved once (``base_model.vera_A``), or made again from ``projection_prng_key``. The d_in of a module is in neither
file: it comes from the base, and without one it is taken to be that of A.
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
from subspace.text import shown

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
    # a layer holds the shared projections too, in a dump of a model in memory
    copies = [key for keys in found.values() for part, key in keys.items() if part in {"vera_A", "vera_B"}]
    ignored += [
        Ignored(key, "the shared projection once more", Role.COPY)
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
    """Sizes of a module from its vectors, d_in from the base."""
    for has, lacks in (_LAMBDAS, _LAMBDAS[::-1]):
        if lacks not in keys:
            raise pairs.unpaired(module, has, lacks, source)
    shapes = [source.shape(keys[name]) for name in _LAMBDAS]
    if any(len(shape) != 1 or 0 in shape for shape in shapes):
        raise ShapeError(
            f"vera_lambda_b and vera_lambda_d must be vectors: got {list(shapes[0])} and {list(shapes[1])}, "
            f"in module {shown(module)} of {source.path}"
        )
    (d_out,), (r,) = shapes
    weight = multiplicative.site(module, source, size=d_out, side="out")
    return _Sizes(d_out, r, None if weight is None else weight.shape[1])


def _projections(
    shared: Mapping[str, str], sizes: Mapping[str, _Sizes], source: Source
) -> tuple[Factor, Factor]:
    """The shared A and B: saved, or made again as PEFT makes them."""
    if "vera_A" in shared and "vera_B" in shared:
        return source.factor(shared["vera_A"]), source.factor(shared["vera_B"])
    where = source.config_path or "the configuration"
    key = (source.config or {}).get("projection_prng_key")
    if isinstance(key, bool) or not isinstance(key, int) or not -(2**63) <= key < 2**63:
        raise FormatError(
            "VeRA's projections must be in the file or made from projection_prng_key: got "
            f"{shown(repr(key))} in {where} and none in {source.path}; save them with save_projection"
        )
    widths = [size.d_in for size in sizes.values()]
    known = [width for width in widths if width is not None]
    if len(known) < len(widths):
        raise InconclusiveError(
            "VeRA's projections that were not saved are made for the widest layer of the base: got no base "
            f"weight for {len(widths) - len(known)} of {len(widths)} modules of {source.path}; give it with --base"
        )
    ranks = {size.r for size in sizes.values()}
    if len(ranks) != 1:
        raise ShapeError(f"VeRA's modules must share one rank: got {sorted(ranks)}, in {source.path}")
    return _regenerated(key, ranks.pop(), max(size.d_out for size in sizes.values()), max(known))


def _regenerated(key: int, r: int, d_out: int, d_in: int) -> tuple[Factor, Factor]:
    """A (r, d_in) and B (d_out, r) from a seed: torch's generator on the CPU, A first.

    References
    ----------
    huggingface/peft 0.21.2, tuners/vera/model.py: ``_init_vera_A_vera_B`` and ``_kaiming_init``, uniform within
    sqrt(2) * sqrt(3 / fan_in).
    """

    @cache
    def both() -> tuple[NDArray[Any], NDArray[Any]]:
        import torch

        generator = torch.Generator(device="cpu").manual_seed(key)
        made = []
        for shape in ((r, d_in), (d_out, r)):
            bound = math.sqrt(3.0) * (math.sqrt(2) / math.sqrt(shape[1]))
            made.append(torch.empty(shape).uniform_(-bound, bound, generator=generator).numpy())
        return made[0], made[1]

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
            f"VeRA's projections must hold those of a module: got A {list(A.shape)} and B {list(B.shape)} for "
            f"r = {size.r} and delta_W {[size.d_out, d_in]}, in module {shown(module)} of {source.path}"
        )

    def scaled(name: str, M: Callable[[], NDArray[Any]]) -> Callable[[], NDArray[Any]]:
        return lambda: source.tensors.read(keys[name])[:, None] * M()

    turned = (source.config or {}).get("fan_in_fan_out")
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
        fan_in_fan_out=turned if isinstance(turned, bool) else None,
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
        f"d_in is taken to be {A.shape[1]}, that of the shared projection, in {len(guessed)} of {len(sizes)} modules: "
        "VeRA's files do not say it; give the base with --base",
    )


FORMAT = Format(
    name="vera",
    about="VeRA of PEFT, vera_lambda_b and vera_lambda_d with shared projections: scale 1 (peft/tuners/vera/layer.py)",
    claims=_claims,
    read=_read,
)
