"""The files of a PEFT adapter: names, keys and configuration, whoever writes them.

References
----------
huggingface/peft 0.21, utils/save_and_load.py: ``get_peft_model_state_dict``, for the keys; tuners/lora/config.py:
``LoraConfig``, for the configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from subspace.checkpoints.tensor_bytes import StoredTensor, safetensors_bytes
from subspace.checkpoints.weights_files import ADAPTER_WEIGHTS, CONFIG

__all__ = ["PREFIX", "WEIGHTS", "config_text", "factor_keys", "lora_config", "peft_files"]

PREFIX = "base_model.model."
WEIGHTS = ADAPTER_WEIGHTS[0]


def factor_keys(module: str, *, embedding: bool = False) -> tuple[str, str]:
    """Keys of A and B of a module.

    Examples
    --------
    >>> factor_keys("h.0.q")
    ('base_model.model.h.0.q.lora_A.weight', 'base_model.model.h.0.q.lora_B.weight')
    >>> factor_keys("wte", embedding=True)[0]
    'base_model.model.wte.lora_embedding_A'
    """
    part, suffix = ("lora_embedding_", "") if embedding else ("lora_", ".weight")
    return f"{PREFIX}{module}.{part}A{suffix}", f"{PREFIX}{module}.{part}B{suffix}"


def lora_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a LoRA adapter: `fields`, and what PEFT expects besides.

    Parameters
    ----------
    fields : ``r``, ``lora_alpha`` and ``target_modules`` at least
    """
    return {
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "task_type": None,
        **fields,
        "peft_type": "LORA",
    }


def config_text(config: Mapping[str, Any]) -> bytes:
    """Content of ``adapter_config.json``.

    Raises
    ------
    ValueError : a value that JSON does not have, such as NaN
    """
    return f"{json.dumps(config, indent=2, allow_nan=False)}\n".encode("ascii")


def peft_files(tensors: Mapping[str, StoredTensor], config: Mapping[str, Any]) -> dict[str, bytes]:
    """Name -> content of the two files of an adapter's directory.

    Parameters
    ----------
    tensors : key -> tensor; `factor_keys` are those of a pair
    config : of `lora_config`, or of another method of PEFT
    """
    return {WEIGHTS: safetensors_bytes(tensors, {"format": "pt"}), CONFIG: config_text(config)}
