"""Flux's own names, ``double_blocks.0.img_attn.qkv``, as Black Forest Labs, ComfyUI, ai-toolkit and kohya write them.

q, k and v (and the first layer of the MLP in a single block) are one layer there: rows of it are named in brackets.
"""

from __future__ import annotations

from functools import partial

from subspace.adapters.naming.writers._names import WriterNames, by_block

__all__ = ["NAMES"]

_DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    **{f"attn.to_{x}": f"img_attn.qkv[{x}]" for x in "qkv"},
    **{f"attn.add_{x}_proj": f"txt_attn.qkv[{x}]" for x in "qkv"},
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
    # Flux 2
    "ff.linear_in": "img_mlp.0",
    "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0",
    "ff_context.linear_out": "txt_mlp.2",
}
_SINGLE = {
    "norm.linear": "modulation.lin",
    **{f"attn.to_{x}": f"linear1[{x}]" for x in "qkv"},
    "proj_mlp": "linear1[mlp]",
    "proj_out": "linear2",
    # Flux 2
    "attn.to_qkv_mlp_proj": "linear1",
    "attn.to_out": "linear2",
}
_EMBEDDERS = {
    "time_text_embed.timestep_embedder": "time_in",
    "time_text_embed.text_embedder": "vector_in",
    "time_text_embed.guidance_embedder": "guidance_in",
    "time_guidance_embed.timestep_embedder": "time_in",
    "time_guidance_embed.guidance_embedder": "guidance_in",
}
_LAST = "norm_out.linear"
_WHOLE = {
    **{f"{there}.linear_1": f"{here}.in_layer" for there, here in _EMBEDDERS.items()},
    **{f"{there}.linear_2": f"{here}.out_layer" for there, here in _EMBEDDERS.items()},
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "proj_out": "final_layer.linear",
    _LAST: "final_layer.adaLN_modulation.1",
    **{
        f"{x}_stream_modulation{y}.linear": f"{x}_stream_modulation{y}.lin"
        for x, y in (("single", ""), ("double", "_img"), ("double", "_txt"))
    },
}
_BLOCKS = {
    "transformer_blocks": ("double_blocks", _DOUBLE),
    "single_transformer_blocks": ("single_blocks", _SINGLE),
}


def _reordered(module: str, there: str) -> bool:
    """Whether shift and scale are in the other order, as ``swap_scale_shift`` of diffusers has it."""
    return module.removeprefix("transformer.") == _LAST


NAMES = WriterNames(
    name="Flux",
    about="Flux (huggingface/diffusers 0.42.1, loaders/lora_conversion_utils.py: "
    "_convert_kohya_flux_lora_to_diffusers, _convert_bfl_flux_control_lora_to_diffusers, "
    "_convert_non_diffusers_flux2_lora_to_diffusers)",
    translate=partial(by_block, blocks=_BLOCKS, whole=_WHOLE),
    reordered=_reordered,
)
