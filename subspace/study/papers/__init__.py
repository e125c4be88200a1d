"""One paper per file or folder, found by being here: each declares one `Paper` as ``PAPER``.

A study trains the runs of a paper and tests its claims. What several papers share is in `subspace.study` itself.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from subspace.errors import ValueRangeError
from subspace.text import listed, shown

if TYPE_CHECKING:
    from subspace.study.paper import Paper

__all__ = ["DEFAULT", "named", "names"]

DEFAULT = "lora"


def names() -> tuple[str, ...]:
    """Names of all papers, which are those of their files, the default one first; nothing is imported for it."""
    found = {module.name for module in iter_modules(__path__) if not module.name.startswith("_")}
    return (DEFAULT, *sorted(found - {DEFAULT}))


def named(name: str) -> Paper:
    """Return the paper of that name.

    Raises
    ------
    ValueRangeError : there is none
    """
    if name not in names():
        raise ValueRangeError(
            f"No paper is called '{shown(name)}'; choose one of {listed(names(), most=len(names()))}"
        )
    paper: Paper = import_module(f"{__name__}.{name}").PAPER
    return paper
