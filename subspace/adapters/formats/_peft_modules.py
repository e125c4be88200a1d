"""Which module or parameter of the model a stored pair of PEFT is of: PEFT's wrappers are taken out of the names.

``ParamWrapper``, of ``target_parameters``, adapts one parameter of a module, such as the weights of all experts. For
several parameters of a module the wrappers are nested, the first parameter that the module registers innermost:
``experts.base_layer.lora_A`` is then of it and ``experts.lora_A`` of the second. A file does not hold that order, so
the ranks, the shapes and the base weights say which pair is of which parameter.

``MultiheadAttention`` adapts ``in_proj_weight`` by factors of its own and ``out_proj`` by those of a layer inside,
``attn.base_layer.out_proj``, which has the rank and the alpha of the whole.

References
----------
peft 0.21, tuners/tuners_utils.py: ``_inject_parameters``; tuners/lora/layer.py: ``ParamWrapper``,
``MultiheadAttention``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice, permutations
from math import perm
from typing import NamedTuple

from subspace.adapters.base.experts import parameter_shape
from subspace.adapters.format import Parameter, Source
from subspace.adapters.formats._peft_config import PeftConfig
from subspace.errors import FormatError
from subspace.text import listed, shown

__all__ = ["Stored", "Target", "is_attention", "targets"]

_WRAPPER = "base_layer"
_MOST_ORDERS = 120  # of five parameters in one module
_DEEPEST = 64


class Stored(NamedTuple):
    """A pair as it is stored: the rows of A, and the sides of its product."""

    rows: int
    d_out: int
    d_in: int


class Target(NamedTuple):
    """What a pair is of: the name of its update, the name that PEFT matches patterns with, and the experts in it."""

    name: str
    matched: str
    experts: int = 1
    transposed: bool | None = None


def targets(
    stored: Mapping[str, Stored], config: PeftConfig | None, source: Source
) -> tuple[dict[str, Target], list[str]]:
    """What every stored pair is of, by its stored name, and notes on what could not be told.

    Raises
    ------
    FormatError : the parameters that pairs could be of have different ranks or scales, and nothing tells them apart
    """
    wrapped: dict[str, list[str]] = defaultdict(list)
    for module in stored:
        wrapped[_without_wrappers(module)].append(module)
    parents = _by_parent(config.parameters if config else ())
    found: dict[str, Target] = {}
    unsure: list[str] = []
    for own, modules in wrapped.items():
        known = {module: source.parameters[module] for module in modules if module in source.parameters}
        if len(known) == len(modules):
            found |= {module: _known(own, parameter) for module, parameter in known.items()}
            continue
        assigned = _assigned(own, {module: stored[module] for module in modules}, parents, config, source)
        if assigned is None:
            found |= {module: _plain(module if len(modules) > 1 else own, stored) for module in modules}
            continue
        found |= assigned
        if any(target.name == module for module, target in assigned.items()):
            unsure.append(own)
    return found, [_unsure(unsure)] if unsure else []


def is_attention(parent: Stored, out: Stored) -> bool:
    """Whether two pairs fit ``in_proj_weight`` (3 d, d) and ``out_proj`` (d, d) of one attention layer."""
    return (parent.d_out, parent.d_in) == (3 * out.d_in, out.d_in) and out.d_out == out.d_in


def _without_wrappers(module: str) -> str:
    """A name without the wrappers in it; PEFT calls no layer ``base_layer`` that is not inside another."""
    return ".".join(part for part in module.split(".") if part != _WRAPPER) or module


def _plain(name: str, stored: Mapping[str, Stored]) -> Target:
    """A module as such, whose patterns are those of the attention layer around it if it is the ``out_proj`` of one."""
    parent, _, last = name.rpartition(".")
    of = stored.get(name) or stored.get(f"{parent}.{_WRAPPER}.{last}")
    if last == "out_proj" and parent in stored and of is not None and is_attention(stored[parent], of):
        return Target(name, parent)
    return Target(name, name)


def _known(own: str, parameter: Parameter) -> Target:
    return Target(
        _name(own, parameter.name), f"{own}.{parameter.name}", parameter.experts, parameter.transposed
    )


def _name(own: str, parameter: str) -> str:
    """The name of a parameter's update: that of the module where it is its weight, as for any other layer."""
    return own if parameter == "weight" else f"{own}.{parameter}"


def _by_parent(parameters: Iterable[str]) -> dict[str, list[str]]:
    """The targeted parameters, by the module that is named before them; "" for those named alone."""
    parents: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(parameters):
        parent, _, last = name.rpartition(".")
        parents[parent].append(last)
    return parents


def _parameters(
    own: str, pair: Stored, parents: Mapping[str, Sequence[str]], config: PeftConfig
) -> list[str]:
    """The targeted parameters that a module could have, as PEFT matches them: by the end of a name.

    One that is named alone could be of any module; a pair that has the rank of its module is of no experts in it.
    """
    ends = own.split(".")
    names = [".".join(ends[n:]) for n in range(max(0, len(ends) - _DEEPEST), len(ends))] if parents else []
    named = list(islice((last for name in names for last in parents.get(name, ())), _MOST_ORDERS + 1))
    if named or config.rank(own) in (None, pair.rows):
        return list(dict.fromkeys(named))
    return list(islice(parents.get("", ()), _MOST_ORDERS + 1))


