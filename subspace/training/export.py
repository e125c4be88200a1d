"""What was trained, laid out as the files that PEFT, loralib and transformers load."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from subspace.checkpoints.peft_files import PREFIX, WEIGHTS, config_text
from subspace.checkpoints.weights_files import CONFIG
from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training.adapted_layer import AdaptedLayer
from subspace.training.embedded import FOLDER
from subspace.training.injection import adapted
from subspace.training.loralib_layout import loralib_factors
from subspace.training.loralib_names import lora_state_dict
from subspace.training.method import Layers, Method
from subspace.training.module_patterns import as_targets, bare_name
from subspace.training.save_adapter import safetensors_file

__all__ = ["files_of", "full_files", "kept_parameters", "loralib_files", "peft_files"]

_TASKS = {"lm": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "classify": "SEQ_CLS"}


def files_of(model: nn.Module, *, base: str, task: str, format: str, start: bool = False) -> dict[str, bytes]:
    """Return what a run writes of its model, as it is now.

    Parameters
    ----------
    model : adapted, or trained itself
    base : its name, as the run's settings have it
    task : "lm", "seq2seq" or "classify"
    format : "peft" or "loralib", for a method that can be saved in it; a model that was trained itself is a model
    start : the adapter alone, of a model before its first step; nothing where the method keeps no start
    """
    active = _active(model)
    if not active:
        return {} if start else full_files(model, FOLDER if base == "embedded" else Path(base))
    if start and not _method(active).keeps_start:
        return {}
    if format == "loralib" and "loralib" in _method(active).formats:
        return loralib_files(model, kept=not start)
    return peft_files(model, base=base, task=task, kept=not start)


def _active(model: nn.Module) -> list[tuple[str, AdaptedLayer]]:
    """The layers in which an adapter is active, with their names."""
    return [(name, layer) for name, layer in adapted(model) if layer.active]


def _method(layers: Layers) -> Method:
    """The method of the active adapter, which is the same in every layer."""
    layer = layers[0][1]
    return layer.methods[layer.active or ""]


def peft_files(
    model: nn.Module, *, base: str | None, task: str | None, kept: bool = True
) -> dict[str, bytes]:
    """Return the files of a PEFT directory of the active adapter, and of the modules that were kept trainable.

    Parameters
    ----------
    model : adapted
    base : ``base_model_name_or_path``
    task : "lm", "seq2seq" or "classify", or ``task_type`` itself
    kept : with the modules that were kept trainable

    Raises
    ------
    ValueRangeError : a weight or bias of an adapted layer is trained too

    References
    ----------
    peft/utils/save_and_load.py, ``get_peft_model_state_dict``; peft/tuners/lora/config.py.
    """
    layers = _active(model)
    _require_frozen(model, layers)
    tensors: dict[str, Tensor] = {}
    for name, layer in layers:
        adapter = layer.active or ""
        for part, value in layer.methods[adapter].peft_tensors(layer, adapter).items():
            tensors[f"{PREFIX}{bare_name(name)}.{part}"] = value
    if kept:
        whole = _kept_tensors(model) | _frozen_beside_kept(model)
        tensors |= {f"{PREFIX}{bare_name(name)}": value for name, value in whole.items()}
    config = _config(model, layers) | {
        "base_model_name_or_path": base,
        "task_type": _TASKS.get(task or "", task),
    }
    return {WEIGHTS: safetensors_file(tensors), CONFIG: config_text(config)}


def _require_frozen(model: nn.Module, layers: Layers) -> None:
    owners = {name.rpartition(".")[0] for name in kept_parameters(model)}
    trained = sorted({name for name, _ in layers} & owners)
    if trained:
        raise ValueRangeError(
            f"PEFT's format cannot hold the trained weight or bias of an adapted layer: {shown(trained[0])}; save "
            "lora_state_dict instead, or freeze it"
        )


def _config(model: nn.Module, layers: Layers) -> dict[str, Any]:
    layers = [(bare_name(name), layer) for name, layer in layers]
    common: dict[str, Any] = {
        "target_modules": as_targets(model, [name for name, _ in layers]),
        "modules_to_save": [bare_name(name) for name in _kept_modules(model)] or None,
        "fan_in_fan_out": all(layer.layer_kind == "conv1d" for _, layer in layers),
        "inference_mode": True,
    }
    return _method(layers).peft_config(model, layers, common)


def kept_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained and are no adapter's, by name; one that is tied by each of its names."""
    factors = {
        id(value)
        for _, layer in adapted(model)
        for adapter in layer.methods
        for value in layer.factors(adapter).values()
    }
    return {
        name: parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.requires_grad and id(parameter) not in factors
    }


