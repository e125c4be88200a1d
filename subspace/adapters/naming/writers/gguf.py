"""llama.cpp's names: ``blk.0.attn_q``, for LLaMA-like models and GPT-2."""

from __future__ import annotations

import re
from functools import partial

from subspace.adapters.naming.writers._names import ModelNames, WriterNames, by_layer, by_model

__all__ = ["NAMES"]

_LAYER = re.compile(r"blk\.(?P<n>[0-9]+)\.(?P<part>.+)")
_LLAMA = {
    "attn_q": "layers.{n}.self_attn.q_proj",
    "attn_k": "layers.{n}.self_attn.k_proj",
    "attn_v": "layers.{n}.self_attn.v_proj",
    "attn_output": "layers.{n}.self_attn.o_proj",
    "ffn_gate": "layers.{n}.mlp.gate_proj",
    "ffn_up": "layers.{n}.mlp.up_proj",
    "ffn_down": "layers.{n}.mlp.down_proj",
}
_GPT2 = {
    "attn_qkv": "h.{n}.attn.c_attn",
    "attn_output": "h.{n}.attn.c_proj",
    "ffn_up": "h.{n}.mlp.c_fc",
    "ffn_down": "h.{n}.mlp.c_proj",
}
_PHI3 = {
    "attn_qkv": "layers.{n}.self_attn.qkv_proj",
    "attn_output": "layers.{n}.self_attn.o_proj",
    "ffn_up": "layers.{n}.mlp.gate_up_proj",
    "ffn_down": "layers.{n}.mlp.down_proj",
}
_WHOLE = {"token_embd": "embed_tokens", "output": "lm_head"}
_MODEL = {"token_embd": "model.embed_tokens", "output": "lm_head"}
_MODELS = {
    "LLaMA": ModelNames("model.", _LLAMA, _MODEL),
    "GPT-2": ModelNames("transformer.", _GPT2, {"token_embd": "transformer.wte", "output": "lm_head"}),
    "Phi-3": ModelNames("model.", _PHI3, _MODEL),
}
_PARTS = {
    part: tuple(dict.fromkeys(parts[part] for parts in (_LLAMA, _GPT2, _PHI3) if part in parts))
    for part in _LLAMA | _GPT2
}
_REORDERED = re.compile(r"blk\.[0-9]+\.attn_[qk]")


def _reordered(module: str) -> bool:
    """Whether llama.cpp may have reordered the rows, as it does for LLaMA, Mistral and models like them."""
    return _REORDERED.fullmatch(module) is not None


NAMES = WriterNames(
    name="llama.cpp",
    about="GGUF (ggml-org/llama.cpp, gguf-py/gguf/tensor_mapping.py; convert_hf_to_gguf.py: LlamaModel.permute)",
    translate=partial(by_layer, layer=_LAYER, parts=_PARTS, whole=_WHOLE),
    reordered=_reordered,
    full_names=partial(by_model, layer=_LAYER, models=_MODELS),
)
