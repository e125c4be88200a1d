"""Types of PEFT adapters that are not read, and why; their parameters have names of their own.

A type is missing here where a format reads it. The names tell a file without its configuration from one with pairs
of A and B, whose names some parameters resemble: ``hira_A``, ``delora_B``, ``supertuning_lora_A``.

References
----------
huggingface/peft 0.21.2: ``adapter_layer_names`` of the layers in ``peft.tuners``.
"""

from __future__ import annotations

from typing import NamedTuple

from subspace.adapters.format import Source

__all__ = ["peft_type", "type_by_keys", "why_not_read"]


class _Type(NamedTuple):
    """Why a type is not read, as a clause about the adapter, and the names of its parameters."""

    why: str
    parameters: tuple[str, ...] = ()


_PROMPT = "which trains prompts and changes no weight"
_BY_BASE = "whose delta_W depends on the base weight"
_TYPES = {
    "ADAMSS": _Type(f"{_BY_BASE}: its factors act in subspaces of it", ("adamss_A", "adamss_B")),
    "ADAPTION_PROMPT": _Type(_PROMPT, ("adaption_prompt", "adaption_gate")),
    "BEFT": _Type("which trains biases and changes no weight", ("beft_bias",)),
    "BONE": _Type(f"{_BY_BASE}: it adds one block to all blocks of it", ("bone_block",)),
    "C3A": _Type("whose delta_W is made of circulant blocks, not of A and B", ("c3a_kernel",)),
    "CARTRIDGE": _Type(_PROMPT),
    "CPT": _Type(_PROMPT),
    "DEFT": _Type(f"{_BY_BASE}: it takes directions out of it before it adds others", ("deft_P", "deft_R")),
    "DELORA": _Type(
        f"{_BY_BASE}: its directions are normalised and scaled by norms of it", ("delora_A", "delora_B")
    ),
    "FOURIERFT": _Type("whose delta_W is a Fourier transform of a few numbers", ("fourierft_spectrum",)),
    "FROD": _Type(f"{_BY_BASE}: it changes a joint decomposition of its layers", ("frod_lambda_l", "frod_V")),
    "GLORA": _Type(f"{_BY_BASE}: it multiplies and adds, W A + B", ("glora_A", "glora_B")),
    "GRALORA": _Type("whose A and B are of blocks of the weight that are mixed", ("gralora_A", "gralora_B")),
    "HIRA": _Type(
        f"{_BY_BASE}: it is multiplied by B A number by number", ("hira_A", "hira_B", "hira_embedding_A")
    ),
    "HRA": _Type(f"{_BY_BASE}: it is reflected", ("hra_u",)),
    "LILY": _Type("whose layers share A and B, which a router mixes by the input", ("lily_A", "lily_B")),
    "LN_TUNING": _Type("which trains norm layers and changes no matrix", ("ln_tuning_layers",)),
    "MISS": _Type("which adds one block to all blocks of a weight, not B A", ("miss_block",)),
    "MULTITASK_PROMPT_TUNING": _Type(_PROMPT),
    "OSF": _Type(
        f"{_BY_BASE}: it trains the lower part of its singular value decomposition", ("osf_svd_params",)
    ),
    "PEANUT": _Type("whose change of the output is not linear in the input", ("peanut_A", "peanut_B")),
    "POLY": _Type("which mixes several A and B by the task", ("poly_lora_A", "poly_lora_B")),
    "PREFIX_TUNING": _Type(_PROMPT),
    "PROMPT_TUNING": _Type(_PROMPT),
    "PSOFT": _Type(f"{_BY_BASE}: it rotates its leading directions", ("psoft_R",)),
    "PVERA": _Type("whose delta_W is random at every step", ("pvera_lambda_b", "pvera_lambda_d")),
    "P_TUNING": _Type(_PROMPT),
    "RANDLORA": _Type(
        "whose delta_W is a sum of random matrices, of full rank", ("randlora_lambda", "randlora_gamma")
    ),
    "ROAD": _Type("which rotates the outputs of a layer", ("road_theta", "road_alpha")),
    "SHADOW": _Type(
        "which trains a network next to the model and changes no weight", ("shadow_down", "shadow_up")
    ),
    "SHIRA": _Type("whose delta_W is sparse, not B A", ("shira_weight",)),
    "SUPERTUNING": _Type(
        "whose delta_W is sparse, with or without B A added", ("supertuning_values", "supertuning_lora_A")
    ),
    "TINYLORA": _Type(f"{_BY_BASE}: its A and B are singular vectors of it", ("tinylora_v",)),
    "TRAINABLE_TOKENS": _Type("which trains rows of an embedding in full", ("trainable_tokens_delta",)),
    "UNILORA": _Type("which is one vector and has no A and B", ("unilora_theta_d",)),
    "VBLORA": _Type("whose A and B are mixed from a bank of vectors", ("vblora_logits_A", "vblora_logits_B")),
    "WAVEFT": _Type("whose delta_W is a wavelet transform of a few numbers", ("waveft_spectrum",)),
    "XLORA": _Type("which mixes several adapters by the input", ("internal_xlora_classifier",)),
}
_BY_PARAMETER = {parameter: name for name, known in _TYPES.items() for parameter in known.parameters}
_LEARNED_TOKENS = "TRAINABLE_TOKENS"  # which LoRA may have too


def peft_type(source: Source) -> str | None:
    """The type in the configuration of PEFT, None if there is none."""
    value = (source.config or {}).get("peft_type")
    return value if isinstance(value, str) else None


def why_not_read(name: str) -> str | None:
    """The clause that says why adapters of a type are not read, None for a type that is not known."""
    known = _TYPES.get(name)
    return known.why if known else None


def type_by_keys(source: Source) -> str | None:
    """The type, of those that are not read, that has such keys, None if none has; for a file without configuration.

    Examples
    --------
    >>> from subspace.checkpoints import from_memory
    >>> import numpy as np
    >>> type_by_keys(Source(from_memory({"h.0.q.hira_A": np.ones((2, 4))})))
    'HIRA'
    """
    for key in source.tensors.layout:
        for part in key.split("."):
            if _BY_PARAMETER.get(part, _LEARNED_TOKENS) != _LEARNED_TOKENS:
                return _BY_PARAMETER[part]
    return None
