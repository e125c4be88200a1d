"""Wan's own names, ``blocks.0.self_attn.q``, as ComfyUI and musubi-tuner write them."""

from __future__ import annotations

from functools import partial

from subspace.adapters.naming.writers._names import WriterNames, by_block

__all__ = ["NAMES"]

_ATTENTION = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "o"}
_PARTS = {
    **{f"attn1.{there}": f"self_attn.{here}" for there, here in _ATTENTION.items()},
    **{f"attn2.{there}": f"cross_attn.{here}" for there, here in _ATTENTION.items()},
    "attn2.add_k_proj": "cross_attn.k_img",
    "attn2.add_v_proj": "cross_attn.v_img",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
_WHOLE = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "proj_out": "head.head",
}

NAMES = WriterNames(
    name="Wan",
    about="Wan (huggingface/diffusers 0.42.1, loaders/lora_conversion_utils.py: "
    "_convert_non_diffusers_wan_lora_to_diffusers, _convert_musubi_wan_lora_to_diffusers)",
    translate=partial(by_block, blocks={"blocks": ("blocks", _PARTS)}, whole=_WHOLE),
)
