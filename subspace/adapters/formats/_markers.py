"""Names that people invent: which word of a name says A or B, which name is its other half, and what the module is.

A name has to have the word lora, however it is joined to the others: ``q_proj.w_lora_A``, ``loraDown``, ``lora_a_q``,
``lora.left``. Two names are a pair if they differ in the marker alone.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

__all__ = ["MarkedPair", "halves", "is_marked", "is_state", "modules_of", "pairs_of"]

# A first; in left @ right the right factor is applied first, as A is
_KINDS = (
    ("a", "b"),
    ("down", "up"),
    ("right", "left"),
    ("in", "out"),
    ("first", "second"),
    ("1", "2"),
    ("0", "1"),
)
_NUMBERS = ("1", "2"), ("0", "1")
_LORA = {"lora", "loras", "qlora"}
_WORD = re.compile(r"[Ll][Oo][Rr][Aa]s?(?![a-z])|[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_JOINED = re.compile(r"(lora)(a|b|down|up|left|right|in|out)", re.IGNORECASE)
# words that say nothing once the marker is gone
_FILLERS = {"w", "weight", "weights", "mat", "matrix", "param", "params", "layer", "layers", "linear", "proj"}
_CONTAINER_FILLERS = {"weight", "weights", "param", "params", "layer", "layers", "module", "modules"}
_LAYER_WORDS = {
    "q", "k", "v", "o", "qkv", "kv", "query", "key", "value", "output", "out", "in", "proj", "fc", "mlp", "attn", "to",
    "attention", "dense", "gate", "up", "down", "linear", "conv",
}  # fmt: skip
_FLAT = re.compile(r"lora_(?:unet|te\d?|transformer)_")
_LONGEST, _MOST = 500, 8  # characters of a name that is looked at, and readings of it
_SEPARATORS = "._-/ "
_STATE = re.compile(
    r"(?:^|[./])(?:(?:max_)?exp_avg(?:_sq)?|momentum_buffer|grads?|gradients?|fisher|ema|optim(?:izer)?)(?:[./]|$)"
)


class _Word(NamedTuple):
    text: str
    start: int
    end: int


class MarkedPair(NamedTuple):
    """The names of A and B, and where in both the marker begins and ends."""

    A: str
    B: str
    start: int
    end: int

    def with_marker(self, word: str) -> str:
        """The name of A with another word in the place of its marker.

        Examples
        --------
        >>> MarkedPair("q.lora_A", "q.lora_B", 7, 8).with_marker("alpha")
        'q.lora_alpha'
        """
        return self.A[: self.start] + word + self.A[self.end :]

    @property
    def stem(self) -> str:
        """What the two names have in common, which no other pair with such markers has."""
        return self.with_marker("*")

    def markers(self) -> tuple[str, str]:
        """The parts of the names, between dots, that hold the markers, with the one before where that says lora.

        Examples
        --------
        >>> MarkedPair("q.w_lora_A.weight", "q.w_lora_B.weight", 9, 10).markers()
        ('w_lora_A', 'w_lora_B')
        >>> MarkedPair("q.lora.A", "q.lora.B", 7, 8).markers()
        ('lora.A', 'lora.B')
        """
        first, second = _part_at(self.A, self.start), _part_at(self.B, self.start)
        before = self.A[: self.A.rfind(first, 0, self.end)].rstrip("./")
        last = _part_at(before, len(before))
        if "lora" in first.lower() or "lora" not in last.lower():
            return first, second
        return f"{last}.{first}", f"{last}.{second}"


class _Marker(NamedTuple):
    """One reading of a word of a name as a marker; the sure ones stand beside the word lora."""

    word: _Word
    kind: tuple[str, str]
    sure: bool


def is_marked(key: str) -> bool:
    """Whether a name has the word lora and a marker beside it, and is no state of an optimiser.

    Examples
    --------
    >>> [is_marked(key) for key in ("q.w_lora_A", "flora.A", "lora.layers.3.weight", "exp_avg.q.lora_down")]
    [True, False, False, False]
    """
    return any(marker.sure for marker in _markers(key))


def is_state(key: str) -> bool:
    """Whether a name is of the state of an optimiser, or of gradients."""
    return _STATE.search(key) is not None


def pairs_of(keys: Collection[str], fits: Callable[[str, str], bool]) -> Iterator[MarkedPair]:
    """The pairs among the names of a file, in its order, one by one.

    Parameters
    ----------
    keys : the names, searched many times
    fits : names of A and B -> whether their tensors have a product, which only pairs with sure markers may lack
    """
    found: dict[str, MarkedPair | None] = {}

    def chosen(key: str) -> MarkedPair | None:
        if key not in found:
            found[key] = _chosen(key, keys, fits)
        return found[key]

    for key in keys:
        pair = chosen(key)
        # a name that would rather be in another pair is in none
        if pair is not None and key == pair.A and chosen(pair.B) == pair:
            yield pair


def halves(keys: Collection[str], pairs: Collection[MarkedPair]) -> list[str]:
    """Names with a sure marker that are in no pair."""
    paired = {key for pair in pairs for key in (pair.A, pair.B)}
    return [key for key in keys if key not in paired and is_marked(key)]


def modules_of(pairs: Sequence[MarkedPair]) -> list[str]:
    """A name for the module of each pair: what is left without its marker and the word lora, or more where needed.

    Examples
    --------
    >>> modules_of([MarkedPair("to_k_lora_A.weight", "", 10, 11), MarkedPair("0.lora.A.default", "", 7, 8)])
    ['to_k', '0']
    >>> modules_of([MarkedPair("q.lora_A", "", 7, 8), MarkedPair("q.w_lora_A", "", 9, 10)])
    ['q.lora_*', 'q.w_lora_*']
    """
    adapter = _adapter_name(pairs)
    names = [_module_of(pair, adapter) for pair in pairs]
    taken = Counter(names)
    return [
        name if taken[name] == 1 else pair.stem.removesuffix(".weight")
        for name, pair in zip(names, pairs, strict=True)
    ]


def _module_of(pair: MarkedPair, adapter: str | None) -> str:
    parts, place = [], 0
    stored = pair.A.replace("/", ".").removesuffix(".weight")
    for part in stored.split("."):
        marker = (pair.start - place, pair.end - place) if place <= pair.start < place + len(part) else None
        behind = place > pair.start and part in {adapter, "default"}
        parts.append("" if behind else _cleaned(part, marker))
        place += len(part) + 1
    return ".".join(part for part in parts if part)


def _adapter_name(pairs: Sequence[MarkedPair]) -> str | None:
    """The one part behind the marker that all names share, unless it may be a layer of each block."""
    behind = {
        pair.A[pair.start :].replace("/", ".").removesuffix(".weight").partition(".")[2] for pair in pairs
    }
    name = behind.pop() if len(behind) == 1 else ""
    words = {word.text.lower() for word in _words(name)}
    return None if not name or "." in name or words & _LAYER_WORDS else name


def _cleaned(part: str, marker: tuple[int, int] | None) -> str:
    """A part of a name between dots, without the word lora; "" if nothing is left that names a layer."""
    flat = _FLAT.match(part)
    kept = flat.end() if flat else 0
    words = _words(part)
    gone = [word for word in words if word.text.lower() in _LORA and word.start >= kept]
    if marker is None and not gone:
        return part
    gone += [word for word in words if marker == (word.start, word.end)]
    left = {word.text.lower() for word in words if word not in gone}
    if left <= (_FILLERS if marker is not None else _CONTAINER_FILLERS):
        return ""
    for word in sorted(gone, key=lambda word: word.start, reverse=True):
        before, after = part[: word.start].rstrip(_SEPARATORS), part[word.end :].lstrip(_SEPARATORS)
        joined = "_" if before and after else ""
        part = f"{before}{joined}{after}"
    return part


def _chosen(key: str, keys: Collection[str], fits: Callable[[str, str], bool]) -> MarkedPair | None:
    sure = None
    for marker in _markers(key):
        pair = _pair(key, marker)
        if pair.A not in keys or pair.B not in keys or (marker.kind in _NUMBERS and _counts(pair, keys)):
            continue
        if fits(pair.A, pair.B):
            return pair
        sure = sure or (pair if marker.sure else None)
    return sure


def _pair(key: str, marker: _Marker) -> MarkedPair:
    start, end = marker.word.start, marker.word.end
    names = [key[:start] + _as(marker.word.text, word) + key[end:] for word in marker.kind]
    return MarkedPair(names[0], names[1], start, start + len(marker.kind[0]))


def _counts(pair: MarkedPair, keys: Collection[str]) -> bool:
    """Whether numbers count more than two of a kind, and so are no markers."""
    return sum(pair.with_marker(number) in keys for number in "0123") > 2


def _as(like: str, word: str) -> str:
    """A word in the capitals of another: "Down" and "up" make "Up"."""
    if like.isupper():
        return word.upper()
    return word.capitalize() if like[0].isupper() else word


def _markers(key: str) -> list[_Marker]:
    """The words of a name that may be its marker, likeliest first: beside lora, then in the last part, then numbers."""
    if len(key) > _LONGEST or "lora" not in key.lower() or is_state(key):
        return []
    words = _words(key)
    texts = [word.text.lower() for word in words]
    # the part between dots that each word is in, and the words of each part
    of_word = [key.count(".", 0, word.start) + key.count("/", 0, word.start) for word in words]
    parts: dict[int, set[str]] = defaultdict(set)
    for part, text in zip(of_word, texts, strict=True):
        parts[part].add(text)
    if not _LORA & set(texts):
        return []
    last = max(part for part in of_word if parts[part] != {"weight"})
    ranked: list[tuple[int, int, _Marker]] = []
    for n, (word, text, part) in enumerate(zip(words, texts, of_word, strict=True)):
        follows = n > 0 and texts[n - 1] in _LORA
        for kind in _KINDS:
            rank = _rank(kind, follows, parts[part], is_last=part == last) if text in kind else None
            if rank is not None:
                ranked.append((rank, -n, _Marker(word, kind, rank == 0)))
    return [marker for *_, marker in sorted(ranked, key=lambda entry: entry[:2])[:_MOST]]


def _rank(kind: tuple[str, str], follows: bool, part: set[str], *, is_last: bool) -> int | None:
    """How likely a word is the marker, 0 first; None if it cannot be.

    Parameters
    ----------
    kind : the markers that the word is one of
    follows : whether the word before it is lora
    part : the words between the same dots
    is_last : whether nothing but ``weight`` comes behind that part
    """
    if kind in _NUMBERS:
        return 2 if follows else None
    # the whole part, as in lora.down, and not lora.down_blocks
    if part & _LORA or (follows and part <= {*kind, *_FILLERS}):
        return 0
    return 1 if is_last else None


def _words(text: str) -> list[_Word]:
    found = []
    for match in _WORD.finditer(text):
        joined = _JOINED.fullmatch(match[0])
        if joined is None:
            found.append(_Word(match[0], match.start(), match.end()))
        else:
            middle = match.start() + joined.end(1)
            found += [
                _Word(joined[1], match.start(), middle),
                _Word(joined[2], middle, match.end()),
            ]
    return found


def _part_at(key: str, place: int) -> str:
    start = max(key.rfind(".", 0, place), key.rfind("/", 0, place)) + 1
    ends = [end for end in (key.find(".", place), key.find("/", place)) if end >= 0]
    return key[start : min(ends, default=len(key))]
