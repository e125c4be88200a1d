"""The fields of PEFT's ``adapter_config.json`` that decide scale and layout, checked; others are not looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from subspace.adapters.format import scale_unknown
from subspace.adapters.naming.peft_patterns import Patterns
from subspace.adapters.peft_start import start_that_changes_base
from subspace.adapters.plain_values import plain
from subspace.adapters.update import Scale
from subspace.errors import FormatError
from subspace.text import listed, shown

__all__ = ["PeftConfig"]

_LARGEST = 1e300  # a whole number in JSON may be too large for a float
_JSON_WORDS = {None: "null", True: "true", False: "false"}
_FLAGS = ("use_rslora", "use_dora", "fan_in_fan_out")
# variants whose delta_W is not scale * B @ A of the stored factors (peft/tuners/lora/variants.py, 0.21)
_OTHER_UPDATES = {
    "use_qalora": "QA-LoRA (its A is of pooled inputs)",
    "use_bdlora": "BD-LoRA (its factors are block diagonal)",
    "kasa_config": "KaSA (it has singular values between A and B and truncates the base)",
    "arrow_config": "Arrow (it routes between other adapters and has no delta_W of its own)",
}


@dataclass(frozen=True)
class PeftConfig:
    """What the configuration says; `r` and `alpha` are None where it does not say them.

    References
    ----------
    peft/tuners/lora/layer.py, ``update_layer``: ``scaling = lora_alpha / sqrt(r) if use_rslora else lora_alpha / r``;
    peft/tuners/lora/model.py, ``_create_and_replace``, for the patterns.
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
    conditional: bool = False
    outer: str = ""

    @classmethod
    def parse(cls, config: Mapping[str, Any], where: str, *, outer: str = "") -> PeftConfig:
        """Read and check a configuration, of a file or of a model in memory.

        Parameters
        ----------
        where : names it in messages
        outer : what the names of modules begin with that the configuration does not know, as `Source.outer`

        Raises
        ------
        FormatError : a field that decides scale or layout has an invalid value
        """
        config = plain(config)
        for name in _FLAGS:
            if not isinstance(config.get(name, False), bool | None):
                raise _invalid(name, "true or false", config[name], where)
        for name, what in _OTHER_UPDATES.items():
            if config.get(name):
                raise FormatError(f"The adapter is of a kind that is not supported: {what}, in {where}")
        targets = config.get("target_modules")
        if not isinstance(targets, str | list | None):
            raise _invalid("target_modules", "text or a list", targets, where)
        return cls(
            where=where,
            r=_integer("r", config.get("r"), where),
            alpha=_positive("lora_alpha", config.get("lora_alpha"), where),
            use_rslora=bool(config.get("use_rslora")),
            use_dora=bool(config.get("use_dora")),
            fan_in_fan_out=config.get("fan_in_fan_out"),
            enable_lora=_enabled(config.get("enable_lora"), where),
            init=start_that_changes_base(config),
            ranks=_patterns("rank_pattern", config.get("rank_pattern"), _integer, where),
            alphas=_patterns("alpha_pattern", config.get("alpha_pattern"), _positive, where),
            typed=config.get("peft_type") is not None,
            replicated=bool(config.get("layer_replication")),
            parameters=_texts("target_parameters", config.get("target_parameters"), where),
            conditional=config.get("alora_invocation_tokens") is not None,
            outer=outer,
        )

    def scale(self, module: str, r: int, *, matched: str | None = None) -> Scale:
        """Scale of one module whose factors have rank `r`, and which PEFT matches patterns with as `matched`.

        Raises
        ------
        FormatError : the configuration declares another rank for the module
        """
        declared = self.rank(matched or module)
        if declared is not None and declared != r:
            raise FormatError(
                f"The configuration and the factors have different ranks: r = {declared} in {self.where} and {r} in "
                f"the factors of module {shown(module)}; use the configuration that was saved with them"
            )
        alpha = self.alpha_of(matched or module)
        if alpha is None:
            return Scale(None, "unknown")
        if self.use_rslora:
            return Scale(alpha / math.sqrt(r), "config alpha/sqrt(r)", alpha)
        return Scale(alpha / r, "config alpha/r", alpha)

    def rank(self, module: str) -> int | None:
        """The rank that the configuration declares for a module or parameter, None if it declares none."""
        return self.ranks.match(self._own(module)) or self.r

    def alpha_of(self, module: str) -> float | None:
        """The alpha that the configuration declares for a module or parameter, None if it declares none."""
        return self.alphas.match(self._own(module)) or self.alpha

    def _own(self, module: str) -> str:
        return module.removeprefix(self.outer)

    def notes(self) -> list[str]:
        """What the configuration leaves open, and what to know before reading numbers."""
        notes = []
        for name, patterns in (("rank_pattern", self.ranks), ("alpha_pattern", self.alphas)):
            unmatched = patterns.unmatched()
            if unmatched:
                notes.append(f"No module of the file matches {listed(unmatched)}, in {name} of {self.where}")
        if not self.typed:
            notes.append(f"There is no peft_type in {self.where}, so LORA is assumed")
        if self.r is None:
            notes.append(f"There is no r in {self.where}, so the rank of the factors is used")
        if self.alpha is None:
            notes.append(scale_unknown(f"there is no lora_alpha in {self.where}"))
        if self.replicated:
            notes.append(
                f"Layers are counted after replication, since layer_replication is set in {self.where}"
            )
        if self.conditional:
            notes.append(
                "The adapter is aLoRA, which applies delta_W only to the tokens after its invocation tokens"
            )
        if self.init is not None:
            notes.append(
                f"PEFT changed the base weights at the start (init_lora_weights is {shown(self.init)}), and delta_W is "
                "relative to the changed ones"
            )
        return notes


def _invalid(name: str, wanted: str, value: object, where: str) -> FormatError:
    written = _JSON_WORDS[value] if value is None or isinstance(value, bool) else repr(value)
    return FormatError(f"Invalid {name}: {shown(written)} is not {wanted}, in {where}")


def _integer(name: str, value: object, where: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise _invalid(name, "a positive whole number", value, where)
    return value


def _positive(name: str, value: object, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LARGEST:
        raise _invalid(name, "a positive number", value, where)
    return float(value)


def _enabled(value: object, where: str) -> tuple[bool, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(on, bool) for on in value):
        raise _invalid("enable_lora", "a list of true and false", value, where)
    return tuple(value)


def _texts(name: str, value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _invalid(name, "a list of names", value, where)
    return tuple(value)


def _patterns(name: str, value: object, check: Any, where: str) -> Patterns[Any]:
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise _invalid(name, "an object of module patterns", value, where)
    for key, number in value.items():
        if number is None or check(f"{name}[{shown(key)}]", number, where) is None:
            raise _invalid(f"{name}[{shown(key)}]", "a number", number, where)
    return Patterns({str(key): number for key, number in value.items()}, where=f"{name} of {where}")
