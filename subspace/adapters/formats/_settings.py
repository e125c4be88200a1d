"""Rank, alpha and scale among the plain values that a file, or the JSON beside it, holds beside its tensors.

A name that says lora (``lora_alpha``, ``lora_config.r``) counts wherever it is. A bare ``alpha`` or ``scale`` does at
the top level, and a bare ``alpha`` and ``r`` in a dict of settings that has both: elsewhere ``rank`` may be that of a
process and ``alpha`` one of mixup.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from subspace.adapters.format import Note, Source, not_an_adapter, scale_unknown
from subspace.adapters.update import Scale
from subspace.errors import FormatError
from subspace.text import listed, shown

__all__ = ["Declared", "declared"]

_WORDS = {
    "r": ("r", "rank", "lora_r", "lora_rank", "lora_dim"),
    "alpha": ("alpha", "lora_alpha"),
    "scale": ("scale", "scaling", "lora_scale", "lora_scaling"),
}
_KIND = {word: kind for kind, words in _WORDS.items() for word in words}
_RSLORA = ("use_rslora", "rslora")
_PLACES = {
    "metadata", "meta", "config", "cfg", "hyper_parameters", "hyperparameters", "hparams", "args", "settings",
    "model_args", "training_args", "train_args", "kwargs",
}  # fmt: skip
_OF_LORA = ("lora", "adapter", "peft")
_DEEPEST_WRAPPER = 4
_LARGEST = 1e30
_LONGEST = 40  # of a number as text


@dataclass(frozen=True)
class Declared:
    """What the settings of a file say about its pairs.

    Attributes
    ----------
    r, alpha, scale : value and its place, None where there is none
    square_root : whether the multiplier is alpha / sqrt(r), and why, None where it is alpha / r
    of_modules : place of a module -> kind ("r", "alpha", "scale") -> value
    several : sentences on settings that have several values, of which none is used
    gated : whether the multiplier depends on the input, as with ``use_gating`` of the library adapters
    sure : whether the writer is known to use alpha / r
    where : the file, for a message
    """

    r: tuple[float, str] | None = None
    alpha: tuple[float, str] | None = None
    scale: tuple[float, str] | None = None
    square_root: str | None = None
    of_modules: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    several: tuple[str, ...] = ()
    gated: bool = False
    sure: bool = False
    where: str = "the file"

    def rank(self, module: str) -> int | None:
        """The rank that is declared for a module, None if none is."""
        own = self.of_modules.get(module, {}).get("r")
        if own is not None:
            return int(own)
        return int(self.r[0]) if self.r is not None else None

    def scale_of(self, module: str, r: int) -> Scale:
        """The multiplier of a module whose factors have rank `r`; its value is None where it is unknown.

        Raises
        ------
        FormatError : another rank is declared
        """
        wanted = self.rank(module)
        if wanted is not None and wanted != r:
            own = "r" in self.of_modules.get(module, {})
            place = shown(f"{module}.r") if own or self.r is None else self.r[1]
            raise FormatError(
                f"The settings and the factors have different ranks: {place} = {wanted} in {self.where} and {r} in the "
                f"factors of module {shown(module)}; use the settings that were saved with them"
            )
        if self.gated:
            return Scale(None, "unknown")
        own_values = self.of_modules.get(module, {})
        if "scale" in own_values or "alpha" in own_values:
            scale, alpha = own_values.get("scale"), own_values.get("alpha")
            of = shown(module)
            return _multiplier(scale, alpha, r, f"{of}.scale", f"{of}.alpha", self.square_root)
        if self.scale is None and self.alpha is None:
            return Scale(None, "unknown")
        scale, scale_at = self.scale or (None, "")
        alpha, alpha_at = self.alpha or (None, "")
        return _multiplier(scale, alpha, r, scale_at, alpha_at, self.square_root)

    def notes(self, scales: Mapping[str, Scale], otherwise: str) -> list[str]:
        """What to know about the scales that were found.

        Parameters
        ----------
        scales : module -> its scale
        otherwise : why it is unknown where no setting says it
        """
        notes: list[str] = list(self.several)
        if self.gated:
            return [*notes, scale_unknown("use_gating is true, so the multiplier depends on the input")]
        if any(scale.value is None for scale in scales.values()):
            return [*notes, scale_unknown(otherwise)]
        sources = {scale.source for scale in scales.values() if scale.alpha is not None}
        if self.alpha is None or not any(self.alpha[1] in source for source in sources):
            return notes
        value, at = self.alpha
        if self.square_root is not None:
            return [*notes, Note(f"The scale is alpha / sqrt(r) with {at} = {value:g}, {self.square_root}")]
        if not self.sure:
            notes.append(
                Note(
                    f"The scale is taken to be alpha / r with {at} = {value:g} in {self.where}, as most code has it; "
                    "give `scale` if the layers multiply by something else"
                )
            )
        return notes


def declared(source: Source, *, square_root: str | None = None) -> Declared:
    """The rank, alpha and scale in the settings of a file.

    Parameters
    ----------
    square_root : why the multiplier is alpha / sqrt(r), where the writer is known to use that

    Raises
    ------
    FormatError : the settings are of the library adapters and say that the tensors rescale activations, as (IA)^3 does

    References
    ----------
    adapter-hub/adapters, src/adapters/methods/lora.py: ``LoRA.scaling`` is alpha / r, but with ``use_gating`` a gate
    that depends on the input takes its place; ``composition_mode`` "scale" is (IA)^3.
    """
    settings = source.settings
    hub = settings.get("config.architecture") == "lora"
    if hub and settings.get("config.composition_mode") == "scale":
        raise not_an_adapter(source, "an (IA)^3 adapter of the library adapters (composition_mode is scale)")
    found, several = _found(settings)
    if square_root is None and any(
        place.rpartition(".")[2] in _RSLORA and value is True for place, value in settings.items()
    ):
        square_root = "as use_rslora is true"
    return Declared(
        **found,
        square_root=square_root,
        of_modules=_of_modules(settings),
        several=tuple(several),
        gated=hub and settings.get("config.use_gating") is True,
        sure=hub,
        where=source.path if not hub else source.config_place,
    )


def _multiplier(
    scale: float | None, alpha: float | None, r: int, scale_at: str, alpha_at: str, square_root: str | None
) -> Scale:
    if scale is not None:
        return Scale(scale, scale_at)
    assert alpha is not None
    if square_root is not None:
        return Scale(alpha / math.sqrt(r), f"{alpha_at} / sqrt(r)", alpha)
    return Scale(alpha / r, f"{alpha_at} / r", alpha)


def _found(settings: Mapping[str, Any]) -> tuple[dict[str, tuple[float, str]], list[str]]:
    """Kind -> value and place of the settings that have one value, and sentences on those that have several."""
    there: dict[str, dict[float, str]] = defaultdict(dict)
    kinds = _kinds_in(settings)
    for place, value in settings.items():
        kind, number = _KIND.get(place.rpartition(".")[2]), _number(value)
        if kind is None or number is None or not _is_of_lora(place, kinds):
            continue
        if kind != "r" or number.is_integer():
            there[kind].setdefault(number, shown(place))
    found = {kind: next(iter(values.items())) for kind, values in there.items() if len(values) == 1}
    several: list[str] = [
        Note(
            f"The settings have several values of {kind}, of which none is used: "
            f"{listed(f'{place} = {number:g}' for number, place in values.items())}"
        )
        for kind, values in there.items()
        if len(values) > 1
    ]
    return found, several


def _kinds_in(settings: Mapping[str, Any]) -> dict[str, set[str]]:
    """Dict of settings -> which of rank, alpha and scale it has."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for place in settings:
        parent, _, word = place.rpartition(".")
        if word in _KIND:
            kinds[parent].add(_KIND[word])
    return kinds


