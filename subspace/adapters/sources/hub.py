"""``org/name[@revision][:inside]`` of the Hugging Face hub as a path of the local cache; needs the extra ``hub``.

Only what the user names is fetched, and only the files that are needed. A path that exists is never looked for there,
nor is the base model that an adapter's configuration names.
"""

# ruff: noqa: PTH110, PTH112, PTH118 - a command that reads one adapter need not wait for pathlib

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from glob import escape
from typing import Any, NamedTuple

from subspace.adapters.sources.folders import ADAPTER_WEIGHTS, CONFIG, SUFFIXES
from subspace.errors import FileError, FormatError, UnrecognisedError, shown

__all__ = ["Name", "adapter_files", "base_files", "local", "parsed"]

_NAME = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[^:@]+))?(?::(?P<inside>[^:]+))?"
)
_BESIDE = (CONFIG, "hyperparameters.yaml", "model_config.yaml")
# names of whole models, which are not taken for the one adapter of a repository
_WHOLE = re.compile(r"(?:(?:diffusion_)?pytorch_model|model|consolidated|tf_model|flax_model).*")
_PATIENCE = 10.0  # seconds for the list of files
_STEMS = ("model", "diffusion_pytorch_model", "pytorch_model")


class Name(NamedTuple):
    """A repository of the hub, which state of it, and a folder or file in it ("" for its top)."""

    repo: str
    revision: str | None
    inside: str


def parsed(path: str) -> Name | None:
    """What a path that does not exist names on the hub; None where it can only be a path.

    Examples
    --------
    >>> parsed("org/name@v1:sub/folder")
    Name(repo='org/name', revision='v1', inside='sub/folder')
    >>> parsed("runs/a_r8.pt") is None, parsed("./org/name") is None
    (True, True)
    """
    match = _NAME.fullmatch(path)
    if match is None or ".." in (match["inside"] or "").split("/"):
        return None
    # a slip in a local path is not a question to a server
    if os.path.isdir(path.partition("/")[0]) or match["repo"].lower().endswith(SUFFIXES):
        return None
    return Name(match["repo"], match["revision"], (match["inside"] or "").strip("/"))


def local(path: str, *, base: bool = False) -> str:
    """A path as it is if it exists or can only be one, else that of the copy in the hub's cache.

    Parameters
    ----------
    base : whether base weights are wanted, rather than an adapter

    Raises
    ------
    FileError : it is not on the hub, the hub cannot be reached, or huggingface_hub is not installed
    UnrecognisedError : the repository has no such files
    """
    name = None if os.path.lexists(path) else parsed(path)
    if name is None:
        return path
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError:
        raise FileError(
            f"a path must exist: got {shown(path)}; if it is a repository of the Hugging Face hub, install what "
            "reads it with pip install 'lora-subspace[hub]'"
        ) from None
    found = os.path.join(_snapshot(hub, errors, name, path, base=base), *name.inside.split("/"))
    if not os.path.exists(found):
        raise FileError(
            f"a repository must hold what is asked for: got no {shown(name.inside)}, in {shown(path)}"
        )
    return found


def _snapshot(hub: Any, errors: Any, name: Name, path: str, *, base: bool) -> str:
    """Folder of the repository in the cache, with the files that are needed."""
    try:
        # list_repo_files would try five times, and say so each time, where there is no connection
        state = hub.HfApi().model_info(name.repo, revision=name.revision, timeout=_PATIENCE)
        names = [each.rfilename for each in state.siblings or ()]
        wanted = base_files(names, name.inside) if base else adapter_files(names, name.inside, path)
        if not wanted:
            raise UnrecognisedError(
                f"a repository must hold {'base weights' if base else 'an adapter'}: got "
                f"{shown(', '.join(names[:8])) or 'no files'}, in {shown(path)}; name a folder or file: "
                f"{shown(name.repo)}:NAME"
            )
        patterns = [escape(each) for each in wanted]
        return str(hub.snapshot_download(name.repo, revision=name.revision, allow_patterns=patterns))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise FileError(
            f"a path or a repository of the Hugging Face hub must exist: got {shown(path)}, which is neither; a "
            "private or gated one needs `hf auth login`"
        ) from error
    # what huggingface_hub's client raises when there is no connection is a parent of its own error
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:
        if isinstance(error, FileError):
            raise
        return _cached(hub, name, path)


def _cached(hub: Any, name: Name, path: str) -> str:
    try:
        return str(hub.snapshot_download(name.repo, revision=name.revision, local_files_only=True))
    except (OSError, ValueError) as error:
        raise FileError(
            f"a repository must be in the cache where the Hugging Face hub cannot be reached (or HF_HUB_OFFLINE is "
            f"set): got {shown(path)}, which is neither there nor a path; connect, or check the path"
        ) from error


def adapter_files(names: Sequence[str], inside: str, path: str) -> list[str]:
    """The files of the one adapter in a folder of a repository, none if there is no adapter.

    Raises
    ------
    FormatError : there are several

    Examples
    --------
    >>> adapter_files(["adapter_config.json", "adapter_model.bin", "adapter_model.safetensors", "x.bin"], "", "o/n")
    ['adapter_model.safetensors', 'adapter_config.json']
    """
    folder = inside.rpartition("/")[0] if inside in names else inside
    direct = _direct(names, folder)
    beside = [direct[each] for each in _BESIDE if each in direct]
    if inside in names:
        return [inside, *beside]
    known = [direct[each] for each in ADAPTER_WEIGHTS if each in direct]
    others = [
        direct[each] for each in direct if each.lower().endswith(SUFFIXES) and not _WHOLE.fullmatch(each)
    ]
    if not known and len(others) > 1:
        listed = ", ".join(shown(each) for each in others[:8])
        raise FormatError(
            f"one adapter must be chosen: got {len(others)} files ({listed}), in {shown(path)}; "
            "name one behind a colon: org/name:FILE"
        )
    chosen = (known or others)[:1]
    return [*chosen, *beside] if chosen else []


def base_files(names: Sequence[str], inside: str) -> list[str]:
    """The files of the base weights in a folder of a repository: configuration, and weights of one kind.

    Examples
    --------
    >>> base_files(["config.json", "model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"], "")
    ['model.safetensors', 'config.json']
    """
    folder = inside.rpartition("/")[0] if inside in names else inside
    direct = _direct(names, folder)
    config = [direct["config.json"]] if "config.json" in direct else []
    if inside in names:
        return [inside, *config]
    for suffix in ("safetensors", "bin"):
        for stem in _STEMS:
            kind = re.compile(rf"{stem}(?:-[0-9]+-of-[0-9]+)?\.{suffix}(?:\.index\.json)?")
            weights = [direct[each] for each in direct if kind.fullmatch(each)]
            if weights:
                return [*weights, *config]
    return []


def _direct(names: Sequence[str], folder: str) -> dict[str, str]:
    """Files of a folder, without those of its folders: name -> path in the repository."""
    prefix = f"{folder}/" if folder else ""
    inner = ((each.removeprefix(prefix), each) for each in names if each.startswith(prefix))
    return {short: each for short, each in inner if short and "/" not in short}
