"""Stable Diffusion 3's own names, ``joint_blocks.0.x_block.attn.qkv``; rows of a fused layer are named in brackets."""

from __future__ import annotations

from functools import partial

from subspace.adapters.naming.writers._names import WriterNames, by_block

__all__ = ["NAMES"]

_PARTS = {
    **{f"{attn}.to_{x}": f"x_block.{attn}.qkv[{x}]" for attn in ("attn", "attn2") for x in "qkv"},
    **{f"attn.add_{x}_proj": f"context_block.attn.qkv[{x}]" for x in "qkv"},
    "attn.to_out.0": "x_block.attn.proj",
    "attn2.to_out.0": "x_block.attn2.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
_WHOLE = {
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}


def _reordered(module: str, there: str) -> bool:
    """Whether shift and scale are in the other order: in the last layer, and in the last block for the text."""
    return module.endswith(("norm_out.linear", "norm1_context.linear"))


NAMES = WriterNames(
    name="Stable Diffusion 3",
    about="Stable Diffusion 3 (huggingface/diffusers 0.42.1, loaders/single_file_utils.py: "
    "convert_sd3_transformer_checkpoint_to_diffusers)",
    translate=partial(by_block, blocks={"transformer_blocks": ("joint_blocks", _PARTS)}, whole=_WHOLE),
    reordered=_reordered,
)