def _is_of_lora(place: str, kinds: Mapping[str, set[str]]) -> bool:
    parent, _, word = place.rpartition(".")
    parents = parent.lower().split(".") if parent else []
    if word.startswith("lora") or (parents and any(name in parents[-1] for name in _OF_LORA)):
        return True
    if any(name not in _PLACES for name in parents):
        return False
    if {"r", "alpha"} <= kinds[parent]:
        return True
    # a bare alpha or scale at the top level, or in the metadata of a file of tensors, is of nothing else
    return word in {"alpha", "scale", "scaling"} and (not parents or parents == ["metadata"])


def _of_modules(settings: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Place of a module -> its own rank, alpha and scale, below a wrapper or not."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for place, value in settings.items():
        parent, _, word = place.rpartition(".")
        number = _number(value)
        if number is None or word not in _KIND or parent.rpartition(".")[2].lower() in _PLACES:
            continue
        if _KIND[word] == "r" and not number.is_integer():
            continue
        for _ in range(_DEEPEST_WRAPPER):
            if not parent:
                break
            found[parent].setdefault(_KIND[word], number)
            parent = parent.partition(".")[2]
    return found


def _number(value: object) -> float | None:
    """A positive finite number, which metadata have as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and len(value) > _LONGEST:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 < number < _LARGEST else None
