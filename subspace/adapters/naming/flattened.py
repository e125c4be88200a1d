"""Names whose dots became underscores, ``lora_unet_mid_block_attentions_0_proj_in``, matched to dotted names.

The name does not say which underscores were dots, so the dotted names are flattened and compared.

References
----------
kohya-ss/sd-scripts, networks/lora.py: ``LoRANetwork``, ``lora_name = prefix + "." + name ...replace(".", "_")``;
KohakuBlueleaf/LyCORIS, lycoris/wrapper.py: prefix ``lycoris``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from subspace.adapters.naming.image_models import split_component

__all__ = ["FLATTENED", "Flattened", "HalfFlattened", "is_flat"]

FLATTENED = "flattened"

_PREFIXES = ("lora_", "lycoris_", "oft_")
_FLAT = re.compile(
    r"(?:(?:lora|oft)_(?P<part>unet|transformer|text_encoder(?:_[23])?|te[123]?)|lycoris|lora)_(?P<rest>[^.]+)"
)
_HALF = re.compile(r"lora_(?P<part>unet|transformer|te[123]?)_(?P<rest>.+)", re.DOTALL)
_LAYER = re.compile(r"[._][0-9]+[._]")
# which model of a pipeline a flattened or a dotted prefix stands for
_MODEL = {
    "unet": "unet",
    "transformer": "unet",
    "diffusion_model": "unet",
    "dit": "unet",
    "te": "te1",
    "te1": "te1",
    "text_encoder": "te1",
    "te2": "te2",
    "text_encoder_2": "te2",
    "te3": "te3",
    "text_encoder_3": "te3",
}
_MODELS = tuple(dict.fromkeys(_MODEL.values()))
_MOST = 8
_DEEPEST = 16  # words of a prefix that only one side has


class _Key(NamedTuple):
    """A name with underscores, and the model of a pipeline that it is of, None where it does not say."""

    rest: str
    model: str | None


class Flattened:
    """Names that are searched many times for the flattened form of a name, or for the name that was flattened.

    Examples
    --------
    >>> names = Flattened(["text_encoder.layers.0.fc1", "text_encoder_2.layers.0.fc1"])
    >>> names.same("lora_te2_layers_0_fc1")
    ['text_encoder_2.layers.0.fc1']
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._flat, self._flat_ends, self._dotted, self._dotted_ends = _Index(), _Index(), _Index(), _Index()
        for name in names:
            key = _key(name)
            if key is None:
                self._add_dotted(name, _MODEL.get(_first(name)))
            else:
                self._flat.add(key.rest, key.model, name)
                self._flat_ends.add_all(_ends(key.rest, "_"), key.model, name)

    def _add_dotted(self, name: str, model: str | None) -> None:
        # a single word is the end of too many names
        if "." in name:
            self._dotted.add(name.replace(".", "_"), model, name)
        self._dotted_ends.add_all(_flat_ends(name), model, name)

    def same(self, name: str) -> list[str]:
        """Names that may be the same module as `name`, where one of the two is flattened; two are enough."""
        key = _key(name)
        if key is None:
            model = _MODEL.get(_first(name))
            there = self._flat.find(_flat_ends(name), model)
            return there or self._flat_ends.find([name.replace(".", "_")] if "." in name else [], model)
        there = [*self._dotted_ends.find([key.rest], key.model), *self._flat.find([key.rest], key.model)]
        return there or self._dotted.find(_ends(key.rest, "_"), key.model)


class _Index:
    """Names by their flattened form and model: at most two of each, since two are ambiguous already."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str | None], list[str]] = {}

    def add(self, flat: str, model: str | None, name: str) -> None:
        names = self._names.setdefault((flat, model), [])
        if len(names) < 2:
            names.append(name)

    def add_all(self, flat: Iterable[str], model: str | None, name: str) -> None:
        for one in flat:
            self.add(one, model, name)

    def find(self, flat: Iterable[str], model: str | None) -> list[str]:
        """Names with one of the flattened forms that are not of another model."""
        models = (None, *_MODELS) if model is None else (model, None)
        found = (name for one in flat for m in models for name in self._names.get((one, m), ()))
        return list(dict.fromkeys(found))


class HalfFlattened:
    """Names of which some dots may have become underscores, searched many times for a name that has the others.

    A whole name must be the same but for its dots and its model's prefix, and have the number of a layer.

    Examples
    --------
    >>> names = HalfFlattened(["transformer.transformer_blocks.0.attn.to_q", "x.0.y"])
    >>> names.same("transformer_blocks.0.attn_to_q"), names.same("lora_unet_transformer_blocks_0.attn_to_q")
    (['transformer.transformer_blocks.0.attn.to_q'], ['transformer.transformer_blocks.0.attn.to_q'])
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names: dict[str, list[tuple[str | None, str]]] = {}
        for name in names:
            key = _half_key(name)
            if key is not None:
                there = self._names.setdefault(key.rest, [])
                if len(there) < _MOST:
                    there.append((key.model, name))

    def same(self, name: str) -> list[str]:
        """Names that may be the same module as `name`; two are ambiguous."""
        key = _half_key(name)
        if key is None:
            return []
        there = self._names.get(key.rest, ())
        alike = (other for model, other in there if key.model == model or None in {key.model, model})
        return [other for other in alike if other != name]


def is_flat(name: str) -> bool:
    """Whether the dots of a name were turned into underscores.

    Examples
    --------
    >>> is_flat("lora_te_text_model_encoder_layers_0_mlp_fc1"), is_flat("lora_te.layers")
    (True, False)
    """
    return name.startswith(_PREFIXES) and _FLAT.fullmatch(name) is not None


def _key(name: str) -> _Key | None:
    match = _FLAT.fullmatch(name) if name.startswith(_PREFIXES) else None
    return None if match is None else _Key(match["rest"], _MODEL.get(match["part"] or ""))


def _half_key(name: str) -> _Key | None:
    """A name with underscores for its remaining dots; None without the number of a layer, which says too little."""
    match = _HALF.fullmatch(name)
    component, rest = (match["part"], match["rest"]) if match else split_component(name)
    if _LAYER.search(rest) is None:
        return None
    return _Key(rest.replace(".", "_"), _MODEL.get(component, component) if component else None)


def _first(name: str) -> str:
    """First word of a dotted name, behind the ``model`` of a whole checkpoint."""
    return name.removeprefix("model.").partition(".")[0]


def _flat_ends(name: str) -> Iterator[str]:
    """A dotted name and its ends, with underscores."""
    yield name.replace(".", "_")
    yield from (end.replace(".", "_") for end in _ends(name, "."))


def _ends(name: str, mark: str) -> Iterator[str]:
    """Proper ends of a name behind each `mark`, at most 16: "a.b.c" -> "b.c", "c"."""
    place = name.find(mark)
    for _ in range(_DEEPEST):
        if place < 0:
            return
        yield name[place + 1 :]
        place = name.find(mark, place + 1)
