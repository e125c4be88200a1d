"""The fields of PEFT's ``adapter_config.json`` that decide what an adapter computes, read and written per module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["alpha_of", "matches", "number", "patterns", "require_plain"]

# each changes what the stored factors mean
_OTHERS = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "kasa_config",
    "arrow_config",
    "alora_invocation_tokens",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "lora_bias",
)
# other starts change the base
_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
# an expression from a file that somebody else wrote: without repetitions of what repeats
_EXPRESSION = re.compile(r"[\w.\\^$|()\[\]*-]{1,2000}")
_MOST_REPEATS = 4


def require_plain(config: Mapping[str, Any]) -> None:
    """Refuse a configuration of LoRA in which factors are something else than ``scale * B A`` of an unchanged base.

    Raises
    ------
    FormatError : it is one
    """
    for name in _OTHERS:
        if config.get(name):
            raise FormatError(
                f"The adapter is of a kind that cannot be loaded: it has {name}; load it with PEFT"
            )
    if config.get("bias", "none") not in ("none", None):
        raise FormatError(
            f"The adapter trains biases (bias {shown(config['bias'])}) and cannot be loaded; load it with PEFT"
        )
    if (start := config.get("init_lora_weights", True)) not in _STARTS:
        raise FormatError(
            f"The adapter is relative to a changed base (init_lora_weights {shown(start)}) and cannot be loaded; save "
            "it with PEFT's path_initial_model_for_weight_conversion first"
        )


def alpha_of(config: Mapping[str, Any], module: str) -> float:
    """Return the alpha of a module: that of the first key of ``alpha_pattern`` that matches, else ``lora_alpha``.

    References
    ----------
    peft/utils/other.py, ``get_pattern_key``.

    Examples
    --------
    >>> config = {"lora_alpha": 16, "alpha_pattern": {"layers.0.q": 4, ".*.v": 2}}
    >>> [alpha_of(config, f"model.layers.0.{name}") for name in "qkv"]
    [4.0, 16.0, 2.0]
    """
    pattern = config.get("alpha_pattern") or {}
    if not isinstance(pattern, Mapping):
        raise _invalid("alpha_pattern", pattern)
    for key in pattern:
        if re.fullmatch(rf"(?s:.*\.)?({_checked(key, 'alpha_pattern')})", module):
            return number(pattern, key)
    return number(config, "lora_alpha")


def number(values: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """Return a number of a configuration.

    Raises
    ------
    FormatError : there is none, and no default; it is something else
    """
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        raise _invalid(name, value)
    return float(value)


def matches(names: Any, module: str, *, where: str, any_end: bool = False) -> bool:
    """Return whether a list of names, or an expression, of a configuration matches a module.

    Parameters
    ----------
    names : list, expression or None
    module : its name
    where : the field
    any_end : whether a name of the list may be any end of the module's, not only one after a dot
    """
    if names is None:
        return False
    if isinstance(names, str):
        return re.fullmatch(_checked(names, where), module) is not None if names else False
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _invalid(where, names)
    return any(module == name or module.endswith(name if any_end else f".{name}") for name in names)


def _checked(expression: str, where: str) -> str:
    """An expression that can be matched in bounded time."""
    harmless = expression.count("*") <= _MOST_REPEATS and ")*" not in expression
    if not harmless or not _EXPRESSION.fullmatch(expression):
        raise FormatError(
            f"The expression {shown(expression)} in {where} is not one of names; write the names of the modules"
        )
    try:
        re.compile(expression)
    except re.error as error:
        raise _invalid(where, expression) from error
    return expression


def _invalid(name: str, value: object) -> FormatError:
    return FormatError(f"Invalid {shown(name)}: {shown(repr(value))}; save the adapter again")


def patterns(methods: Mapping[str, Any], common: Any) -> dict[str, dict[str, Any]]:
    """Return ``rank_pattern`` and ``alpha_pattern`` of modules whose rank or alpha is not the common one.

    Parameters
    ----------
    methods : method of each module, with `r` and `alpha`
    common : the method whose rank and alpha the configuration has

    Returns
    -------
    dict : empty where all modules have the common ones
    """
    if all((method.r, method.alpha) == (common.r, common.alpha) for method in methods.values()):
        return {}
    # each module by its whole name, which is the end of no other then
    keys = {name: f"^{re.escape(name)}" for name in methods}
    return {
        "rank_pattern": {keys[name]: method.r for name, method in methods.items()},
        "alpha_pattern": {keys[name]: method.alpha for name, method in methods.items()},
    }
