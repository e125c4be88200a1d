"""An adapter with its modules under the names that they have in models of transformers and diffusers.

Names of the format that is written stay as they are, and so do names that the user gave.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from subspace.adapters.adapter import Adapter
from subspace.adapters.naming import full_names
from subspace.adapters.naming.components import named_component
from subspace.adapters.naming.flattened import is_flat
from subspace.adapters.place import place
from subspace.adapters.writers._row_order import in_order_of_transformers
from subspace.checkpoints.peft_files import PREFIX
from subspace.errors import FormatError
from subspace.flags import Flag
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from subspace.adapters.base.weights import BaseWeights
    from subspace.adapters.update import Update

__all__ = ["path_in_one_model", "require_dotted", "spelled"]

# what stands for a name in formats that number their modules
_PLACES = {"cloneofsimo": re.compile(r"(?:[^:]+:)?[0-9]+"), "positional": re.compile(r"w_[0-9]+")}
_ONE_LAYER = (Flag.FUSED, Flag.INTERLEAVED, Flag.GROUP_UNKNOWN)


def spelled(
    adapter: Adapter, base: BaseWeights | None, *, flattened: bool = False
) -> tuple[Adapter, dict[str, str]]:
    """The adapter under full names of its modules, and new -> old name; flattened names that could be several stay.

    Parameters
    ----------
    base : the model that the adapter was trained on, whose names decide
    flattened : whether flattened names stay

    Raises
    ------
    FormatError : names of a library that do not say the module, a file without names, or two modules of one name
    """
    given = set(adapter.stored_names)  # by the user
    _require_names(adapter, given)
    library = full_names.LIBRARIES.get(adapter.format)
    if library is not None:
        return _of_library(adapter, given, base)
    kept = {m for m in adapter if m in given or (flattened and is_flat(m))}
    return _with_names(adapter, {m: m if m in kept else full_names.dotted(m, base) for m in adapter})


def _require_names(adapter: Adapter, given: set[str]) -> None:
    pattern = _PLACES.get(adapter.format)
    without = [m for m in adapter if pattern is not None and m not in given and pattern.fullmatch(m)]
    if without:
        raise FormatError(
            f"No names for {counted(len(without), 'module')}: the file does not say which layers {listed(without)} "
            f"are, in {place(adapter.path)}; give their names with `rename`"
        )


def _of_library(
    adapter: Adapter, given: set[str], base: BaseWeights | None
) -> tuple[Adapter, dict[str, str]]:
    """The adapter under the names of transformers, with the rows of its factors in their order."""
    library = full_names.LIBRARIES[adapter.format]
    own = [module for module in adapter if module not in given]
    _require_known_groups(own, adapter)
    names = full_names.in_one_model(own, library, base) if own else {}
    if isinstance(names, set):
        foreign = [module for module in own if not library.full_names(module)]
        why = f"they could be of {' or '.join(sorted(names))}" if names else "no known model has them all"
        raise FormatError(
            f"Cannot translate the names that {library.name} gives to modules, {listed(foreign or own)}: {why}, in "
            f"{place(adapter.path)}; give names with `rename`{', or the model as `base`' if names else ''}"
        )
    updates = {}
    for module, update in adapter.items():
        ordered = module in names and library.reordered(module, names[module])
        read = in_order_of_transformers(update, adapter, base) if ordered else update
        # a group of a fused layer is a layer of its own in transformers
        alone = module.endswith("]") and module in names
        flags = tuple(flag for flag in read.flags if not (alone and flag in _ONE_LAYER))
        updates[module] = replace(read, flags=flags, rows=None if alone else read.rows)
    return _with_names(replace(adapter, updates=updates), names)


def _require_known_groups(modules: Sequence[str], adapter: Adapter) -> None:
    numbered = [
        module for module in modules if module.endswith("]") and module[:-1].rpartition("[")[2].isdecimal()
    ]
    if numbered:
        raise FormatError(
            f"Cannot tell which of q, k and v the groups {listed(numbered)} are, in {place(adapter.path)}; give "
            "`enable_lora`, such as 1,0,1 for q and v"
        )


def _with_names(adapter: Adapter, names: Mapping[str, str]) -> tuple[Adapter, dict[str, str]]:
    """The adapter under other names, and new -> old; a module without a new one keeps its own."""
    updates: dict[str, Update] = {}
    olds: dict[str, str] = {}
    for old, update in adapter.items():
        new = names.get(old, old)
        if olds.setdefault(new, old) != old:
            raise FormatError(
                f"Two modules would have the name {shown(repr(new))}: {shown(olds[new])} and {shown(old)}, in "
                f"{place(adapter.path)}; give each a name of its own with `rename`"
            )
        updates[new] = replace(update, module=new)
    return replace(adapter, updates=updates), olds


def path_in_one_model(modules: Iterable[str], adapter: Adapter, to: str) -> dict[str, str]:
    """Module -> its path in the one model that all modules are in, for a format whose files are of one model.

    Parameters
    ----------
    modules : of the adapter, under full names
    to : the format that is written, in whose own files names stay as they are

    Raises
    ------
    FormatError : the modules are in several models of a pipeline, or a name has underscores for dots
    """
    of_diffusers = adapter.format == "peft" and _lacks_prefix(adapter)
    if adapter.format == to and not of_diffusers:
        return {module: module for module in modules}
    places = {
        module: named_component(module, "pair" if of_diffusers else adapter.format) for module in modules
    }
    models = list(dict.fromkeys(model for model, _ in places.values()))
    if len(models) > 1:
        named = listed(model or "one without a name" for model in models)
        raise FormatError(
            f"The adapter is of {counted(len(models), 'model')} ({named}), and a file of the format {to} is of one, in "
            f"{place(adapter.path)}; choose the format diffusers or kohya, which hold several, or give the tensors of "
            "one model"
        )
    require_dotted((path for _, path in places.values()), adapter)
    return {module: path for module, (_, path) in places.items()}


def _lacks_prefix(adapter: Adapter) -> bool:
    """Whether a file has PEFT's keys without its prefix, as diffusers saves them with a configuration."""
    return adapter.tensors is not None and not any(key.startswith(PREFIX) for key in adapter.tensors.layout)


def require_dotted(paths: Iterable[str], adapter: Adapter) -> None:
    """Check that no path has underscores in the place of dots.

    Raises
    ------
    FormatError : one has
    """
    flat = [path for path in paths if is_flat(path)]
    if flat:
        raise FormatError(
            f"No model has a module called {listed(flat)}: its dots were replaced by underscores, and could be in "
            f"several places, in {place(adapter.path)}; give the model as `base`, or the names with `rename`"
        )
