"""Base weights that a file holds beside the factors of the layers that it adapts, as a whole state dict does.

- loralib and torchtune: ``q.weight`` beside ``q.lora_A``, the layer being a linear layer itself;
- layers written by hand, mlx-lm, LitGPT and cloneofsimo's: ``q.linear.weight`` beside ``q.lora.lora_A`` or
  ``q.lora_A``, where a layer holds the frozen one under a name such as ``linear``, ``base`` or ``original_layer``;
- PEFT: ``q.base_layer.weight`` beside ``q.lora_A.default.weight``;
- minLoRA: ``q.parametrizations.weight.original`` beside ``q.parametrizations.weight.0.lora_A``.

A tensor counts as such a weight only where the product of the factors has its shape.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from subspace.checkpoints.peft_files import PREFIX

if TYPE_CHECKING:
    from subspace.checkpoints import TensorInfo

__all__ = ["NO_BASE", "OwnBase", "own_base"]

_FROZEN = ("linear", "base", "base_layer", "original", "original_layer", "orig", "wrapped", "layer")
_PARAMETRIZED = re.compile(r"(?P<module>.*\.|)parametrizations\.(?P<weight>[^.]+)\.[0-9]+", re.DOTALL)
_LONGEST = 4  # words of a factor's name behind its module: lora.lora_A.default.weight
_MOST = 6  # matrices of one module that are tried as its factors

_Shape = tuple[int, ...]


class OwnBase(NamedTuple):
    """Base weights of a file of an adapter.

    Attributes
    ----------
    weights : module -> key of its base weight
    keys : these keys, and those of the biases of frozen layers
    """

    weights: Mapping[str, str] = MappingProxyType({})
    keys: frozenset[str] = frozenset()


NO_BASE = OwnBase()


def own_base(layout: Mapping[str, TensorInfo]) -> OwnBase:
    """The base weights among the tensors of an adapter's file, of the modules that it adapts.

    Examples
    --------
    >>> from subspace.checkpoints import TensorInfo
    >>> shapes = {"q.linear.weight": (3, 4), "q.lora.lora_A": (4, 2), "q.lora.lora_B": (2, 3)}
    >>> own_base({key: TensorInfo("float32", shape) for key, shape in shapes.items()}).weights
    {'q': 'q.linear.weight'}
    """
    weights: dict[str, str] = {}
    biases = set()
    if all("lora" in key for key in layout):
        return NO_BASE
    for module, factors in _factors(layout).items():
        for name, key, bias in _candidates(module):
            if key in layout and _is_product(layout[key].shape, factors):
                weights[name] = key
                biases.update({bias} & layout.keys())
                break
    return OwnBase(weights, frozenset(biases.union(weights.values())))


def _factors(layout: Mapping[str, TensorInfo]) -> dict[str, list[_Shape]]:
    """Module -> shapes of the matrices whose names say that they are of its LoRA."""
    found: dict[str, list[_Shape]] = defaultdict(list)
    for key, info in layout.items():
        if len(info.shape) > 1 and 0 not in info.shape and ("lora" in key or "LoRA" in key):
            words = key.rsplit(".", _LONGEST)
            places = [n for n, word in enumerate(words) if word.lower().startswith(("lora", "w_lora"))]
            if places:
                n = places[-1] - (places[-1] > 0 and words[places[-1] - 1] == "lora")
                found[".".join(words[:n])].append(_matrix(info.shape))
    return found


def _candidates(module: str) -> Iterator[tuple[str, str, str]]:
    """Module, key of what may be its base weight, and key of a bias that is frozen with it."""
    match = _PARAMETRIZED.fullmatch(module)
    if match is not None:
        inside = match["module"]
        name = inside.removesuffix(".") if match["weight"] == "weight" else f"{inside}{match['weight']}"
        yield name, f"{inside}parametrizations.{match['weight']}.original", ""
        return
    path = f"{module}." if module else ""
    if not module.startswith(PREFIX):  # PEFT's own layers hold the frozen one as base_layer
        yield module, f"{path}weight", ""
    for frozen in _FROZEN:
        # PEFT trains and saves biases of base_layer where its setting bias is all or lora_only
        yield module, f"{path}{frozen}.weight", "" if frozen == "base_layer" else f"{path}{frozen}.bias"


def _is_product(weight: _Shape, factors: Sequence[_Shape]) -> bool:
    """Whether two of the factors multiply to the shape of a weight, in whatever layout they are stored."""
    if len(weight) < 2 or 0 in weight:
        return False
    sides = {_matrix(weight), _matrix(weight)[::-1]}
    if len(weight) == 4:  # loralib keeps the update of a convolution as (out * k, in * k)
        sides.add((weight[0] * weight[3], weight[1] * weight[2]))
    return any(
        not sides.isdisjoint(_products(A, B)) or _is_fused(_matrix(weight), A, B)
        for A, B in permutations(sorted(factors)[:_MOST], 2)
    )


def _products(A: _Shape, B: _Shape) -> Iterator[_Shape]:
    """The shapes (d_out, d_in) of the products of two factors, in each layout that has one."""
    (a, A1), (B0, b) = A, B
    if a == b:
        yield B0, A1
    if A1 == B0:
        yield b, a
    if b == A1:
        yield B0, a
    if a == B0:
        yield b, A1


def _is_fused(weight: _Shape, A: _Shape, B: _Shape) -> bool:
    """Whether A (r * groups, d_in) and B (size * groups, r) are of groups of a fused layer, as loralib keeps them."""
    groups, rest = divmod(A[0], B[1])
    return groups > 1 and rest == 0 and A[1] == weight[1] and B[0] <= weight[0]


def _matrix(shape: _Shape) -> _Shape:
    return shape[0], math.prod(shape[1:])
