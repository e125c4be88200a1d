"""Short titles of modules that no two modules have in common.

A module is called by the end of its dotted path: as many whole components as no other module's path ends in.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from subspace.plots import style

__all__ = ["endings", "kind_of", "layer_of", "layer_titles", "without_layer"]

_LAYER = re.compile(r"(?:^|(?<=[._]))(\d+)(?=$|[._\[])")
_LONGEST = 60  # characters of a title that five lines over the narrowest heatmap hold
_MOST_COMPONENTS = 30  # no model nests deeper; a longer path counts as a whole


def endings(modules: Sequence[str]) -> list[str]:
    """Return per module the shortest ending of its path that is no other's.

    Of a path with several numbers the ending does not begin with one, which would not say what it counts.

    Examples
    --------
    >>> endings(["decoder.0.self_attn.q", "decoder.0.encoder_attn.q", "decoder.0.fc"])
    ['self_attn.q', 'encoder_attn.q', 'fc']
    >>> endings(["model.layers.0.q", "model.layers.1.q"])
    ['0.q', '1.q']
    >>> endings(["down.0.attentions.0.q", "down.1.attentions.0.q"])
    ['down.0.attentions.0.q', 'down.1.attentions.0.q']
    """
    shortest = _told_apart(modules, [None] * len(modules))
    return _drawable(modules, [_with_what_is_counted(m, e) for m, e in zip(modules, shortest, strict=True)])


def layer_titles(modules: Sequence[str]) -> list[str]:
    """Return per module its shortest ending and its layer, which together are no other's.

    The layer stands apart only where it is not in the ending, and where no second number could be meant.

    Examples
    --------
    >>> layer_titles(["h.0.q", "h.0.v", "h.1.q"])
    ['q, layer 0', 'v, layer 0', 'q, layer 1']
    >>> layer_titles(["encoder.0.self.q", "decoder.0.self.q", "decoder.0.cross.q"])
    ['encoder.0.self.q', 'decoder.0.self.q', 'cross.q, layer 0']
    >>> layer_titles(["down.0.attentions.1.q", "down.0.attentions.2.q"])
    ['attentions.1.q', 'attentions.2.q']
    """
    layers = [layer_of(module) if _has_one_number(module) else None for module in modules]
    titles = []
    for module, layer, shortest in zip(modules, layers, _told_apart(modules, layers), strict=True):
        ending = _with_what_is_counted(module, shortest)
        place = _LAYER.search(module)
        inside = place is not None and place.start() >= len(module) - len(ending)
        titles.append(ending if layer is None or inside else f"{ending}, layer {layer}")
    return _drawable(modules, titles)


def layer_of(module: str) -> int | None:
    """Return the number of a module's layer: the first number in its path.

    Examples
    --------
    >>> layer_of("encoder.layer.3.attention.query"), layer_of("lora_unet_blocks_7_to_q"), layer_of("head")
    (3, 7, None)
    """
    found = _LAYER.search(module)
    return None if found is None else int(found[1])


def without_layer(module: str) -> str:
    """Return the path without the number of its layer, which is the same for one kind of module in all layers.

    Examples
    --------
    >>> without_layer("encoder.layer.3.attention.query")
    'encoder.layer..attention.query'
    """
    return _LAYER.sub("", module, count=1)


def kind_of(module: str) -> str:
    """Return the path without any number.

    Examples
    --------
    >>> kind_of("up_blocks.1.attentions.2.to_q"), kind_of("lora_unet_blocks_7_to_q"), kind_of("0")
    ('up_blocks.attentions.to_q', 'lora_unet_blocks_to_q', '0')
    """
    return re.sub(r"([._])[._]+", r"\1", _LAYER.sub("", module)).strip("._") or module


def _has_one_number(module: str) -> bool:
    return sum(component.isdigit() for component in module.split(".")) < 2


def _told_apart(modules: Sequence[str], layers: Sequence[int | None]) -> list[str]:
    """Return per module its shortest ending that no other module of its layer has; None: no other module at all."""
    known = dict(zip(modules, layers, strict=True))
    counts: Counter[tuple[int | None, str]] = Counter()
    for module, layer in known.items():
        for ending in _each_ending(module):
            counts.update({(None, ending), (layer, ending)})
    return [
        next((e for e in _each_ending(module) if counts[layer, e] == 1 and not _only_numbers(e)), module)
        for module, layer in zip(modules, layers, strict=True)
    ]


def _with_what_is_counted(module: str, ending: str) -> str:
    """Return an ending that begins with one of several numbers together with the component before it."""
    begins = len(module) - len(ending)
    if begins == 0 or _has_one_number(module) or not ending.partition(".")[0].isdigit():
        return ending
    return module[module.rfind(".", 0, begins - 1) + 1 :]


def _each_ending(module: str) -> Iterator[str]:
    """Yield the endings of a path in whole components, from the shortest to the path itself."""
    components = module.split(".")
    for n in range(1, min(len(components), _MOST_COMPONENTS)):
        yield ".".join(components[-n:])
    yield module


def _only_numbers(ending: str) -> bool:
    return ending.replace(".", "").isdigit()


def _drawable(modules: Sequence[str], titles: Sequence[str]) -> list[str]:
    """Return the titles as they can be drawn; those that are equal once they are cut get a number."""
    short = {m: style.text(t, longest=_LONGEST) for m, t in zip(modules, titles, strict=True)}
    often, seen = Counter(short.values()), Counter[str]()
    for module, title in short.items():
        if often[title] > 1:
            seen[title] += 1
            short[module] = style.text(title, longest=_LONGEST - 8) + f" [{seen[title]}]"
    return [short[module] for module in modules]
