"""What is read for `inputs`: a model, the names of its layers, and forward passes over data or batches of one's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from subspace.adapters.naming.same_input import place_of
from subspace.adapters.place import place
from subspace.analysis.evaluated_data import base_for, examples_of, named_data, settings_of, task_and_examples
from subspace.analysis.resolve import Loading
from subspace.analysis.run_settings import common_setting, run_settings
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from torch import nn

    from subspace.training.input_passes import Pass

__all__ = ["InputsSource", "layers_of", "source_of"]


@dataclass(frozen=True)
class InputsSource:
    """A model, and passes over what it is to be given.

    Attributes
    ----------
    model, name, model_sha256 : the model
    data, data_sha256 : what it is given; the digest of batches is known once they were read, and "" before
    passes : the forward passes
    notes : what to know, one sentence each
    """

    model: nn.Module
    name: str
    model_sha256: str
    data: str
    data_sha256: str
    passes: Iterable[Pass]
    notes: tuple[str, ...] = ()

    def looked_at(self) -> tuple[Pass, InputsSource]:
        """The first pass, and a source that still has it.

        Raises
        ------
        ValueRangeError : there is none
        """
        left = iter(self.passes)
        first = next(left, None)
        if first is None:
            raise ValueRangeError("There are no batches: the iterable is empty; give at least one")
        return first, replace(self, passes=chain([first], left))


def source_of(
    model: Any,
    data: Any,
    *,
    adapter: Any,
    tokens: int,
    loss: Callable[[Any, Any], Any] | None,
    reading: Mapping[str, Any],
    showing: Mapping[str, Any],
    device: str,
) -> InputsSource:
    """The model and the passes; parameters as `inputs` has them.

    Raises
    ------
    SubspaceError : something cannot be read, or nothing says what to read
    """
    run = run_settings(adapter)
    runs = [] if run is None else [run]
    if model is None:
        model = common_setting(runs, "model", "embedded")
    if _are_batches(data):
        return _of_batches(model, data, loss)
    if loss is not None:
        raise ValueRangeError("A `loss` is for batches; data from a file have their own")
    return _of_data(model, data, runs, tokens, {**reading, **showing}, device)


def _are_batches(data: Any) -> bool:
    from subspace.training.data import Examples

    if data is None or isinstance(data, str | bytes | os.PathLike | Examples):
        return False
    # a list of paths is read as one file after the other would be
    return not (isinstance(data, Sequence) and data and isinstance(data[0], str | bytes | os.PathLike))


def _of_batches(model: Any, batches: Any, loss: Any) -> InputsSource:
    from torch import nn

    from subspace.training.input_passes import own_passes
    from subspace.training.run_checks import fingerprint
    from subspace.training.wrappers import unwrapped

    if not isinstance(model, nn.Module):
        raise ValueRangeError(
            f"Batches need a model in memory, and {shown(model)} is none; give an nn.Module, or `data` as a path"
        )
    if not isinstance(batches, Iterable):
        raise ValueRangeError(
            f"Not batches: {shown(type(batches).__name__)} cannot be iterated over; give a list of batches or a "
            "DataLoader"
        )
    inner = unwrapped(model)
    return InputsSource(
        inner, type(inner).__name__, fingerprint(inner), "batches", "", own_passes(batches, loss)
    )


def _of_data(
    model: Any, data: Any, runs: list[Any], tokens: int, given: dict[str, Any], device: str
) -> InputsSource:
    from torch import nn

    from subspace.training.content import model_sha256
    from subspace.training.input_passes import passes_of
    from subspace.training.run_checks import device_of, fingerprint

    whole = 1.0 if given["held_out"] is None else given["held_out"]
    settings = settings_of({**given, "held_out": whole, "most": None}, runs, own_data=data is None)
    ((name, source),) = _one_of(named_data(data, runs)).items()
    examples = examples_of(source, settings)
    base = base_for(model, examples, settings)
    if not isinstance(model, nn.Module):
        base.model.to(device_of(device))
    task, _, _ = task_and_examples(base, examples, source, settings)
    digest = fingerprint(base.model) if isinstance(model, nn.Module) else model_sha256(os.fsdecode(model))
    notes = (*base.notes[1 if base.heads else 0 :], *examples.notes, *getattr(task, "notes", ()))
    return InputsSource(base.model, base.name, digest, name, examples.sha256, passes_of(task, tokens), notes)


def _one_of(data: dict[str, Any]) -> dict[str, Any]:
    if len(data) != 1:
        raise ValueRangeError(
            f"Several data, {listed(data)}: inputs are of one at a time; give one as `data`"
        )
    return data


def layers_of(
    model: nn.Module, targets: Sequence[str] | None, adapter: Any, loading: Loading
) -> tuple[list[str], tuple[str, ...]]:
    """Names of the layers to measure in the model's order, and notes.

    Raises
    ------
    InconclusiveError : the model has no layer of the adapter
    ValueRangeError : a target matches nothing, or a layer that is not linear
    """
    from subspace.training.layer_shapes import kind_of
    from subspace.training.module_patterns import ALL_LINEAR, targets_in

    if adapter is not None:
        if targets is not None:
            raise ValueRangeError("Both targets and an adapter are given; give `targets` or `adapter` alone")
        return _layers_of_adapter(model, adapter, loading)
    if targets is None:
        every = targets_in(model, [ALL_LINEAR])
        blocks = [name for name in every if place_of(name).layer]
        return blocks or every, ()
    names = targets_in(model, targets)
    odd = [name for name in names if kind_of(model.get_submodule(name)) not in ("linear", "conv1d")]
    if odd:
        raise ValueRangeError(f"Not linear layers: {listed(odd)}; choose other `targets`")
    return names, ()


def _layers_of_adapter(model: nn.Module, adapter: Any, loading: Loading) -> tuple[list[str], tuple[str, ...]]:
    from subspace.adapters import load_base
    from subspace.training.layer_shapes import kind_of

    weights = load_base(model)
    read = replace(loading, base=weights).adapter(adapter)
    found = {module: weights.weight(update) for module, update in read.items()}
    names = {module: weight.key.rpartition(".")[0] for module, weight in found.items() if weight is not None}
    modules: dict[str, Any] = dict(model.named_modules())
    linear = {m: n for m, n in names.items() if n in modules and kind_of(modules[n]) in ("linear", "conv1d")}
    wanted = set(linear.values())
    left = [module for module in read if module not in linear]
    if not wanted:
        raise InconclusiveError(
            f"The model has no linear layer of the adapter ({listed(left)}), in {place(read.path)}; rename modules "
            "with `rename`, or give the model that the adapter was trained on"
        )
    note = (
        f"{counted(len(left), 'module')} of the adapter not measured, as the model has no linear layer there: "
        f"{listed(left)}"
    )
    return [name for name in modules if name in wanted], (note,) if left else ()
