"""Paths of many adapters by their last parts, as many as tell them apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

__all__ = ["short_names"]

# what every adapter of one library is called says nothing about it
_CUSTOMARY = ("adapter_model.", "pytorch_lora_weights.", "adapters.", "adapter.", "model.")
_ONLY_A_STEP = re.compile(r"(?:checkpoint|ckpt|ck|step|iter)?[-_]?\d+(?:_adapters)?(?:\..*)?")


def short_names(paths: Sequence[str]) -> list[str]:
    """Each path by its last part, and by more of it where others end alike, or where it is a step alone.

    Examples
    --------
    >>> short_names(["runs/a/r8", "runs/b/r8", "x/r4/adapter_model.safetensors", "run/checkpoint-100"])
    ['a/r8', 'b/r8', 'r4', 'run/checkpoint-100']
    >>> short_names(["in memory", "in memory"])
    ['in memory', 'in memory#2']
    """
    words = [_words(path) for path in paths]
    ends = Counter(tuple(each[-n:]) for each in words for n in range(1, len(each) + 1))
    names = ["/".join(each[-_needed(each, ends) :]) for each in words]
    seen: Counter[str] = Counter()
    for n, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[n] = f"{name}#{seen[name]}"
    return names


def _words(path: str) -> list[str]:
    words = [word for word in re.split(r"[/\\]", path.rstrip("/\\")) if word not in ("", ".")]
    if len(words) > 1 and words[-1].startswith(_CUSTOMARY):
        words.pop()
    return words or ["adapter"]


def _needed(words: list[str], ends: Counter[tuple[str, ...]]) -> int:
    least = 2 if len(words) > 1 and _ONLY_A_STEP.fullmatch(words[-1]) else 1
    for n in range(least, len(words)):
        if ends[tuple(words[-n:])] == 1:
            return n
    return least if ends[tuple(words)] > 1 else len(words)
