"""Paths that differ in the words for the parts of a multimodal model, which moved from version to version.

transformers 4 calls a layer ``language_model.model.layers.0``, transformers 5 ``model.language_model.layers.0``, and
some models ``model.layers.0``; a vision encoder is ``vision_tower.vision_model.encoder.layers.0`` or
``model.vision_tower.encoder.layers.0``. A path is therefore known by the part that it is in and by its other words.

References
----------
huggingface/transformers 5.24, conversion_mapping.py: ``_build_checkpoint_conversion_mapping``; huggingface/peft 0.21,
utils/transformers_weight_conversion.py, which applies it to the keys of an adapter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Containers", "place_in_model"]

_LANGUAGE = {"language_model", "text_model", "llm", "thinker"}
_VISION = {
    "vision_tower",
    "vision_model",
    "vision_encoder",
    "vision_backbone",
    "visual",
    "image_encoder",
    "vit",
    "image_vit",
}
_AUDIO = {"audio_tower", "audio_model", "audio_encoder"}
_PARTS = {
    **dict.fromkeys(_LANGUAGE, "language"),
    **dict.fromkeys(_VISION, "vision"),
    **dict.fromkeys(_AUDIO, "audio"),
}
# a layer of the whole model, or of the encoder that a tower is
_MOVED = {"language": {"model"}, "vision": {"model", "encoder"}, "audio": {"model", "encoder"}}


class _Place(NamedTuple):
    """Where a module is: the part of the model, and its path without the words for the part."""

    part: str
    rest: str


def place_in_model(name: str) -> tuple[_Place, bool]:
    """The part of a multimodal model and the path in it, and whether the name says which part it is.

    A name that says nothing is one of the language model.

    Examples
    --------
    >>> place_in_model("language_model.model.layers.0.mlp.up_proj")
    (_Place(part='language', rest='layers.0.mlp.up_proj'), True)
    >>> place_in_model("model.vision_tower.encoder.layers.0.mlp.fc1")
    (_Place(part='vision', rest='layers.0.mlp.fc1'), True)
    >>> place_in_model("model.layers.0.mlp.up_proj")
    (_Place(part='language', rest='layers.0.mlp.up_proj'), False)
    """
    words = name.split(".")
    parts = {_PARTS[word] for word in words if word in _PARTS}
    # a vision model may have a text model beside it, but is in none
    part = next((one for one in ("vision", "audio") if one in parts), "language")
    dropped = _MOVED[part]
    rest = ".".join(word for word in words if word not in _PARTS and word not in dropped)
    return _Place(part, rest), bool(parts)


class Containers:
    """Names that are searched many times for a name with the words for the part of the model in another place.

    Examples
    --------
    >>> names = Containers(["model.language_model.layers.0.q", "model.visual.layers.0.q"])
    >>> names.same("language_model.model.layers.0.q"), names.same("model.layers.1.q")
    (['model.language_model.layers.0.q'], [])
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names: dict[_Place, list[tuple[str, bool]]] = {}
        for name in names:
            place, marked = place_in_model(name)
            found = self._names.setdefault(place, [])
            if len(found) < 3:  # two are ambiguous already, and the third may be the name itself
                found.append((name, marked))

    def same(self, name: str) -> list[str]:
        """Names of the same module in another layout; at least one of the two says which part it is in."""
        place, marked = place_in_model(name)
        there = self._names.get(place, ()) if place.rest else ()
        return [other for other, known in there if (marked or known) and other != name]
