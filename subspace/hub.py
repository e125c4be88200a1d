"""``hf://org/name[@revision][:inside]`` on the Hugging Face hub as a path in the local cache; needs the extra ``hub``.

Only what the user names is downloaded, and only the files that are needed. Without ``hf://`` a name is asked for if it
can only be that of a repository: a path that exists is never looked up, nor is one whose folder exists, which is a path
with a typing error. With ``HF_HUB_OFFLINE`` set nothing is asked, and the cache alone is read. The base model that an
adapter's configuration names is never looked up.
"""

# ruff: noqa: PTH110, PTH118 - a command that reads one adapter need not wait for pathlib

from __future__ import annotations

import os
import re
from collections.abc import Callable
from glob import escape
from typing import Any, NamedTuple, TypeAlias

from subspace.checkpoints.weights_files import SUFFIXES
from subspace.errors import FileError
from subspace.text import shown

__all__ = ["SCHEME", "Choose", "HubName", "local", "parsed"]


def __dir__() -> list[str]:
    return sorted(__all__)


Choose: TypeAlias = Callable[[list[str], str, str], list[str]]

SCHEME = "hf://"
_NAME = re.compile(
    r"(?P<repo>[A-Za-z0-9][A-Za-z0-9_.-]*(?P<owned>/[A-Za-z0-9][A-Za-z0-9_.-]*)?)"
    r"(?:@(?P<revision>[^:@]+))?(?::(?P<inside>[^:]+))?"
)
_NO_NAME = re.compile(r"--|\.\.|[-.](/|$)|\.git$|.{97}")  # what the hub's own rules refuse
_YES = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads the variable
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
    name = _named(path)
    if name is None or (owner and "/" not in name.repo):
        return None
    # a typing error in a local path must not be sent to a server
    if os.path.lexists(path.partition("/")[0]) or name.repo.lower().endswith(_FILES):
        return None
    return name


def _named(text: str) -> HubName | None:
    """What a text names on the hub, wherever it may be."""
    match = _NAME.fullmatch(text)
    if match is None or ".." in (match["inside"] or "").split("/") or _NO_NAME.search(match["repo"]):
        return None
    return HubName(match["repo"], match["revision"], (match["inside"] or "").strip("/"))


def local(path: str, choose: Choose, *, owner: bool = True) -> str:
    """The path itself if it exists or cannot name a repository, else the path of the copy in the hub's cache.

    With ``hf://`` it is never a path. A name without it is announced to the log of this module, which Python prints on
    standard error, before the hub is asked.

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
    asked = path.startswith(SCHEME)
    if not asked and os.path.lexists(path):
        return path
    name = _named(path.removeprefix(SCHEME)) if asked else parsed(path, owner=owner)
    if name is None:
        _refuse_almost_a_name(path)
        return path
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError:
        raise FileError(
            f"{_missing(path)}; to read it from the Hugging Face hub, run pip install 'lora-subspace[hub]'"
        ) from None
    offline = _offline()
    if not (asked or offline):
        _announce(name)
    snapshot = _cached(hub, name, path) if offline else _snapshot(hub, errors, name, path, choose)
    found = os.path.join(snapshot, *name.inside.split("/"))
    if not os.path.exists(found):
        raise FileError(f"No such file or folder in the repository {shown(name.repo)}: {shown(name.inside)}")
    return found


def _refuse_almost_a_name(path: str) -> None:
    """Raise `FileError` for nothing, an address, and a name on the hub that lacks its owner."""
    if not path:
        raise FileError("The path is empty; give the path of a file or a directory")
    if path.startswith(SCHEME):
        raise FileError(
            f"Not the name of a repository of the Hugging Face hub: {shown(path)}; give hf://org/name, "
            "hf://org/name@revision or hf://org/name:folder"
        )
    if "://" in path:
        raise FileError(
            f"Cannot read from an address: {shown(path)}; give a path, or a repository of the Hugging Face hub as "
            "hf://org/name"
        )
    name = _named(path)
    if name is None or name.repo.lower().endswith(_FILES):
        return
    if "/" in name.repo:
        raise FileError(
            f"No such file or directory: {shown(path)}; {shown(path.partition('/')[0])} is here, so that the Hugging "
            f"Face hub was not asked: check the path, or give {SCHEME}{shown(path)}"
        )
    if not path.lower().endswith(_FILES):
        raise FileError(
            f"No such file or directory: {shown(path)}; check the path, or give a model of the Hugging Face hub by its "
            "full name with the owner, such as openai-community/gpt2"
        )


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES


def _announce(name: HubName) -> None:
    import logging

    logging.getLogger(__name__).warning(
        "No such path here; asking the Hugging Face hub for %s", shown(name.repo)
    )


def _missing(path: str) -> str:
    """What was tried before the hub."""
    if path.startswith(SCHEME):
        return f"Cannot read {shown(path)}"
    return f"No such file or directory: {shown(path)}"


def _snapshot(hub: Any, errors: Any, name: HubName, path: str, choose: Choose) -> str:
    """Folder of the repository in the cache, once the files that are needed are there."""
    try:
        # without a connection list_repo_files tries five times and prints a warning each time
        state = hub.HfApi().model_info(name.repo, revision=name.revision, timeout=_TIMEOUT)
        wanted = choose(
            [each.rfilename for each in state.siblings or ()], name.inside, path.removeprefix(SCHEME)
        )
        patterns = [escape(each) for each in wanted]
        return str(hub.snapshot_download(name.repo, revision=name.revision, allow_patterns=patterns))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        tried = "repository" if path.startswith(SCHEME) else "file or directory, and no such repository"
        raise FileError(
            f"No such {tried} on the Hugging Face hub: {shown(path)}; check the name, or log in with hf auth login if "
            "the repository is private or gated"
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
        why = "which was not asked: HF_HUB_OFFLINE is set" if _offline() else "which cannot be reached"
        raise FileError(
            f"{_missing(path)}, and no such repository in the cache of the Hugging Face hub, {why}; check the path, or "
            "connect and try again"
        ) from error