def _assigned(
    own: str,
    pairs: Mapping[str, Stored],
    parents: Mapping[str, Sequence[str]],
    config: PeftConfig | None,
    source: Source,
) -> dict[str, Target] | None:
    """What the pairs of one module are of, by their stored names; None where they are of no targeted parameter."""
    parameters = _parameters(own, next(iter(pairs.values())), parents, config) if config and parents else []
    if config is None or not parameters:
        return None
    if len(pairs) > len(parameters) or perm(len(parameters), len(pairs)) > _MOST_ORDERS:
        return None
    known = {name: _Parameter.of(f"{own}.{name}", config, source) for name in parameters}
    orders = [
        dict(zip(pairs, order, strict=True))
        for order in permutations(parameters, len(pairs))
        if _fits(pairs, {m: known[name] for m, name in zip(pairs, order, strict=True)})
    ]
    orders = [order for order in orders if _is_gated(pairs, order)] or orders
    if len(orders) == 1:
        return {
            module: _known(own, Parameter(name, known[name].experts(pairs[module])))
            for module, name in orders[0].items()
        }
    return _alike(own, pairs, orders, known) if orders else None


class _Parameter(NamedTuple):
    """What is known of a targeted parameter: its name, rank, alpha, and its shape in the base."""

    name: str
    rank: int | None
    alpha: float | None
    shape: tuple[int, ...] | None
    where: str

    @classmethod
    def of(cls, name: str, config: PeftConfig, source: Source) -> _Parameter:
        shape = None if source.base is None else parameter_shape(source.base, name)
        return cls(name, config.rank(name), config.alpha_of(name), shape, config.where)

    def experts(self, pair: Stored) -> int:
        """How many experts a pair of the parameter holds."""
        if self.rank is not None:
            return pair.rows // self.rank
        if self.shape is None:
            raise FormatError(
                f"The rank of the parameter {shown(self.name)} is unknown, and with it the number of experts that its "
                f"pair holds: there is no r in {self.where}; give the base model as `base`"
            )
        return self.shape[0] if len(self.shape) == 3 else 1

    def fits(self, pair: Stored) -> bool:
        """Whether a pair can be of the parameter, by its rank and by its shape in the base."""
        if self.rank is not None and pair.rows % self.rank:
            return False
        sides = (pair.d_out, pair.d_in), (pair.d_in, pair.d_out)
        if self.shape is None:
            return True
        number = self.shape[0] if len(self.shape) == 3 else 1
        return number == self.experts(pair) and pair.rows % number == 0 and self.shape[-2:] in sides


def _fits(pairs: Mapping[str, Stored], order: Mapping[str, _Parameter]) -> bool:
    """Whether every pair can be of its parameter, with one number of experts; a parameter may have none."""
    if not all(parameter.fits(pairs[module]) for module, parameter in order.items()):
        return False
    return len({parameter.experts(pairs[module]) for module, parameter in order.items()} - {1}) <= 1


def _is_gated(pairs: Mapping[str, Stored], order: Mapping[str, str]) -> bool:
    """Whether one pair is of two layers in one (gate and up) from d to 2 m, and another of the layer from m to d."""
    by_name = {name: pairs[module] for module, name in order.items()}
    up, down = by_name.get("gate_up_proj"), by_name.get("down_proj")
    if up is None or down is None:
        return False
    # PEFT has the sides the other way round for models that store (experts, d_in, d_out)
    return (up.d_in, up.d_out) == (down.d_out, 2 * down.d_in) or (up.d_out, up.d_in) == (
        down.d_in,
        2 * down.d_out,
    )


def _alike(
    own: str,
    pairs: Mapping[str, Stored],
    orders: Sequence[Mapping[str, str]],
    known: Mapping[str, _Parameter],
) -> dict[str, Target]:
    """The pairs under their stored names, where it makes no difference which parameter each is of."""
    found = {}
    for module, pair in pairs.items():
        could_be = [known[name] for name in dict.fromkeys(order[module] for order in orders)]
        first = could_be[0]
        if any((other.rank, other.alpha) != (first.rank, first.alpha) for other in could_be):
            raise FormatError(
                f"Cannot tell which parameter of module {shown(own)} the pair {shown(module)} is of: "
                f"{listed(shown(other.name) for other in could_be)} have different ranks or alphas, in {first.where}; "
                "give the base model as `base`"
            )
        found[module] = Target(module, first.name, first.experts(pair))
    return found


def _unsure(modules: Collection[str]) -> str:
    return (
        f"The file does not say which of target_parameters each pair of {listed(modules)} is of, so the names of their "
        "updates are those of the file; give `base` to name them by the parameters"
    )
