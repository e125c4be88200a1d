"""Names of torchtune and of Meta, ``layers.0.attn.q_proj`` and ``layers.0.attention.wq``, for LLaMA-like models."""

from __future__ import annotations

import re
from functools import partial

from subspace.adapters.naming.writers._names import ModelNames, WriterNames, by_layer, by_model

__all__ = ["NAMES"]

_LAYER = re.compile(r"(?:decoder\.)?layers\.(?P<n>[0-9]+)\.(?P<part>.+)")
_THERE = {
    "q_proj": ("attn.q_proj", "attention.wq"),
    "k_proj": ("attn.k_proj", "attention.wk"),
    "v_proj": ("attn.v_proj", "attention.wv"),
    "o_proj": ("attn.output_proj", "attention.wo"),
    "gate_proj": ("mlp.w1", "feed_forward.w1"),
    "down_proj": ("mlp.w2", "feed_forward.w2"),
    "up_proj": ("mlp.w3", "feed_forward.w3"),
}
_LLAMA = {
    part: f"layers.{{n}}.{'self_attn' if name[0] in 'qkvo' else 'mlp'}.{name}"
    for name, parts in _THERE.items()
    for part in parts
}
_PARTS = {part: (name,) for part, name in _LLAMA.items()}
_WHOLE = {"tok_embeddings": "model.embed_tokens", "output": "lm_head"}
_REORDERED = re.compile(r"(?:decoder\.)?layers\.[0-9]+\.(?:attn\.[qk]_proj|attention\.w[qk])")


def _reordered(module: str, there: str) -> bool:
    """Whether rotary embeddings pair neighbouring rows, where Hugging Face pairs rows of the two halves."""
    return _REORDERED.fullmatch(module) is not None


NAMES = WriterNames(
    name="torchtune",
    about="torchtune and Meta LLaMA (torchtune 0.6, models/convert_weights.py: _FROM_META, _FROM_HF, _permute)",
    translate=partial(by_layer, layer=_LAYER, parts=_PARTS, whole=_WHOLE),
    reordered=_reordered,
    full_names=partial(by_model, layer=_LAYER, models={"LLaMA": ModelNames("model.", _LLAMA, _WHOLE)}),
)
