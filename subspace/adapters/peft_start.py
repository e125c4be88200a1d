"""Starts of PEFT that change the base weights, so that ``delta_W`` is not relative to those of the published model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["start_that_changes_base"]

# peft/tuners/lora/layer.py 0.21, ``update_layer``: some have a suffix, as in "pissa_niter_16"
_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")


def start_that_changes_base(config: Mapping[str, Any]) -> str | None:
    """``init_lora_weights`` of a configuration where it changes the base weights, else None.

    Examples
    --------
    >>> start_that_changes_base({"init_lora_weights": "pissa_niter_16"})
    'pissa_niter_16'
    >>> start_that_changes_base({"init_lora_weights": "gaussian"})
    """
    value = config.get("init_lora_weights")
    return value if isinstance(value, str) and value.lower().startswith(_CHANGING) else None
