"""The inputs of an adapter's modules, from a file or a result of `inputs`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from subspace.adapters import match_modules
from subspace.adapters.place import place
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.results.inputs import Inputs
from subspace.results.inputs_file import load_inputs
from subspace.text import listed, module_shown, shown

if TYPE_CHECKING:
    from subspace.adapters.update import Update
    from subspace.geometry.second_moment import SecondMoment
    from subspace.results.inputs import Gradient

__all__ = ["KnownInputs"]

_GROUP = re.compile(r"\[[^\]]*\]$")  # of a fused layer, whose input is that of the layer


class KnownInputs:
    """What is known of the inputs of modules.

    Parameters
    ----------
    given : an `Inputs`, or the path of its file
    modules : names of the modules of the adapter
    path : the adapter's, for messages

    Raises
    ------
    ValueRangeError : it is neither
    InconclusiveError : no module of the adapter is in it
    """

    def __init__(self, given: Any, modules: Sequence[str], *, path: str) -> None:
        self.path = os.fsdecode(given) if isinstance(given, str | bytes | os.PathLike) else ""
        if not self.path and not isinstance(given, Inputs):
            raise ValueRangeError(
                f"Not inputs: {shown(type(given).__name__)}; give `inputs` a file that subspace inputs wrote, or its "
                "result"
            )
        self.inputs: Inputs = load_inputs(self.path) if self.path else given
        layers = {module: _GROUP.sub("", module) for module in modules}
        stored = [row.module for row in self.inputs]
        pairs = dict(match_modules(list(dict.fromkeys(layers.values())), stored).pairs)
        self._names = {module: pairs[layer] for module, layer in layers.items() if layer in pairs}
        if not self._names:
            raise InconclusiveError(
                f"No module of the adapter is in the inputs: {place(path)} has {module_shown(modules[0])}, "
                f"and the inputs are of {listed(stored)}; give `inputs` of the model that the adapter was trained on"
            )

    def moment(self, update: Update) -> SecondMoment | None:
        """Second moment of a module's inputs; None where it was not measured, or is of another dimension."""
        name = self._names.get(update.module)
        found = None if name is None else self.inputs.moments.get(self.inputs[name].read_with)
        return found if found is not None and found.d == update.d_in and found.trace > 0 else None

    def gradient(self, update: Update) -> Gradient | None:
        """Leading directions of the first gradient by a module's weight; None where they were not measured."""
        found = self.inputs.gradients.get(self._names.get(update.module, ""))
        return found if found is not None and len(found.V) == update.d_in else None

    @property
    def have_gradients(self) -> bool:
        """Whether there is a gradient of any module."""
        return bool(self.inputs.gradients)

    def described(self) -> dict[str, Any]:
        """Which inputs these are, for the JSON document."""
        names = ("model", "data", "model_sha256", "data_sha256", "tokens")
        own = {name: getattr(self.inputs, name) for name in names}
        return {"path": place(self.path) if self.path else None, **own}
