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

    Of the components of a pipeline, that of the first which has one.

    >>> start_that_changes_base({"text_encoder.init_lora_weights": True, "unet.init_lora_weights": "olora"})
    'olora'
    """
    values = (value for key, value in config.items() if f".{key}".endswith(".init_lora_weights"))
    return next((v for v in values if isinstance(v, str) and v.lower().startswith(_CHANGING)), None)
