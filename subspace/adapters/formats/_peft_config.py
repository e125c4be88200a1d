"""The fields of PEFT's ``adapter_config.json`` that decide scale and layout, checked; all others are left alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from subspace.adapters.format import scale_unknown
from subspace.adapters.naming.peft_patterns import Patterns
from subspace.adapters.update import Scale
from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["PeftConfig"]

_LARGEST = 1e300  # a whole number of JSON may be longer than a float
_FLAGS = ("use_rslora", "use_dora", "fan_in_fan_out")
_MUTATING = ("pissa", "olora", "corda", "loftq", "lora_ga")
# variants whose delta_W is not scale * B @ A of the stored factors (peft/tuners/lora/variants.py, 0.21)
_OTHER_UPDATES = {
    "use_qalora": "QA-LoRA, whose A is of pooled inputs",
    "use_bdlora": "BD-LoRA, whose factors are block diagonal",
    "kasa_config": "KaSA, which has singular values between A and B and truncates the base",
}


@dataclass(frozen=True)
class PeftConfig:
    """What the configuration says; `r` and `alpha` are None where it does not say them.

    Source: peft/tuners/lora/layer.py, ``update_layer``: ``scaling = lora_alpha / sqrt(r) if use_rslora else
    lora_alpha / r``; peft/tuners/lora/model.py, ``_create_and_replace``, for the patterns.
    """

    where: str
    r: int | None
    alpha: float | None
    use_rslora: bool
    use_dora: bool
    fan_in_fan_out: bool | None
    enable_lora: tuple[bool, ...] | None
    init: str | None
    ranks: Patterns[int]
    alphas: Patterns[float]
    typed: bool = True
    replicated: bool = False
    parameters: tuple[str, ...] = ()

    @classmethod
    def parse(cls, config: Mapping[str, Any], where: str) -> PeftConfig:
        """Check a configuration.

        Raises
        ------
        FormatError : a field that decides scale or layout has a value that it cannot have
        """
        for name in _FLAGS:
            if not isinstance(config.get(name, False), bool | None):
                raise _bad(name, "true or false", config[name], where)
        for name, what in _OTHER_UPDATES.items():
            if config.get(name):
                raise FormatError(f"delta_W must be scale * B @ A: got {what}, in {where}; it is not read")
        targets = config.get("target_modules")
        if not isinstance(targets, str | list | None):
            raise _bad("target_modules", "text or a list", targets, where)
        return cls(
            where=where,
            r=_integer("r", config.get("r"), where),
            alpha=_positive("lora_alpha", config.get("lora_alpha"), where),
            use_rslora=bool(config.get("use_rslora")),
            use_dora=bool(config.get("use_dora")),
            fan_in_fan_out=config.get("fan_in_fan_out"),
            enable_lora=_enabled(config.get("enable_lora"), where),
            init=_init(config.get("init_lora_weights")),
            ranks=_patterns("rank_pattern", config.get("rank_pattern"), _integer, where),
            alphas=_patterns("alpha_pattern", config.get("alpha_pattern"), _positive, where),
            typed=config.get("peft_type") is not None,
            replicated=bool(config.get("layer_replication")),
            parameters=_texts("target_parameters", config.get("target_parameters"), where),
        )

    def scale(self, module: str, r: int) -> Scale:
        """Scale of one module whose factors have rank `r`.

        Raises
        ------
        FormatError : the configuration declares another rank for the module
        """
        declared = self._rank(module)
        if declared is not None and declared != r:
            raise FormatError(
                f"configuration and factors must agree on the rank: got r = {declared} in {self.where} and "
                f"{r} in the factors of module {shown(module)}; take the configuration that was saved with them"
            )
        alpha = self._set(self.alphas, "alpha_pattern", module) or self.alpha
        if alpha is None:
            return Scale(None, "unknown")
        if self.use_rslora:
            return Scale(alpha / math.sqrt(r), "config alpha/sqrt(r)", alpha)
        return Scale(alpha / r, "config alpha/r", alpha)

    def experts(self, module: str, r: int) -> int:
        """How many experts share a pair of r rows: 1 unless the pair is of one of ``target_parameters``.

        Source: peft/tuners/lora/layer.py, ``ParamWrapper``: A has r rows for each expert.
        """
        declared = self._rank(module)
        targeted = self._names(module) != [module]
        return r // declared if targeted and declared and r % declared == 0 else 1

    def _rank(self, module: str) -> int | None:
        return self._set(self.ranks, "rank_pattern", module) or self.r

    def _names(self, module: str) -> list[str]:
        """What PEFT calls a module when it matches patterns: a parameter by its own name, any other layer as it is."""
        own = re.sub(r"(\.base_layer)+$", "", module)
        targets = [name.rpartition(".") for name in self.parameters]
        named = [
            f"{own}.{last}" for parent, _, last in targets if parent and f".{own}".endswith(f".{parent}")
        ]
        return named or [module]

    def _set(self, patterns: Patterns[Any], field: str, module: str) -> Any:
        """Value of the patterns for a module, None if they have none."""
        values = {patterns.match(name) for name in self._names(module)}
        if len(values) > 1:
            raise FormatError(
                f"{field} must set the parameters of one module alike: got {shown(sorted(map(str, values)))}, in "
                f"module {shown(module)} of {self.where}; the factors do not say which parameter they are of"
            )
        return values.pop()

    def notes(self) -> list[str]:
        """What a reader must be told: patterns without a module, a start that changes the base weights."""
        told = []
        for name, patterns in (("rank_pattern", self.ranks), ("alpha_pattern", self.alphas)):
            lost = patterns.unmatched()
            if lost:
                told.append(f"{name} of {self.where} names no module of the file: {shown(', '.join(lost))}")
        if not self.typed:
            told.append(f"peft_type is not given in {self.where}: LORA is taken for granted")
        if self.r is None:
            told.append(f"r is not given in {self.where}: the rank of the factors is used")
        if self.alpha is None:
            told.append(scale_unknown(f"no lora_alpha in {self.where}"))
        if self.replicated:
            told.append(
                f"layer_replication is set in {self.where}: layers are counted in the model after replication"
            )
        if self.init is not None and self.init.startswith(_MUTATING):
            told.append(
                f"init_lora_weights is {shown(self.init)}: delta_W is relative to base weights that this start changed"
            )
        return told


def _bad(name: str, wanted: str, got: object, where: str) -> FormatError:
    return FormatError(f"{name} must be {wanted}: got {shown(repr(got))}, in {where}")


def _integer(name: str, value: object, where: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise _bad(name, "a positive whole number", value, where)
    return value


def _positive(name: str, value: object, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LARGEST:
        raise _bad(name, "a positive number", value, where)
    return float(value)


def _enabled(value: object, where: str) -> tuple[bool, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(on, bool) for on in value):
        raise _bad("enable_lora", "a list of true and false", value, where)
    return tuple(value)


def _texts(name: str, value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _bad(name, "a list of names", value, where)
    return tuple(value)


def _init(value: object) -> str | None:
    return value.lower() if isinstance(value, str) else None


def _patterns(name: str, value: object, check: Any, where: str) -> Patterns[Any]:
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise _bad(name, "an object of module patterns", value, where)
    for key, number in value.items():
        if number is None or check(f"{name}[{shown(key)}]", number, where) is None:
            raise _bad(f"{name}[{shown(key)}]", "a number", number, where)
    return Patterns({str(key): number for key, number in value.items()}, where=f"{name} of {where}")
