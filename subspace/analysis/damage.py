"""Modules that hold a number that is not finite (NaN or Inf): the others are measured without them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from subspace.adapters import DenseUpdate
from subspace.adapters.place import place
from subspace.text import counted, listed, module_shown

if TYPE_CHECKING:
    from subspace.adapters import Update
    from subspace.adapters.update import Factor

__all__ = ["Damage", "damaged", "damaged_places"]


class Damage:
    """The modules that were left out because a number is not finite, by the file that holds it.

    Examples
    --------
    >>> damage = Damage()
    >>> damage.add("q", ["run.safetensors"])
    >>> damage.notes()[0]
    '1 module (q) has no score: its numbers in run.safetensors are not all finite (NaN or Inf)'
    """

    def __init__(self) -> None:
        self._modules: dict[str, dict[str, None]] = defaultdict(dict)

    def add(self, module: str, paths: Sequence[str]) -> None:
        """Take in a module and the files whose numbers of it are not finite."""
        for path in paths:
            self._modules[path][module] = None

    def notes(self, *, without: Collection[str] = (), consequence: str = "") -> tuple[str, ...]:
        """A sentence for each file.

        Parameters
        ----------
        without : files that something else speaks of
        consequence : what follows for the numbers of all modules together, as a clause
        """
        return tuple(
            f"{counted(len(modules), 'module')} ({listed(map(module_shown, modules))}) "
            f"{'has' if len(modules) == 1 else 'have'} no score: {'its' if len(modules) == 1 else 'their'} numbers in "
            f"{place(path)} are not all finite (NaN or Inf){'; ' if consequence else ''}{consequence}"
            for path, modules in self._modules.items()
            if path not in without
        )


def damaged(sources: Sequence[tuple[str, Update]]) -> list[str]:
    """Paths of the sources that hold a number that is not finite."""
    bad = [path for path, update in sources if not all(np.isfinite(f.load()).all() for f in _factors(update))]
    return list(dict.fromkeys(bad))


def damaged_places(sources: Sequence[tuple[str, Update]]) -> str:
    """The sources that hold a number that is not finite, in words; all of them, where none does."""
    paths = damaged(sources) or dict.fromkeys(path for path, _ in sources)
    return " or ".join(place(path) for path in paths)


def _factors(update: Update) -> tuple[Factor, ...]:
    return (update.matrix,) if isinstance(update, DenseUpdate) else (update.A_factor, update.B_factor)
