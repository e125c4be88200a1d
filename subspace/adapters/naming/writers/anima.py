"""Names of Anima and Cosmos in their own code: ``blocks.0.self_attn.q_proj``, ``blocks.0.mlp.layer1``."""

from __future__ import annotations

from functools import partial

from subspace.adapters.naming.writers._names import WriterNames, by_block

__all__ = ["NAMES"]

_ATTENTION = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out.0": "output_proj"}
_NORMS = {"norm1": "self_attn", "norm2": "cross_attn", "norm3": "mlp"}
_PARTS = {
    **{f"attn1.{there}": f"self_attn.{here}" for there, here in _ATTENTION.items()},
    **{f"attn2.{there}": f"cross_attn.{here}" for there, here in _ATTENTION.items()},
    **{f"{norm}.linear_{i}": f"adaln_modulation_{of}.{i}" for norm, of in _NORMS.items() for i in (1, 2)},
    "ff.net.0.proj": "mlp.layer1",
    "ff.net.2": "mlp.layer2",
}
_WHOLE = {
    "norm_out.linear_1": "final_layer.adaln_modulation.1",
    "norm_out.linear_2": "final_layer.adaln_modulation.2",
    "proj_out": "final_layer.linear",
    "patch_embed.proj": "x_embedder.proj.1",
}

NAMES = WriterNames(
    name="Anima",
    about="Anima, Cosmos (huggingface/diffusers 0.42.1, loaders/lora_conversion_utils.py: "
    "_convert_non_diffusers_anima_lora_to_diffusers)",
    translate=partial(by_block, blocks={"transformer_blocks": ("blocks", _PARTS)}, whole=_WHOLE),
)
