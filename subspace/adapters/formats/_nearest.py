"""What the keys of a file that no format reads come nearest to, for its error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches

from subspace.text import counted, shown

__all__ = ["nearest"]

# the two names of a pair, or the one name of a parameter, and who writes them
_PAIRS = (
    ("lora_A", "lora_B", "PEFT and loralib"),
    ("lora_down", "lora_up", "kohya and diffusers"),
    ("lora_a", "lora_b", "MLX and torchtune"),
    ("lora_embedding_A", "lora_embedding_B", "PEFT"),
    ("hada_w1_a", "hada_w1_b", "LyCORIS"),
    ("lokr_w1", "lokr_w2", "LyCORIS"),
    ("w_a", "w_b", "SAM-LoRA"),
)
_SINGLE = {
    "ia3_l": "IA3 of PEFT",
    "oft_R": "OFT of PEFT",
    "oft_blocks": "OFT of sd-scripts and LyCORIS",
    "boft_R": "BOFT of PEFT",
    "vera_lambda_b": "VeRA of PEFT",
    "delta_W": "a dense change",
}
_WRITERS = {name: writer for first, second, writer in _PAIRS for name in (first, second)} | _SINGLE
_BY_CASE = {name.lower(): name for name in reversed(_WRITERS)}
_MOST = 20  # endings that are compared; those of a file of one format are far fewer
_LONGEST = 40  # characters of an ending: known names are shorter
_CLOSE = 0.75


def nearest(keys: Iterable[str]) -> str:
    """One clause: the half of a pair that the keys have, the known name that they resemble, or what was looked for.

    Examples
    --------
    >>> nearest(["h.0.lora_A_q", "h.1.lora_A_q"])
    '2 keys have lora_A and none has lora_B (PEFT and loralib)'
    >>> nearest(["h.0.q.lora_dwn.weight"])
    "'h.0.q.lora_dwn.weight' resembles lora_down (kohya and diffusers)"
    >>> nearest(["h.0.q.weight"])
    'none has lora_A and lora_B, lora_down and lora_up, lora_a and lora_b, or another known pair'
    """
    keys = list(keys)
    return _half(keys) or _alike(keys) or _looked_for()


def _half(keys: list[str]) -> str:
    """Which name of a pair the keys have without the other."""
    for first, second, writer in _PAIRS[:4]:
        counts = [sum(name in key for key in keys) for name in (first, second)]
        for (has, lacks), count, other in (
            ((first, second), counts[0], counts[1]),
            ((second, first), counts[1], counts[0]),
        ):
            if count and not other:
                have = "key has" if count == 1 else "keys have"
                return f"{count} {have} {has} and none has {lacks} ({writer})"
    return ""


def _alike(keys: list[str]) -> str:
    """A key that ends nearly as a known one does."""
    endings: Counter[str] = Counter()
    example: dict[str, str] = {}
    for key in keys:
        ending = key[-_LONGEST - 8 :].removesuffix(".weight").rpartition(".")[2]
        endings[ending] += 1
        example.setdefault(ending, key)
    for ending, count in endings.most_common(_MOST):
        found = get_close_matches(ending[:_LONGEST].lower(), _BY_CASE, n=1, cutoff=_CLOSE)
        if found:
            name = _BY_CASE[found[0]]
            more = f" and {counted(count - 1, 'more key')}" if count > 1 else ""
            verb = "resemble" if more else "resembles"
            return f"{shown(example[ending], longest=80)!r}{more} {verb} {name} ({_WRITERS[name]})"
    return ""


def _looked_for() -> str:
    pairs = ", ".join(f"{first} and {second}" for first, second, _ in _PAIRS[:3])
    return f"none has {pairs}, or another known pair"
