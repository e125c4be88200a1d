"""Which file of a directory, or of a repository, holds the weights of an adapter or of a model.

One rule for local directories and for the hub, based on names alone: safetensors before torch files, and the file that
a library writes by default before any other.

References
----------
huggingface/transformers, modeling_utils.py, ``_get_resolved_checkpoint_files``: model.safetensors, its index of shards,
pytorch_model.bin, its index. huggingface/peft, utils/save_and_load.py: adapter_model.safetensors, then .bin.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

__all__ = [
    "ADAPTER_WEIGHTS",
    "CONFIG",
    "INDEX",
    "MODEL_WEIGHTS",
    "SUFFIXES",
    "adapter_files",
    "adapter_weights",
    "model_files",
    "model_weights",
    "unread_weights",
    "weights_files",
]

CONFIG = "adapter_config.json"
INDEX = ".index.json"
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".npz", ".npy", ".gguf", ".pth.lora")
ADAPTER_WEIGHTS = (
    "adapter_model.safetensors",
    "adapter_model.bin",
    "pytorch_lora_weights.safetensors",
    "pytorch_lora_weights.bin",
    "adapters.safetensors",
    "lit_model.pth.lora",
    "adapter.safetensors",
    "pytorch_adapter.bin",
)
MODEL_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# files of settings that may hold an adapter's scale
_SETTINGS = (CONFIG, "hyperparameters.yaml", "model_config.yaml")
# what trainers save in the same directory
_TRAINER_STATE = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")
# whole models, which are never taken as the one adapter of a repository
_WHOLE_MODEL = re.compile(r"(?:(?:diffusion_)?pytorch_model|model|consolidated|tf_model|flax_model).*")
_SHARD = re.compile(r"(?P<stem>[^/]*)-\d+-of-\d+(?P<suffix>\.safetensors|\.bin)")
_TOKENIZER = (".json", ".txt", ".model", ".spm", ".tiktoken", ".jinja")


def weights_files(names: Collection[str]) -> list[str]:
    """Names that are files of weights by their suffix, without the state that trainers save."""
    return sorted(n for n in names if n.lower().endswith(SUFFIXES) and not n.startswith(_TRAINER_STATE))


def adapter_weights(names: Collection[str]) -> str | None:
    """The weights of the one adapter among the names in a directory; None if there are none, or several.

    Examples
    --------
    >>> adapter_weights(["adapter_model.bin", "adapter_model.safetensors", "optimizer.pt"])
    'adapter_model.safetensors'
    """
    there = set(names)
    others = weights_files(names)
    known = next((name for name in (*ADAPTER_WEIGHTS, *MODEL_WEIGHTS) if name in there), None)
    return known or (others[0] if len(others) == 1 else None)


def unread_weights(names: Collection[str], read: str) -> list[str]:
    """Files of weights beside the one that was read, which may be another adapter; shards and whole models are not.

    Examples
    --------
    >>> unread_weights(["adapter_model.bin", "adapter_model.safetensors", "optimizer.pt"], "adapter_model.safetensors")
    ['adapter_model.bin']
    """
    others = [name for name in weights_files(names) if name != read and not _SHARD.fullmatch(name)]
    return others if _WHOLE_MODEL.fullmatch(read) else [n for n in others if not _WHOLE_MODEL.fullmatch(n)]


def model_weights(names: Collection[str], *, only_known: bool = False) -> str | None:
    """The weights of a model among the names in a directory, or the index of their shards; None if unclear.

    Parameters
    ----------
    only_known : consider only names that libraries write by default

    Examples
    --------
    >>> model_weights(["config.json", "pytorch_model.bin", "model.safetensors"])
    'model.safetensors'
    """
    there = set(names)
    known = next((name for name in MODEL_WEIGHTS if name in there), None)
    if known is None:
        known = next((n for n in sorted(there) if n.endswith((f".safetensors{INDEX}", f".bin{INDEX}"))), None)
    others = weights_files(names)
    return known or (others[0] if len(others) == 1 and not only_known else None)


def adapter_files(names: Sequence[str], inside: str = "") -> list[str]:
    """Files needed for the one adapter of a repository: none if it has none, all weights if there are several.

    Parameters
    ----------
    inside : a folder of the repository, or a file

    Examples
    --------
    >>> adapter_files(["adapter_config.json", "adapter_model.bin", "adapter_model.safetensors", "x.bin"])
    ['adapter_model.safetensors', 'adapter_config.json']
    """
    direct = _direct(names, inside)
    settings = [direct[each] for each in _SETTINGS if each in direct]
    # the configuration stands for its folder
    if inside in names and inside.rpartition("/")[2] != CONFIG:
        return [inside, *settings]
    known = [direct[each] for each in ADAPTER_WEIGHTS if each in direct][:1]
    others = [direct[each] for each in weights_files(direct) if not _WHOLE_MODEL.fullmatch(each)]
    weights = known or others
    return [*weights, *settings] if weights else []


def model_files(names: Sequence[str], inside: str = "", *, tokenizer: bool = False) -> list[str]:
    """Files of a repository that a model needs: its configuration, and weights of one kind with all their shards.

    Parameters
    ----------
    inside : a folder of the repository, or a file
    tokenizer : whether to include the files of the tokenizer

    Examples
    --------
    >>> model_files(["config.json", "model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"])
    ['model.safetensors', 'config.json']
    """
    direct = _direct(names, inside)
    config = [direct["config.json"]] if "config.json" in direct else []
    if inside in names:
        return [inside, *config]
    weights = model_weights(direct, only_known=True) or _index_less(direct)
    if weights is None:
        return config if tokenizer else []
    stem, suffix = weights.partition(".")[0], ".bin" if ".bin" in weights else ".safetensors"
    shards = [name for name in direct if _is_shard(name, stem, suffix)]
    whole = [weights] if weights in direct else []
    rest = [name for name in direct if _is_setting(name)] if tokenizer else []
    return list(
        dict.fromkeys([*(direct[name] for name in (*shards, *whole)), *config, *(direct[n] for n in rest)])
    )


def _index_less(direct: Collection[str]) -> str | None:
    """Name of the weights whose shards have no index: a cache may hold the shards alone."""
    shards = (match for match in map(_SHARD.fullmatch, sorted(direct)) if match is not None)
    return next((f"{shard['stem']}{shard['suffix']}" for shard in shards), None)


def _is_shard(name: str, stem: str, suffix: str) -> bool:
    match = _SHARD.fullmatch(name)
    return match is not None and (match["stem"], match["suffix"]) == (stem, suffix)


def _is_setting(name: str) -> bool:
    return name.endswith(_TOKENIZER) and not name.endswith(INDEX) and name != CONFIG


def _direct(names: Sequence[str], inside: str) -> dict[str, str]:
    """Files directly in a folder: name -> path in the repository."""
    folder = inside.rpartition("/")[0] if inside in names else inside
    prefix = f"{folder}/" if folder else ""
    inner = ((each.removeprefix(prefix), each) for each in names if each.startswith(prefix))
    return {short: each for short, each in inner if short and "/" not in short}
