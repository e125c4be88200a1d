"""Short names of adapters that no two adapters of a figure have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from subspace.plots import style

__all__ = ["adapter_titles", "text_width"]


def adapter_titles(paths: Sequence[str], *, longest: int = 28) -> list[str]:
    """Return per path as many of its last folders as no other path ends in, without what all paths end in.

    Parameters
    ----------
    paths : of adapters; any text
    longest : characters; a longer name keeps its two ends, and names that are equal then get a number

    Examples
    --------
    >>> adapter_titles(["runs/x/ck-1/adapter.safetensors", "runs/x/ck-2/adapter.safetensors"])
    ['ck-1', 'ck-2']
    >>> adapter_titles(["a/final", "b/final", "c"])
    ['a/final', 'b/final', 'c']
    """
    parts = [path.replace("\\", "/").rstrip("/").split("/") for path in paths]
    while len(parts) > 1 and all(len(each) > 1 for each in parts) and len({each[-1] for each in parts}) == 1:
        parts = [each[:-1] for each in parts]
    endings = Counter("/".join(each[-n:]) for each in parts for n in range(1, len(each) + 1))
    names = [
        next((e for n in range(1, len(each) + 1) if endings[e := "/".join(each[-n:])] == 1), "/".join(each))
        for each in parts
    ]
    short = [style.text(name, longest=longest) for name in names]
    often, seen = Counter(short), Counter[str]()
    for n, name in enumerate(short):
        if often[name] > 1:
            seen[name] += 1
            short[n] = f"{style.text(names[n], longest=longest - 5)} [{seen[name]}]"
    return short


def text_width(names: Sequence[str], *, size: float) -> float:
    """Return the inches that the longest of some names takes at `size` points, a little more rather than less.

    Examples
    --------
    >>> round(text_width(["ten letter"], size=7.2), 6)
    0.6
    """
    return 0.6 * size / 72 * max((len(name) for name in names), default=0)
