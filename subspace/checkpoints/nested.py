"""Trees of dicts and lists: their tensors under dotted names, and the plain values that stand beside them.

Nothing here recurses, and every walk stops at a number of entries, since a tree may be deep, wide or hold itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from subspace.errors import FormatError
from subspace.text import shown

__all__ = [
    "IsTensor",
    "entries_of",
    "flattened",
    "holds_tensors",
    "is_container",
    "is_trainer_state",
    "plain_values",
]

IsTensor: TypeAlias = Callable[[object], bool]

_DEEPEST = 32  # dicts in one another
_MOST = 1_000_000  # entries that are looked at for tensors
_MOST_SETTINGS = 1_000
_MOST_LOOKED_AT = 20_000  # entries that are looked at for settings
_MOST_SEARCHED = 100_000  # entries that are looked at for the first tensor
_LONGEST = 1_000  # of a text, or of a list of plain values
_PLAIN = (bool, int, float, str)
# what trainers save beside the weights: whole names, and words of names
_TRAINER_STATE = {"opt_state", "random_state", "callbacks", "loops"}
_TRAINER_WORDS = {
    "optimizer", "optimizers", "optimiser", "optimisers", "optim", "scheduler", "schedulers", "sched", "scaler", "rng",
}  # fmt: skip


def is_container(value: object) -> bool:
    """Whether a value may hold tensors: a dict, another mapping, a list or a tuple."""
    return isinstance(value, Mapping | list | tuple)


def entries_of(value: object) -> dict[Any, Any]:
    """The entries of a dict or list, by key or place; a value that is neither is the only entry, "".

    Examples
    --------
    >>> entries_of({0: "a"}), entries_of(["a"]), entries_of("a")
    ({0: 'a'}, {'0': 'a'}, {'': 'a'})
    """
    if isinstance(value, dict):
        # not value.items(): the file may have brought an attribute of that name
        return dict(dict.items(value))
    if isinstance(value, Mapping):
        return dict(value.items())
    if isinstance(value, list | tuple):
        return {str(i): entry for i, entry in enumerate(value)}
    return {"": value}


def flattened(root: object, is_tensor: IsTensor, name: str) -> tuple[dict[str, Any], list[str]]:
    """The tensors of a tree by dotted name, and the places of an optimiser's state, which is left out.

    Parameters
    ----------
    root : a dict or list of tensors, dicts and lists
    is_tensor : what counts as a tensor
    name : of the file, for a message

    Raises
    ------
    FormatError : the tree is too deep or too large, or two tensors have one name

    Examples
    --------
    >>> flattened({"layer_0": {"q": {"A": 1.0, "B": 2.0}}}, lambda value: isinstance(value, float), "a.pt")
    ({'layer_0.q.A': 1.0, 'layer_0.q.B': 2.0}, [])
    """
    tensors: dict[str, Any] = {}
    left_out: list[str] = []
    for place, value in _walk(root, left_out, name, _MOST):
        if not is_tensor(value):
            continue
        if place in tensors:
            raise FormatError(
                f"Two tensors have one name: {shown(place)}, in {shown(name)}; save the adapter as one dict of tensors"
            )
        tensors[place] = value
    return tensors, left_out


def _walk(root: object, left_out: list[str], name: str, most: int) -> Iterator[tuple[str, object]]:
    """Every entry of a tree that is no container with its place, in order and without recursion."""
    looked_at = 0
    open_levels = [("", _children(root, "", left_out))]
    while open_levels:
        prefix, level = open_levels[-1]
        key, value = next(level, (None, None))
        if key is None:
            open_levels.pop()
            continue
        looked_at += 1
        if looked_at > most:
            raise FormatError(
                f"Too many nested entries: more than {most}, in {shown(name)}; save the tensors of the adapter alone"
            )
        place = f"{prefix}{key}"
        if not is_container(value):
            yield place, value
        elif len(open_levels) >= _DEEPEST:
            raise FormatError(
                f"Dicts are nested too deeply: more than {_DEEPEST} levels, in {shown(name)}; save the adapter as one "
                "dict of tensors"
            )
        else:
            open_levels.append((f"{place}.", _children(value, f"{place}.", left_out)))


def _children(value: object, prefix: str, left_out: list[str]) -> Iterator[tuple[str, object]]:
    for key, entry in _items(value):
        # type() and not isinstance(): True is no name
        if not isinstance(key, str) and type(key) is not int:
            continue
        if is_container(entry) and (is_trainer_state(str(key)) or _is_optimiser(entry)):
            left_out.append(f"{prefix}{key}")
        else:
            yield str(key), entry


def _items(value: object) -> Iterable[tuple[Any, Any]]:
    """As `entries_of`, and without a copy: a large dict may be in many places of a tree."""
    if isinstance(value, Mapping):
        return dict.items(value) if isinstance(value, dict) else value.items()
    return enumerate(value) if isinstance(value, list | tuple) else ()


def is_trainer_state(key: str) -> bool:
    """Whether a name is that of what trainers save beside the weights.

    Examples
    --------
    >>> [is_trainer_state(key) for key in ("optimizer_states", "lr_scheduler", "rng_state", "optimal")]
    [True, True, True, False]
    """
    name = key.lower()
    return name in _TRAINER_STATE or not _TRAINER_WORDS.isdisjoint(name.split("_"))


def _is_optimiser(value: object) -> bool:
    return isinstance(value, Mapping) and "param_groups" in value and "state" in value


def holds_tensors(root: object, is_tensor: IsTensor) -> bool:
    """Whether there is a tensor anywhere in a tree, as far as it is looked at; False if that is too far.

    Examples
    --------
    >>> holds_tensors({"a": [{"b": 1.0}]}, lambda value: isinstance(value, float))
    True
    """
    try:
        return any(is_tensor(value) for _, value in _walk(root, [], "", _MOST_SEARCHED))
    except FormatError:
        return False


def plain_values(entries: Mapping[Any, Any], prefix: str) -> dict[str, Any]:
    """Numbers, texts, truth values and short lists of them in a tree, by dotted place; at most 1000.

    Parameters
    ----------
    entries : a dict whose tensors are read elsewhere
    prefix : of the places, "" or with a final dot

    Examples
    --------
    >>> plain_values({"metadata": {"r": 2, "params": ["q", "v"]}, "epoch": 3}, "")
    {'metadata.r': 2, 'metadata.params': ['q', 'v'], 'epoch': 3}
    """
    found: dict[str, Any] = {}
    looked_at = 0
    open_levels = [(prefix, _children(entries, "", []))]
    while open_levels and len(found) < _MOST_SETTINGS and looked_at < _MOST_LOOKED_AT:
        before, level = open_levels[-1]
        key, value = next(level, (None, None))
        looked_at += 1
        if key is None:
            open_levels.pop()
        elif _is_plain(value):
            found[f"{before}{key}"] = value
        elif isinstance(value, Mapping) and len(open_levels) < _DEEPEST:
            open_levels.append((f"{before}{key}.", _children(value, "", [])))
    return found


def _is_plain(value: object) -> bool:
    # the types themselves: a NumPy number is a tensor
    if type(value) in _PLAIN:
        return not isinstance(value, str) or len(value) <= _LONGEST
    return (
        isinstance(value, list | tuple)
        and len(value) <= _LONGEST
        and all(type(entry) in _PLAIN for entry in value)
    )
