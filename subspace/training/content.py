"""What a model and examples are, whatever path they are found under: digests of their content.

A run goes on where the content is the same: under a moved directory, a link, or another spelling of the path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from subspace.checkpoints.regular_file import open_regular, unreadable
from subspace.checkpoints.weights_files import model_files

if TYPE_CHECKING:
    from subspace.training.data import Examples

__all__ = ["content_of", "examples_sha256", "file_sha256", "model_sha256"]

_EMBEDDED = Path(__file__).parent / "embedded" / "base"
_CHUNK = 2**20
# in the directory of a model, but nothing of the model: neither weights nor tokenizer
_NO_PART = ("README", "LICENSE", "NOTICE", "requirements", "generation_config", "trainer_state", "training_")
_NO_CONTENT = ("path", "notes", "sha256", "altered")


def content_of(model: str, examples: Examples) -> dict[str, str]:
    """Return the entries of a record that say what a run or a study is of: its model and its data by their content.

    Parameters
    ----------
    model : as `load_base` takes it
    examples : that are trained on

    Raises
    ------
    FileError : there is no such model, or a file of it cannot be read
    """
    return {
        "model_sha256": model_sha256(model),
        "data_sha256": examples.sha256,
        "examples_sha256": examples_sha256(examples),
    }


def model_sha256(given: str) -> str:
    """Return the SHA-256, in hexadecimal, of the names and the content of the files that a base is loaded from.

    A new head is no part of it: it starts from the seed of the run.

    Parameters
    ----------
    given : as `load_base` takes it

    Raises
    ------
    FileError : there is no such model, or a file of it cannot be read
    """
    from subspace.training.models.model_directory import directory_of

    folder = _EMBEDDED if given == "embedded" else directory_of(given)
    names = model_files([entry.name for entry in folder.iterdir() if entry.is_file()], tokenizer=True)
    digest = sha256()
    for name in sorted(name for name in names if not name.startswith(_NO_PART)):
        digest.update(f"{file_sha256(folder / name)}  {name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file in hexadecimal.

    Raises
    ------
    FileError : it cannot be read
    """
    digest = sha256()
    with open_regular(path) as file:
        try:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        except OSError as error:
            raise unreadable(path, error) from error
    return digest.hexdigest()


def examples_sha256(examples: Examples) -> str:
    """Return the SHA-256 of what is learned from examples, in hexadecimal: texts and classes, in their order.

    The format and the name of the file they were read from are no part of it.
    """
    digest = sha256()
    for each in fields(examples):
        value = getattr(examples, each.name)
        # what is added to `Examples` later changes no digest of examples that do without it
        if each.name not in _NO_CONTENT and value != each.default:
            digest.update(f"{each.name}:".encode())
            _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    """Add a value, a text with its length, so that no two values are the same bytes."""
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(raw))
        digest.update(raw)
    elif isinstance(value, Sequence):
        digest.update(b"%d[" % len(value))
        for each in value:
            _feed(digest, each)
    elif is_dataclass(value):  # examples that are held out
        digest.update(examples_sha256(cast("Examples", value)).encode())
    else:
        digest.update(f"{value!r};".encode())
