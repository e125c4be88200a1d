"""The beginning that module names share: said once, so that what differs can be read."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["shared_beginning"]


def shared_beginning(modules: Sequence[str]) -> tuple[str, list[str]]:
    """Dotted components that all names begin with, and the names without them; nothing is taken from one name.

    Examples
    --------
    >>> shared_beginning(["model.layers.0.q", "model.layers.1.q"])
    ('model.layers', ['0.q', '1.q'])
    >>> shared_beginning(["model.q"])
    ('', ['model.q'])
    """
    if len(set(modules)) < 2:
        return "", list(modules)
    paths = [module.split(".") for module in modules]
    n = 0
    while all(len(path) > n + 1 and path[n] == paths[0][n] for path in paths):
        n += 1
    return ".".join(paths[0][:n]), [".".join(path[n:]) for path in paths]
