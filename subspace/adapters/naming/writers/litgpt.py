"""LitGPT's names: ``transformer.h.0.attn.qkv[q]``, for LLaMA-like models."""

from __future__ import annotations

import re
from functools import partial

from subspace.adapters.naming.writers._names import ModelNames, WriterNames, by_layer, by_model

__all__ = ["NAMES"]

_LAYER = re.compile(r"(?:transformer\.)?h\.(?P<n>[0-9]+)\.(?P<part>.+)")
_LLAMA = {
    **{f"attn.{qkv}[{x}]": f"layers.{{n}}.self_attn.{x}_proj" for qkv in ("qkv", "attn") for x in "qkv"},
    "attn.proj": "layers.{n}.self_attn.o_proj",
    "mlp.fc_1": "layers.{n}.mlp.gate_proj",
    "mlp.fc_2": "layers.{n}.mlp.up_proj",
    "mlp.proj": "layers.{n}.mlp.down_proj",
}
_WHOLE = {"lm_head": "lm_head", "transformer.wte": "model.embed_tokens"}
_PARTS = {part: (name,) for part, name in _LLAMA.items()}

NAMES = WriterNames(
    name="LitGPT",
    about="LitGPT (Lightning-AI/litgpt, litgpt/scripts/convert_lit_checkpoint.py: copy_weights_llama)",
    translate=partial(by_layer, layer=_LAYER, parts=_PARTS, whole={}),
    full_names=partial(by_model, layer=_LAYER, models={"LLaMA": ModelNames("model.", _LLAMA, _WHOLE)}),
)
