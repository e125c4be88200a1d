"""Where a base is: a directory, or the cached copy of a model of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from subspace import hub
from subspace.checkpoints.weights_files import CONFIG, model_files, model_weights
from subspace.errors import FileError
from subspace.text import listed, shown

__all__ = ["directory_of"]


def directory_of(given: str) -> Path:
    """Return the directory of a base with a configuration and weights; fetched where `given` is a name on the hub.

    Raises
    ------
    FileError : there is none, it is a file, or something is missing from it; the hub cannot be reached
    """
    folder = Path(hub.local(given, _chosen, owner=False))
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise FileError(
            f"Cannot read the model {shown(given)}: {shown(error.strerror or error)}; give 'embedded', a directory "
            "with config.json and weights, or a model of the Hugging Face hub"
        ) from error
    _require_model(names, given)
    return folder


def _chosen(names: list[str], inside: str, path: str) -> list[str]:
    """The files of a repository that a base needs: configuration, tokenizer, and weights of one kind."""
    return model_files(names, inside, tokenizer=True) or ["config.json"]


def _require_model(names: Sequence[str], given: str) -> None:
    missing = [] if "config.json" in names else ["config.json"]
    if model_weights(names, only_known=True) is None:
        missing.append("weights (model.safetensors, pytorch_model.bin, or an index of shards)")
    if missing:
        cure = "save the model with save_pretrained"
        if CONFIG in names:
            cure = "this is an adapter: give the model that it was trained on"
        raise FileError(
            f"No {' and no '.join(missing)} in {shown(given)}, which holds {listed(names, most=8)}; {cure}"
        )
