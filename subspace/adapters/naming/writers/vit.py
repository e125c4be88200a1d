"""Names of vision transformers in files and in transformers 4; models in memory have others since transformers 5."""

from __future__ import annotations

import re
from functools import partial

from subspace.adapters.naming.writers._names import WriterNames, by_layer

__all__ = ["NAMES"]

_LAYER = re.compile(r"(?:vit\.|deit\.|beit\.)?encoder\.layer\.(?P<n>[0-9]+)\.(?P<part>.+)")
_PARTS = {
    "attention.attention.query": ("layers.{n}.attention.q_proj",),
    "attention.attention.key": ("layers.{n}.attention.k_proj",),
    "attention.attention.value": ("layers.{n}.attention.v_proj",),
    "attention.output.dense": ("layers.{n}.attention.o_proj",),
    "intermediate.dense": ("layers.{n}.mlp.fc1",),
    "output.dense": ("layers.{n}.mlp.fc2",),
}

NAMES = WriterNames(
    name="transformers 4",
    about="ViT and models like it (huggingface/transformers 5, conversion_mapping.py: ViTModel)",
    translate=partial(by_layer, layer=_LAYER, parts=_PARTS, whole={}),
)
