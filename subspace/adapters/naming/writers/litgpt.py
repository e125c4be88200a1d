"""LitGPT's names: ``transformer.h.0.attn.qkv[q]``, for LLaMA-like models."""

from __future__ import annotations

import re
from functools import partial

from subspace.adapters.naming.writers._names import WriterNames, by_layer

__all__ = ["NAMES"]

_LAYER = re.compile(r"(?:transformer\.)?h\.(?P<n>[0-9]+)\.(?P<part>.+)")
_PARTS = {
    **{f"attn.{qkv}[{x}]": (f"layers.{{n}}.self_attn.{x}_proj",) for qkv in ("qkv", "attn") for x in "qkv"},
    "attn.proj": ("layers.{n}.self_attn.o_proj",),
    "mlp.fc_1": ("layers.{n}.mlp.gate_proj",),
    "mlp.fc_2": ("layers.{n}.mlp.up_proj",),
    "mlp.proj": ("layers.{n}.mlp.down_proj",),
}

NAMES = WriterNames(
    name="LitGPT",
    about="LitGPT (Lightning-AI/litgpt, litgpt/scripts/convert_lit_checkpoint.py: copy_weights_llama)",
    translate=partial(by_layer, layer=_LAYER, parts=_PARTS, whole={}),
)
