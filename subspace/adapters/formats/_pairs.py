"""From keys to pairs: what most formats share."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable

from subspace.adapters.format import Ignored, Role, Source
from subspace.adapters.update import Factor
from subspace.errors import ShapeError

__all__ = ["by_module", "check_rank", "other_tensors", "require_both", "unpaired"]

_BIAS = re.compile(r"(^|\.)lora_(B|up)(\.[^.]+)?\.bias$")
_KNOWN_PARTS = {
    ("modules_to_save", "original_module"): ("a copy that PEFT keeps for modules_to_save", Role.COPY),
    ("lora_bias",): ("a bias, which is not part of delta_W", Role.TRAINED),
    ("lora_dropout_mask",): ("a dropout mask", Role.COPY),
    ("lora_velora_embed",): ("a projection for the gradients of VeLoRA", Role.TRAINED),
    ("lora_monteclora_sampler",): ("what MonteCLoRA samples with in training", Role.TRAINED),
    ("trainable_tokens_delta", "trainable_tokens_original"): (
        "rows of an embedding trained in full",
        Role.TRAINED,
    ),
}
_BASE = "a weight of the base model", Role.BASE
_ORDINARY = re.compile(
    r"(^|\.)(weight|bias|running_mean|running_var|num_batches_tracked|inv_freq|position_ids|masked_bias)$"
)


def by_module(keys: Iterable[str], pattern: re.Pattern[str]) -> dict[str, dict[str, str]]:
    r"""Keys that match a pattern with the groups ``module`` and ``part``: module -> part -> key.

    Examples
    --------
    >>> by_module(["q.lora_a", "q.lora_b", "x"], re.compile(r"(?P<module>.*)\.lora_(?P<part>[ab])"))
    {'q': {'a': 'q.lora_a', 'b': 'q.lora_b'}}
    """
    modules: dict[str, dict[str, str]] = defaultdict(dict)
    for key in keys:
        match = pattern.fullmatch(key)
        if match is not None:
            modules[match["module"] or ""][match["part"]] = key
    return dict(modules)


def check_rank(A: Factor, B: Factor, module: str, source: Source) -> None:
    """Raise `ShapeError` unless B (d_out, r) and A (r, d_in) multiply."""
    if B.shape[1] != A.shape[0]:
        raise ShapeError(
            f"A and B have different ranks: A (r, d_in) is {list(A.shape)} and B (d_out, r) is {list(B.shape)}, "
            f"in {source.place(module)}"
        )


def require_both(
    keys: Collection[str], first: str, second: str, module: str, source: Source, *, prefix: str = ""
) -> None:
    """Raise `ShapeError` unless both parts of a module are among its `keys`; the file has `prefix` before a part."""
    for has, lacks in ((first, second), (second, first)):
        if lacks not in keys:
            raise unpaired(module, f"{prefix}{has}", f"{prefix}{lacks}", source)


def unpaired(module: str, has: str, lacks: str, source: Source) -> ShapeError:
    """The error that a part of a module is missing."""
    return ShapeError(
        f"Incomplete pair: {lacks} is missing for {source.place(module)}, which has {has}; the file is incomplete"
    )


def other_tensors(source: Source, used: set[str]) -> tuple[tuple[Ignored, ...], tuple[str, ...]]:
    """The tensors that belong to no update: known ones with why, and keys of unknown ones."""
    ignored, unknown = [], []
    for key in source.tensors.layout:
        if key in used:
            continue
        known = _BASE if key in source.own.keys else _known(key)
        if known is None:
            unknown.append(key)
        else:
            ignored.append(Ignored(key, *known))
    return tuple(ignored), tuple(unknown)


def _known(key: str) -> tuple[str, Role] | None:
    """Why a tensor belongs to no update, and what it is; None if it is not known."""
    parts = set(key.split("."))
    for names, known in _KNOWN_PARTS.items():
        if parts & set(names):
            return known
    if _BIAS.search(key):
        return "a bias, which is not part of delta_W", Role.TRAINED
    if "lora_" in key:
        return None
    if "base_layer" in parts:
        # PEFT trains and saves biases of the base where its setting bias is all or lora_only
        return (_BASE[0], Role.TRAINED) if key.endswith(".base_layer.bias") else _BASE
    return ("a tensor that was trained or saved in full", Role.TRAINED) if _ORDINARY.search(key) else None
