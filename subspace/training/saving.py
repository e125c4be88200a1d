"""The active adapter of a model of one's own as a PEFT directory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from subspace.checkpoints.atomic_writing import one_writer, write_whole
from subspace.checkpoints.destination import require_free
from subspace.checkpoints.peft_files import WEIGHTS
from subspace.checkpoints.weights_files import CONFIG
from subspace.errors import FileError, ValueRangeError
from subspace.text import counted, listed, shown
from subspace.training.adapted_layer import AdaptedLayer
from subspace.training.export import peft_files
from subspace.training.injection import adapted
from subspace.training.module_patterns import bare_name
from subspace.training.wrappers import unwrapped

__all__ = ["LABELS", "START", "adapter_files", "save", "start_files"]

LABELS, START = "labels.json", "start"
_MAY_BE_THERE = (
    LABELS,
    "adapter_model.bin",
    *(f"{START}/{name}" for name in (WEIGHTS, "adapter_model.bin", CONFIG)),
)
# of transformers' models, by the end of the name of their class
_TASKS = {
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
}


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the active adapter of a model as a PEFT directory, in one step; return its path.

    In it are A and B, their scale, the modules that were kept trainable, in ``start/`` what `inject` started from, and
    the names of classes in ``labels.json``. `load`, PEFT and every command of subspace read it.

    Parameters
    ----------
    model : adapted by `inject` or `load`; it may be compiled, parallel, on any device, merged or not
    path : the directory, which is made where it is missing
    labels : names of the classes that a classifier's outputs stand for; None for those that ``model.config`` names
    overwrite : replace an adapter that is in the directory; other files stay

    Raises
    ------
    ValueRangeError : no adapter, none that is active, a trained weight of an adapted layer
    FileError : the directory holds something already, or cannot be written in full

    Notes
    -----
    Running statistics, such as those of batch normalisation, are saved with a module that was kept, and of no other.
    A layer that the model uses under several names is saved under the first. PEFT adapts it under this name alone, so
    that it computes something else; `load` does not.
    """
    folder, model = Path(path), unwrapped(model)
    files = adapter_files(model, labels) | start_files(model)
    contents = {folder / name: content for name, content in files.items()}
    with one_writer(folder):
        require_free(folder, contents, inputs=(), folder=True, overwrite=overwrite)
        if (folder / "run.json").exists():
            raise FileError(
                f"Cannot write {shown(folder, longest=1000)}: it is the directory of a training run; choose another "
                "name"
            )
        old = [folder / name for name in _MAY_BE_THERE if name not in files and (folder / name).is_file()]
        write_whole(contents, without=old)
    return folder


def adapter_files(model: nn.Module, labels: Sequence[str] | None = None) -> dict[str, bytes]:
    """Return the files of the active adapter: name -> content, without its start.

    Parameters
    ----------
    model, labels : as in `save`
    """
    _active(model)
    files = peft_files(model, base=_base(model), task=_task(model))
    if named := _labels(model, labels):
        id2label = {str(n): str(label) for n, label in enumerate(named)}
        files[LABELS] = f"{json.dumps({'id2label': id2label}, indent=2)}\n".encode("ascii")
    return files


def start_files(model: nn.Module) -> dict[str, bytes]:
    """Return the files of what the active adapter started from, in ``start/``; {} where it is unknown or not kept."""
    with _at_start(_active(model)) as known:
        files = peft_files(model, base=_base(model), task=_task(model), kept=False) if known else {}
    return {f"{START}/{name}": content for name, content in files.items()}


def _active(model: nn.Module) -> list[tuple[str, AdaptedLayer]]:
    layers = adapted(model)
    if not layers:
        raise ValueRangeError(
            "The model has no adapter to save; inject one first, or save a model that was trained whole with "
            "torch.save(model.state_dict(), path)"
        )
    active = [(name, layer) for name, layer in layers if layer.active is not None]
    if not active:
        names = sorted({name for _, layer in layers for name in layer.methods})
        raise ValueRangeError(
            f"No adapter is active in the model, which has {listed(names, most=8)}; choose one with use(model, name) "
            "first"
        )
    return active


@contextmanager
def _at_start(layers: Sequence[tuple[str, AdaptedLayer]]) -> Iterator[bool]:
    """Have the parameters of the active adapter be what they started from; yields whether that is known and kept."""
    before = {layer: dict(layer._parameters) for _, layer in layers}
    try:
        yield all(_put_start(layer, bare_name(name)) for name, layer in layers)
    finally:
        for layer, parameters in before.items():
            layer._parameters.clear()
            layer._parameters.update(parameters)


@torch.no_grad()
def _put_start(layer: AdaptedLayer, name: str) -> bool:
    adapter = layer.active or ""
    method = layer.methods[adapter]
    if layer.original is not None:  # merged: a start may depend on the weight from before
        layer._parameters["weight"] = layer.original[0]
    start = layer.loaded_starts[adapter] if adapter in layer.loaded_starts else method.start(layer, name)
    if start is None or not method.keeps_start:
        return False
    for part, value in start.items():
        layer._parameters[part] = nn.Parameter(value, requires_grad=False)
    return True


def _base(model: nn.Module) -> str | None:
    """Where transformers loaded the model from, None for other models."""
    return getattr(getattr(model, "config", None), "_name_or_path", None) or None


def _task(model: nn.Module) -> str | None:
    """``task_type`` of a model of transformers that takes text; None for others."""
    if getattr(model, "main_input_name", None) != "input_ids":
        return None
    return next((task for end, task in _TASKS.items() if type(model).__name__.endswith(end)), None)


def _labels(model: nn.Module, labels: Sequence[str] | None) -> Sequence[str]:
    config = getattr(model, "config", None)
    if labels is None:
        named = dict(getattr(config, "id2label", None) or {})
        given = [str(named[key]) for key in sorted(named)]
        # transformers' own names say nothing
        return [] if given == [f"LABEL_{n}" for n in range(len(given))] else given
    if isinstance(labels, str):
        raise ValueRangeError(
            f"`labels` is one text, {shown(labels)}; give a list with the name of each class"
        )
    count = getattr(config, "num_labels", len(labels))
    if labels and len(labels) != count:
        raise ValueRangeError(
            f"{counted(len(labels), 'label')} for a classifier of {count} classes; give one each"
        )
    return labels
