"""Names of Z-Image and Lumina 2 in their own code: ``layers.0.attention.qkv``, whose rows are named in brackets."""

from __future__ import annotations

from functools import partial

from subspace.adapters.naming.writers._names import WriterNames, by_block

__all__ = ["NAMES"]

_PARTS = {
    # Z-Image
    **{f"attention.to_{x}": f"attention.qkv[{x}]" for x in "qkv"},
    "attention.to_out.0": "attention.out",
    # Lumina 2
    **{f"attn.to_{x}": f"attention.qkv[{x}]" for x in "qkv"},
    "attn.to_out.0": "attention.out",
    **{f"feed_forward.linear_{i}": f"feed_forward.w{i}" for i in (1, 2, 3)},
    "norm1.linear": "adaLN_modulation.1",
}

NAMES = WriterNames(
    name="Lumina",
    about="Z-Image, Lumina 2 (huggingface/diffusers 0.42.1, loaders/lora_conversion_utils.py: "
    "_convert_non_diffusers_z_image_lora_to_diffusers, _convert_non_diffusers_lumina2_lora_to_diffusers)",
    translate=partial(
        by_block,
        blocks={block: (block, _PARTS) for block in ("layers", "noise_refiner", "context_refiner")},
        whole={},
    ),
)
