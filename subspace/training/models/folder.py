"""Where a base lies: a directory, or a copy of a model of the Hugging Face hub in its cache."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import Any

from subspace.errors import FileError, shown

__all__ = ["directory_of", "files_of_base", "weights_in"]

_NAME = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)(?:@(?P<revision>[^:@]+))?")
_FILES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json", ".npz", ".ckpt")
_WEIGHTS = (
    re.compile(r"model\.safetensors"),
    re.compile(r"[^/]*\.safetensors\.index\.json"),
    re.compile(r"pytorch_model\.bin"),
    re.compile(r"pytorch_model\.bin\.index\.json"),
)
_SHARD = re.compile(r"(?P<stem>[^/]*)-\d+-of-\d+(?P<suffix>\.safetensors|\.bin)")
_BESIDE = (".json", ".txt", ".model", ".spm", ".tiktoken")  # configuration and tokenizer
_PATIENCE = 10.0  # seconds for the list of files


def directory_of(given: str) -> Path:
    """Directory of a base that has a configuration and weights; fetched where `given` is a name on the hub.

    Raises
    ------
    FileError : there is none, it is a file, or something is missing from it; the hub cannot be reached
    """
    if not os.path.lexists(given) and (match := _on_hub(given)):
        folder = _fetched(given, match["repo"], match["revision"])
    else:
        folder = Path(given)
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise FileError(
            "a base must be 'embedded', a directory with config.json and weights, or a model of the Hugging Face hub: "
            f"got {shown(given)}, {shown(error.strerror or error).lower()}; check the path"
        ) from error
    _require_model(names, given)
    return folder


def _on_hub(given: str) -> re.Match[str] | None:
    match = _NAME.fullmatch(given)
    # a slip in a local path is not a question to a server
    if match is None or Path(given.partition("/")[0]).is_dir() or match["repo"].lower().endswith(_FILES):
        return None
    return match


def _require_model(names: Sequence[str], given: str) -> None:
    there = shown(", ".join(names[:8])) + (", ..." if len(names) > 8 else "") or "nothing"
    missing = [] if "config.json" in names else ["config.json"]
    if weights_in(names) is None:
        missing.append("weights (model.safetensors, pytorch_model.bin, or an index of shards)")
    if missing:
        cure = "save the model with save_pretrained"
        if "adapter_config.json" in names:
            cure = "this is an adapter: name the base that it was trained on"
        raise FileError(
            f"a base must have config.json and weights: got no {' and no '.join(missing)}, in {shown(given)}, which "
            f"has {there}; {cure}"
        )


def weights_in(names: Sequence[str]) -> str | None:
    """The file of the weights, or their index, among the names of a directory: safetensors first.

    Examples
    --------
    >>> weights_in(["config.json", "pytorch_model.bin", "model.safetensors"])
    'model.safetensors'
    """
    hits = (sorted(filter(pattern.fullmatch, names)) for pattern in _WEIGHTS)
    return next((found[0] for found in hits if found), None)


def files_of_base(names: Sequence[str]) -> list[str]:
    """The files of a repository that a base needs: configuration, tokenizer, and weights of one kind.

    Examples
    --------
    >>> files_of_base(["a/x.json", "config.json", "model.safetensors", "pytorch_model.bin", "run.py", "vocab.txt"])
    ['config.json', 'model.safetensors', 'vocab.txt']
    """
    weights = weights_in(names)
    stem = (weights or "").partition(".")[0]
    suffix = ".bin" if ".bin" in (weights or "") else ".safetensors"
    wanted = []
    for name in names:
        shard = _SHARD.fullmatch(name)
        is_shard = shard is not None and (shard["stem"], shard["suffix"]) == (stem, suffix)
        beside = "/" not in name and name.endswith(_BESIDE) and not name.endswith(".index.json")
        if name == weights or is_shard or (beside and name != "adapter_config.json"):
            wanted.append(name)
    return wanted


def _fetched(given: str, repo: str, revision: str | None) -> Path:
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError:
        raise FileError(
            f"a path must exist: got {shown(given)}; if it is a model of the Hugging Face hub, install what reads it "
            "with pip install 'lora-subspace[hf]'"
        ) from None
    try:
        state = hub.HfApi().model_info(repo, revision=revision, timeout=_PATIENCE)
        wanted = files_of_base([each.rfilename for each in state.siblings or ()])
        patterns = [escape(each) for each in wanted] or ["config.json"]
        return Path(hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise FileError(
            "a base must be 'embedded', a directory or a model of the Hugging Face hub: got "
            f"{shown(given)}, which is none; a private or gated one needs `hf auth login`"
        ) from error
    # what huggingface_hub's client raises when there is no connection is a parent of its own error
    except (OSError, *errors.HfHubHTTPError.__bases__):
        return _cached(hub, given, repo, revision)


def _cached(hub: Any, given: str, repo: str, revision: str | None) -> Path:
    try:
        return Path(hub.snapshot_download(repo, revision=revision, local_files_only=True))
    except (OSError, ValueError) as error:
        raise FileError(
            "a base must be a directory, or in the cache where the Hugging Face hub cannot be reached (or "
            f"HF_HUB_OFFLINE is set): got {shown(given)}, which is neither; connect, or check the path"
        ) from error
