"""Names of tensors without the words that wrapping a model, or a layer of it, puts into them.

``module.base_model.model.h.0._checkpoint_wrapped_module.q.lora_A.weight`` is ``base_model.model.h.0.q.lora_A.weight``:

- ``_orig_mod``, ``_fsdp_wrapped_module`` and their like are no names that people give: they go wherever they stand.
- ``module`` is a wrapper where a name begins, behind another wrapper, behind PEFT's prefix, behind the attribute of a
  whole model (``model.module.h.0.q``), or directly in front of another wrapper; anywhere else it is part of a path.
- What stands in front of PEFT's prefix ``base_model.model`` is an attribute of a module around the PEFT model. Where
  there are several of them, each stays as the first word of its modules.
- ``base_layer`` goes where an adapted layer is inside another (``attn.base_layer.out_proj.lora_A`` of PEFT's
  MultiheadAttention); right in front of a factor or of a weight it says what these are of, and stays.
- ``lora`` goes where it stands between a layer and its factors (``q.lora.lora_A``).

Where two names would become one, the words stay in both.

References
----------
`WRAPPER_WORDS`; pytorch 2.13: torch/nn/parallel (``module``); Opacus, grad_sample_module.py (``_module``); PEFT 0.21,
tuners/lora/layer.py: ``MultiheadAttention``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from subspace.checkpoints.peft_files import PREFIX
from subspace.checkpoints.wrapper_words import WRAPPER_WORDS
from subspace.text import counted, listed

if TYPE_CHECKING:
    from subspace.checkpoints import TensorFile

__all__ = ["WRAPPERS", "CleanNames", "clean_names", "clean_pattern", "without_wrappers"]

_ALWAYS = {*WRAPPER_WORDS, "_module"}
WRAPPERS = frozenset({*_ALWAYS, "module"})
_PREFIX = ("base_model", "model")
# attributes that hold a whole model, in a trainer or in the pipeline of an image model
_WHOLE = {"model", "unet", "transformer", "diffusion_model", *(f"text_encoder{n}" for n in ("", "_2", "_3"))}
_ANY = re.compile(
    rf"(?:^|\.)(?:{'|'.join(WRAPPER_WORDS)}|_?module|base_layer)\.|\.lora\.lora_|.\.base_model\."
    rf"|^(?:lora|lycoris)(?:_.*)?_(?:{'|'.join(WRAPPER_WORDS)}|module)_",
    re.DOTALL,
)
_HINTS = (
    "module",
    "_orig_mod",
    "base_layer",
    ".base_model.",
    ".lora.lora_",
)  # one is in every name that _ANY finds
_INNER_PREFIX = re.compile(rf"(?:^|(?<=\.)){re.escape(PREFIX)}")
# in names whose dots became underscores
_FLAT = re.compile(rf"_(?P<word>{'|'.join(WRAPPER_WORDS)})(?=_)")
_FLAT_MODULE = re.compile(
    r"(?P<prefix>lora_(?:unet|transformer|te[123]?)|lycoris)(?P<words>(?:_module)+)(?=_)"
)
# in the expressions of a configuration, which may begin with ^ and escape a dot
_IN_PATTERN = re.compile(rf"(?:^|(?<=[.^]))(?:{'|'.join(WRAPPER_WORDS)})\\?\.")
_MODULE_IN_PATTERN = re.compile(r"^(?P<start>\^?)(?:module\\?\.)+")
_MOST_WORDS = 64  # that are taken out of one name
_FACTOR = "lora_A"


class _Cleaned(NamedTuple):
    """A name without wrapper words, those words, and how many words of the stored name hold them."""

    name: str
    gone: tuple[str, ...] = ()
    end: int = 0


@dataclass(frozen=True)
class CleanNames:
    """Names of tensors without the words of wrappers.

    Attributes
    ----------
    stored : clean name -> the name in the file, of every tensor, in the order of the file
    notes : what was taken out of the names, for the user
    """

    stored: Mapping[str, str]
    notes: tuple[str, ...] = ()
    _whole: frozenset[str] = frozenset()
    _outers: tuple[str, ...] = ()

    def of_module(self, module: str) -> str:
        """The clean name of a module, by the rules that hold for its tensors.

        Examples
        --------
        >>> clean_names(["_orig_mod.q.lora_A", "_orig_mod.q.lora_B"]).of_module("_orig_mod.q")
        'q'
        """
        name = _cleaned(f"{module}.{_FACTOR}" if module else _FACTOR, self._whole).name
        return _in_outer(name, self._outers).removesuffix(_FACTOR).removesuffix(".")


def clean_names(keys: Iterable[str]) -> CleanNames:
    """Names of the tensors of a file without the words of wrappers.

    Examples
    --------
    >>> names = clean_names(["module.h.0.q.lora_A", "module.h.0.q.lora_B"])
    >>> names.stored
    {'h.0.q.lora_A': 'module.h.0.q.lora_A', 'h.0.q.lora_B': 'module.h.0.q.lora_B'}
    >>> names.notes
    ('Wrapper words were taken out of the names of 2 tensors: module',)
    """
    stored = list(keys)
    # a single tensor is a matrix, whose whole name says what it is
    if len(stored) < 2 or not any(map(_has_any, stored)):
        return CleanNames({key: key for key in stored})
    cleaned, whole = _apart(stored)
    outers = _outers([each.name for each in cleaned])
    names = [_in_outer(each.name, outers) for each in cleaned]
    if len(set(names)) < len(names):
        outers, names = (), [each.name for each in cleaned]
    notes = _notes(cleaned, names, outers, len(whole))
    return CleanNames(dict(zip(names, stored, strict=True)), notes, whole, outers)


def without_wrappers(tensors: TensorFile) -> tuple[TensorFile, CleanNames]:
    """The tensors of a file under clean names, and these names; the file itself where they are its own."""
    from subspace.checkpoints.view import TensorView

    names = clean_names(tensors.layout)
    if all(clean == stored for clean, stored in names.stored.items()):
        return tensors, names
    return TensorView(tensors, names.stored), names


def clean_pattern(pattern: str) -> str:
    r"""A name, or an expression of names, of a configuration without the words of wrappers.

    Examples
    --------
    >>> clean_pattern(r"^module\.h\.0\._orig_mod\.q"), clean_pattern("q_proj")
    ('^h\\.0\\.q', 'q_proj')
    """
    return _MODULE_IN_PATTERN.sub(r"\g<start>", _IN_PATTERN.sub("", pattern))


def _apart(stored: Sequence[str]) -> tuple[list[_Cleaned], frozenset[str]]:
    """Every name cleaned so that no two are equal, and the beginnings of names that stay as they are for that."""
    whole: frozenset[str] = frozenset()
    for _ in range(2):
        cleaned = [_cleaned(key, whole) for key in stored]
        count = Counter(each.name for each in cleaned)
        clashing = {
            _beginning(key, each.end)
            for key, each in zip(stored, cleaned, strict=True)
            if count[each.name] > 1 and each.end
        }
        if not clashing:
            return cleaned, whole
        whole |= clashing
    return [_Cleaned(key) for key in stored], frozenset(_beginning(key, 1) for key in stored)


def _has_any(name: str) -> bool:
    """Whether there may be a word in a name that goes; a search for pieces of text is faster than an expression."""
    return any(hint in name for hint in _HINTS) and _ANY.search(name) is not None


def _cleaned(name: str, whole: frozenset[str] = frozenset()) -> _Cleaned:
    """A name without the words that go, unless it has a beginning that stays as it is."""
    if not _has_any(name):
        return _Cleaned(name)
    words = name.split(".")
    gone = _wrappers(words)
    gone |= _holders([n for n in range(len(words)) if n not in gone], words)
    if len(gone) > _MOST_WORDS or any(_beginning(name, n + 1) in whole for n in {0, *gone} if whole):
        return _Cleaned(name)
    first, flat = _unflattened(words[0])
    kept = [first, *words[1:]]
    return _Cleaned(
        ".".join(word for n, word in enumerate(kept) if n not in gone),
        (*flat, *(words[n] for n in sorted(gone) if words[n] != "lora")),
        max([n + 1 for n in gone], default=1 if flat else 0),
    )


def _wrappers(words: Sequence[str]) -> set[int]:
    """Places of the wrapper words of a name; its last word is none."""
    last = len(words) - 1
    gone = {n for n in range(last) if words[n] in _ALWAYS}
    for n in reversed(range(last)):
        if words[n] == "module" and (n + 1 in gone or tuple(words[n + 1 : n + 3]) == _PREFIX):
            gone.add(n)
    path: list[str] = []  # words that stay, since the beginning of the model
    for n in range(last):
        begins = not path or (len(path) == 1 and path[0] in _WHOLE) or n - 1 in gone
        inside = path[-1:] == ["base_model"] and words[n + 1] == "model"
        if n in gone or (words[n] == "module" and (begins or inside)):
            gone.add(n)
            continue
        path.append(words[n])
        if tuple(path[-2:]) == _PREFIX:
            path = []
    return gone


def _holders(places: Sequence[int], words: Sequence[str]) -> set[int]:
    """Places of `base_layer` around a layer with factors of its own, and of `lora` between a layer and its factors.

    Parameters
    ----------
    places : of the words that are no wrappers
    """
    kept = [words[n] for n in places]
    factor = max((n for n, word in enumerate(kept) if word.startswith("lora_")), default=0)
    gone = {places[n] for n in range(factor - 1) if kept[n] == "base_layer" and kept[n + 1] != "base_layer"}
    return gone | ({places[factor - 1]} if factor > 1 and kept[factor - 1] == "lora" else set())


def _unflattened(word: str) -> tuple[str, tuple[str, ...]]:
    """The first word of a name, without wrapper words among its underscores, and those."""
    if not word.startswith(("lora_", "lycoris_")):
        return word, ()
    found = tuple(dict.fromkeys(match["word"] for match in _FLAT.finditer(word)))
    word = _FLAT.sub("", word)
    match = _FLAT_MODULE.match(word)
    if match is None:
        return word, found
    return f"{match['prefix']}{word[match.end() :]}", (*found, "module")


def _outers(names: Iterable[str]) -> tuple[str, ...]:
    """What stands in front of PEFT's prefix, sorted; empty where nothing does."""
    found = set()
    for name in names:
        outer, prefix, _ = f".{name}".rpartition(f".{PREFIX}")
        if prefix:
            found.add(outer.removeprefix("."))
    return tuple(sorted(found))


