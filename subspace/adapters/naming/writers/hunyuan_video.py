"""HunyuanVideo's own names, ``double_blocks.0.img_attn_qkv``; rows of a fused layer are named in brackets."""

from __future__ import annotations

from functools import partial

from subspace.adapters.naming.writers._names import WriterNames, by_block

__all__ = ["NAMES"]

_DOUBLE = {
    "norm1.linear": "img_mod.linear",
    "norm1_context.linear": "txt_mod.linear",
    **{f"attn.to_{x}": f"img_attn_qkv[{x}]" for x in "qkv"},
    **{f"attn.add_{x}_proj": f"txt_attn_qkv[{x}]" for x in "qkv"},
    "attn.to_out.0": "img_attn_proj",
    "attn.to_add_out": "txt_attn_proj",
    "ff.net.0.proj": "img_mlp.fc1",
    "ff.net.2": "img_mlp.fc2",
    "ff_context.net.0.proj": "txt_mlp.fc1",
    "ff_context.net.2": "txt_mlp.fc2",
}
_SINGLE = {
    "norm.linear": "modulation.linear",
    **{f"attn.to_{x}": f"linear1[{x}]" for x in "qkv"},
    "proj_mlp": "linear1[mlp]",
    "proj_out": "linear2",
}
_REFINER = {
    **{f"attn.to_{x}": f"self_attn_qkv[{x}]" for x in "qkv"},
    "attn.to_out.0": "self_attn_proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
    "norm_out.linear": "adaLN_modulation.1",
}
_BLOCKS = {
    "transformer_blocks": ("double_blocks", _DOUBLE),
    "single_transformer_blocks": ("single_blocks", _SINGLE),
    "context_embedder.token_refiner.refiner_blocks": ("txt_in.individual_token_refiner.blocks", _REFINER),
}

NAMES = WriterNames(
    name="HunyuanVideo",
    about="HunyuanVideo (huggingface/diffusers 0.42.1, loaders/lora_conversion_utils.py: "
    "_convert_hunyuan_video_lora_to_diffusers)",
    translate=partial(by_block, blocks=_BLOCKS, whole={}),
)
