"""``org/name[@revision][:inside]`` on the Hugging Face hub as a path in the local cache; needs the extra ``hub``.

Only what the user names is downloaded, and only the files that are needed. A path that exists is never looked up on the
hub, nor is the base model that an adapter's configuration names.
"""

# ruff: noqa: PTH110, PTH112, PTH118 - a command that reads one adapter need not wait for pathlib

from __future__ import annotations

import os
import re
from collections.abc import Callable
from glob import escape
from typing import Any, NamedTuple, TypeAlias

from subspace.checkpoints.weights_files import SUFFIXES
from subspace.errors import FileError
from subspace.text import shown

__all__ = ["Choose", "HubName", "local", "parsed"]


def __dir__() -> list[str]:
    return sorted(__all__)


Choose: TypeAlias = Callable[[list[str], str, str], list[str]]

_NAME = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*(?P<owned>/[A-Za-z0-9][\w.-]*)?)(?:@(?P<revision>[^:@]+))?(?::(?P<inside>[^:]+))?"
)
_FILES = (*SUFFIXES, ".json", ".ckpt")
_TIMEOUT = 10.0  # seconds for the list of files


class HubName(NamedTuple):
    """A repository on the hub, its revision, and a folder or file in it ("" for the top folder)."""

    repo: str
    revision: str | None
    inside: str


def parsed(path: str, *, owner: bool = True) -> HubName | None:
    """What a path that does not exist may name on the hub; None where it can only be a local path.

    Parameters
    ----------
    owner : whether a name on the hub must have an owner, so that ``gpt2`` can only be a path

    Examples
    --------
    >>> parsed("org/name@v1:sub/folder")
    HubName(repo='org/name', revision='v1', inside='sub/folder')
    >>> parsed("runs/a_r8.pt") is None, parsed("./org/name") is None, parsed("gpt2") is None
    (True, True, True)
    """
    match = _NAME.fullmatch(path)
    if match is None or ".." in (match["inside"] or "").split("/") or (owner and not match["owned"]):
        return None
    # a typing error in a local path must not be sent to a server
    if os.path.isdir(path.partition("/")[0]) or match["repo"].lower().endswith(_FILES):
        return None
    return HubName(match["repo"], match["revision"], (match["inside"] or "").strip("/"))


def local(path: str, choose: Choose, *, owner: bool = True) -> str:
    """The path itself if it exists or cannot name a repository, else the path of the copy in the hub's cache.

    Parameters
    ----------
    choose : (all files of the repository, what follows the colon, `path`) -> the files that are needed; raises
        if they are missing
    owner : whether a name on the hub must have an owner, so that ``gpt2`` can only be a path

    Raises
    ------
    FileError : no such repository or file, the hub cannot be reached, or huggingface_hub is not installed
    SubspaceError : whatever `choose` raises
    """
    if os.path.lexists(path):
        return path
    name = parsed(path, owner=owner)
    if name is None:
        _refuse_almost_a_name(path)
        return path
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError:
        raise FileError(
            f"No such file or directory: {shown(path)}; to read it from the Hugging Face hub, run "
            "pip install 'lora-subspace[hub]'"
        ) from None
    found = os.path.join(_snapshot(hub, errors, name, path, choose), *name.inside.split("/"))
    if not os.path.exists(found):
        raise FileError(f"No such file or folder in the repository {shown(name.repo)}: {shown(name.inside)}")
    return found


def _refuse_almost_a_name(path: str) -> None:
    """Raise `FileError` for nothing, an address, and a name on the hub that lacks its owner."""
    if not path:
        raise FileError("The path is empty; give the path of a file or a directory")
    if "://" in path:
        raise FileError(
            f"Cannot read from an address: {shown(path)}; give a path, or a repository of the Hugging Face hub as "
            "org/name"
        )
    match = _NAME.fullmatch(path)
    if match is not None and not match["owned"] and not path.lower().endswith(_FILES):
        raise FileError(
            f"No such file or directory: {shown(path)}; check the path, or give a model of the Hugging Face hub by its "
            "full name with the owner, such as openai-community/gpt2"
        )


def _snapshot(hub: Any, errors: Any, name: HubName, path: str, choose: Choose) -> str:
    """Folder of the repository in the cache, once the files that are needed are there."""
    try:
        # without a connection list_repo_files tries five times and prints a warning each time
        state = hub.HfApi().model_info(name.repo, revision=name.revision, timeout=_TIMEOUT)
        wanted = choose([each.rfilename for each in state.siblings or ()], name.inside, path)
        patterns = [escape(each) for each in wanted]
        return str(hub.snapshot_download(name.repo, revision=name.revision, allow_patterns=patterns))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise FileError(
            f"No such file or directory, and no such repository on the Hugging Face hub: {shown(path)}; check the "
            "name, or log in with hf auth login if the repository is private or gated"
        ) from error
    # without a connection the client of huggingface_hub raises a parent of its own error class
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:
        if isinstance(error, FileError):
            raise
        return _cached(hub, name, path)


def _cached(hub: Any, name: HubName, path: str) -> str:
    try:
        return str(hub.snapshot_download(name.repo, revision=name.revision, local_files_only=True))
    except (OSError, ValueError) as error:
        raise FileError(
            f"No such file or directory: {shown(path)}, and no such repository in the cache of the Hugging Face hub, "
            "which cannot be reached (or HF_HUB_OFFLINE is set); check the path, or connect and try again"
        ) from error