def _in_outer(name: str, outers: Sequence[str]) -> str:
    """A name without the one outer module of a file; of several, the outer one stands behind PEFT's prefix."""
    if len(outers) == 1 and outers[0]:
        inner = name.removeprefix(f"{outers[0]}.")
        return inner if inner.startswith(f"{_PREFIX[0]}.") else name
    outer, prefix, rest = f".{name}".rpartition(f".{PREFIX}")
    if len(outers) < 2 or not prefix or not outer:
        return name
    around = _INNER_PREFIX.sub("", f"{outer.removeprefix('.')}.")
    return f"{PREFIX}{around}{rest}"


def _beginning(name: str, words: int) -> str:
    return ".".join(name.split(".", words)[:words])


def _notes(
    cleaned: Sequence[_Cleaned], names: Sequence[str], outers: Sequence[str], left: int
) -> tuple[str, ...]:
    gone = dict.fromkeys(word for each in cleaned for word in each.gone)
    changed = sum(bool(each.gone) or each.name != name for each, name in zip(cleaned, names, strict=True))
    notes = []
    if len(outers) == 1 and outers[0]:
        gone[outers[0]] = None
    if gone:
        notes.append(
            f"Wrapper words were taken out of the names of {counted(changed, 'tensor')}: "
            f"{listed(sorted(gone), most=8)}"
        )
    if len(outers) > 1:
        notes.append(
            f"Several modules are around PEFT's prefix base_model.model: {listed(filter(None, outers), most=8)}; each "
            "is the first word of the names of its own modules"
        )
    if left:
        notes.append("Wrapper words stay in names that two modules would share without them")
    return tuple(notes)