def _kept_modules(model: nn.Module) -> list[str]:
    """The topmost modules all of whose parameters were kept trainable, and those that own a single kept one."""
    kept = set(kept_parameters(model))
    whole = [
        name
        for name, module in model.named_modules()
        if name
        and (own := [f"{name}.{p}" for p, _ in module.named_parameters(remove_duplicate=False)])
        and kept.issuperset(own)
    ]
    tops = [name for name in whole if not any(name.startswith(f"{other}.") for other in whole)]
    covered = {name for name in kept if any(name.startswith(f"{top}.") for top in tops)}
    return tops + sorted({name.rpartition(".")[0] for name in kept - covered} - {""})


def _kept_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Kept parameters, with the buffers of their modules."""
    tops, state = _kept_modules(model), model.state_dict()
    kept: dict[str, Tensor] = {name: parameter.detach() for name, parameter in kept_parameters(model).items()}
    frozen = {name for name, _ in model.named_parameters(remove_duplicate=False)} - set(kept)
    for name, value in state.items():
        if name not in frozen and any(name.startswith(f"{top}.") for top in tops):
            kept.setdefault(name, value)
    return kept


def _frozen_beside_kept(model: nn.Module) -> dict[str, Tensor]:
    """Frozen tensors of a layer of which one parameter was kept, such as a bias: PEFT's format has whole modules."""
    layers = {name: model.get_submodule(name) for name in _kept_modules(model)}
    return {
        f"{name}.{part}": value
        for name, layer in layers.items()
        if not any(layer.children())
        for part, value in layer.state_dict().items()
    }


def loralib_files(model: nn.Module, *, kept: bool = True) -> dict[str, bytes]:
    """Return ``adapter.pt``: factors under loralib's names, as ``torch.save(lora_state_dict(model))`` writes them.

    The format holds no scale: whoever reads it has to know ``alpha / r``.

    Parameters
    ----------
    model : adapted by a method that can be saved so
    kept : with the modules that were kept trainable

    Raises
    ------
    ValueRangeError : groups of a fused layer that are no equal blocks, a convolution that loralib has no layer for
    """
    factors = {
        f"{name}.{part}": value
        for name, layer in _active(model)
        for part, value in loralib_factors(layer, name).items()
    }
    state = {**lora_state_dict(model), **factors, **(_kept_tensors(model) if kept else {})}
    stream = io.BytesIO()
    torch.save({name: value.detach().cpu().clone() for name, value in state.items()}, stream)
    return {"adapter.pt": stream.getvalue()}


def full_files(model: nn.Module, folder: Path | None = None) -> dict[str, bytes]:
    """Return ``model.safetensors`` of a fine-tuned model under the names that its base has, and ``config.json``.

    Parameters
    ----------
    model : any module
    folder : of the base, for the configuration of a model that is not transformers'
    """
    # of weights that are tied the first name alone, as transformers writes them
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    state = model.state_dict(keep_vars=True)
    tensors = {name: value for name, value in state.items() if first.get(id(value), name) == name}
    files = {"model.safetensors": safetensors_file(tensors)}
    as_text = getattr(getattr(model, "config", None), "to_json_string", None)
    if as_text is not None:
        files["config.json"] = as_text().encode()
    elif folder is not None and (folder / "config.json").is_file():
        files["config.json"] = (folder / "config.json").read_bytes()
    return files
