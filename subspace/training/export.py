"""What was trained, laid out as the files that PEFT, loralib and transformers load."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training.adapted_layer import PARTS, AdaptedLayer
from subspace.training.embedded import FOLDER
from subspace.training.injection import adapted
from subspace.training.layer_shapes import group_rows, kind_of, sizes
from subspace.training.loralib_names import lora_state_dict
from subspace.training.methods import IA3, LoRA
from subspace.training.save_adapter import safetensors_file

__all__ = ["files_of", "full_files", "kept_parameters", "loralib_files", "peft_files"]

_TASKS = {"lm": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "classify": "SEQ_CLS"}
_PREFIX = "base_model.model."


def files_of(model: nn.Module, *, base: str, task: str, format: str, start: bool = False) -> dict[str, bytes]:
    """Return what a run writes of its model, as it is now.

    Parameters
    ----------
    format : "peft" or "loralib", of a LoRA adapter; IA3 is always PEFT's, a fine-tuned model is a model
    start : the factors alone, of a model before its first step; nothing for what has no start of its own
    """
    methods = [layer.methods[layer.active] for _, layer in adapted(model) if layer.active]
    if start and not any(isinstance(method, LoRA) for method in methods):
        return {}
    if not methods:
        return full_files(model, FOLDER if base == "embedded" else Path(base))
    if format == "loralib" and isinstance(methods[0], LoRA):
        return loralib_files(model, kept=not start)
    return peft_files(model, base=base, task=task, kept=not start)


def peft_files(model: nn.Module, *, base: str, task: str, kept: bool = True) -> dict[str, bytes]:
    """Return the files of a PEFT directory of the active adapter, and of the modules that were kept trainable.

    Parameters
    ----------
    base : ``base_model_name_or_path``
    task : "lm", "seq2seq" or "classify"
    kept : with the modules that were kept trainable

    Raises
    ------
    ValueRangeError : a weight or bias of an adapted layer is trained too

    References
    ----------
    peft/utils/save_and_load.py, ``get_peft_model_state_dict``; peft/tuners/lora/config.py.
    """
    layers = [(name, layer) for name, layer in adapted(model) if layer.active]
    tensors: dict[str, Tensor] = {}
    kept_too = sorted(
        {name for name, _ in layers} & {name.rpartition(".")[0] for name in kept_parameters(model)}
    )
    if kept_too:
        raise ValueRangeError(
            f"PEFT's files hold no trained bias or weight of an adapted layer: got {shown(kept_too[0])}; save "
            "lora_state_dict, or freeze it"
        )
    for name, layer in layers:
        held = {part: layer._parameters[part] for part in PARTS if part in layer._parameters}
        tensors |= {f"{_PREFIX}{name}.{key}": value for key, value in _peft_tensors(layer, held).items()}
    if kept:
        tensors |= {f"{_PREFIX}{name}": value for name, value in _kept_tensors(model).items()}
    config = _config(model, layers) | {"base_model_name_or_path": base, "task_type": _TASKS[task]}
    return {
        "adapter_model.safetensors": safetensors_file(tensors),
        "adapter_config.json": (json.dumps(config, indent=2) + "\n").encode(),
    }


def _peft_tensors(layer: AdaptedLayer, held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    method = layer.methods[layer.active or ""]
    if isinstance(method, IA3):
        return {"ia3_l": held["ia3_l"]}
    A, B = held["lora_A"].detach(), held["lora_B"].detach()
    if kind_of(layer) == "embedding":
        return {"lora_embedding_A": A, "lora_embedding_B": B}
    if method.groups and kind_of(layer) != "conv":
        B = _joined(layer, method, B)
    return {"lora_A.weight": A, "lora_B.weight": B}


def _joined(layer: AdaptedLayer, method: LoRA, B: Tensor) -> Tensor:
    """B (d_out, r * groups) of a fused layer as one update: each group's B in its rows and columns, zero elsewhere."""
    rows = group_rows(layer, method)
    joined = B.new_zeros(sizes(layer)[0], method.r * len(rows))
    blocks = B.split([stop - start for start, stop in rows])
    for k, (place, block) in enumerate(zip(rows, blocks, strict=True)):
        joined[slice(*place), k * method.r : (k + 1) * method.r] = block
    return joined


def _config(model: nn.Module, layers: Sequence[tuple[str, AdaptedLayer]]) -> dict[str, Any]:
    chosen = [name for name, _ in layers]
    first = layers[0][1]
    method = first.methods[first.active or ""]
    common: dict[str, Any] = {
        "target_modules": _as_suffixes(model, chosen),
        "modules_to_save": _kept_modules(model) or None,
        "fan_in_fan_out": all(kind_of(layer) == "conv1d" for _, layer in layers),
        "inference_mode": True,
    }
    if isinstance(method, IA3):
        inputs = _as_suffixes(model, [name for name, layer in layers if layer.is_feedforward()])
        if not set(inputs) <= set(common["target_modules"]):  # which PEFT asks for, of the words themselves
            inputs = [name for name, layer in layers if layer.is_feedforward()]
            common["target_modules"] = chosen
        return {"peft_type": "IA3", **common, "feedforward_modules": inputs, "init_ia3_weights": True}
    n = len(group_rows(first, method)) if method.groups else 1
    return {
        "peft_type": "LORA",
        "r": method.r * n,
        # the scale is that of one group: alpha / r, or alpha / sqrt(r)
        "lora_alpha": method.alpha * (math.sqrt(n) if method.rslora else n),
        "use_rslora": method.rslora,
        "lora_dropout": method.dropout,
        "init_lora_weights": "gaussian" if method.init == "gaussian" else True,
        "bias": "none",
        **common,
    }


def _as_suffixes(model: nn.Module, chosen: Sequence[str]) -> list[str]:
    """The last parts of the names where they name these modules and no others, else the names."""
    ends = sorted({name.rpartition(".")[2] for name in chosen})
    named = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in ends}
    return ends if named == set(chosen) else list(chosen)


def kept_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are trained and are no adapter's, by name; one that is tied by each of its names."""
    return {
        name: parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.requires_grad and name.rpartition(".")[2].partition("@")[0] not in PARTS
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


def loralib_files(model: nn.Module, *, kept: bool = True) -> dict[str, bytes]:
    """Return ``adapter.pt``: factors under loralib's names, as ``torch.save(lora_state_dict(model))`` writes them.

    The format holds no scale: a reader has to be told ``alpha / r``.
    """
    state = {**lora_state_dict(model), **(_kept_tensors(model) if kept else {})}
    stream = io.BytesIO()
    torch.save({name: value.detach().cpu().clone() for name, value in state.items()}, stream)
    return {"adapter.pt": stream.getvalue()}


def full_files(model: nn.Module, folder: Path) -> dict[str, bytes]:
    """Return ``model.safetensors`` of a fine-tuned model under the names that its base has, and ``config.json``.

    Parameters
    ----------
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
    elif (folder / "config.json").is_file():
        files["config.json"] = (folder / "config.json").read_bytes()
    return files
