"""Checksums of the files of a checkpoint, which ``sha256sum -c SHA256SUMS`` verifies as well."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from subspace.errors import FileError
from subspace.training.content import file_sha256

__all__ = ["SUMS", "DamageError", "require_undamaged", "sums_of"]

SUMS = "SHA256SUMS"


class DamageError(Exception):
    """A file of a checkpoint is not as it was written; the message says which, in words."""


def sums_of(files: Mapping[str, bytes]) -> bytes:
    r"""Return the content of `SUMS` for files by name.

    Examples
    --------
    >>> sums_of({"empty": b""})
    b'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  empty\n'
    """
    lines = (f"{sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    return "".join(lines).encode()


def require_undamaged(folder: Path, known: tuple[str, ...]) -> None:
    """Refuse a checkpoint of which a file is not as it was written; one without checksums is not looked at.

    Parameters
    ----------
    folder : the checkpoint
    known : names of the files that are written with checksums, those of them that a checkpoint has

    Raises
    ------
    DamageError : the first file that is damaged
    """
    sums = _read(folder / SUMS)
    if sums is None:
        return
    for name in sorted({*sums, *(name for name in known if (folder / name).exists())}):
        if name not in sums or name not in known:
            raise DamageError(f"{SUMS} is not what was written")
        try:
            found = file_sha256(folder / name)
        except FileError as error:
            raise DamageError(str(error)) from error
        if found != sums[name]:
            raise DamageError(f"{name} is not what was written")


def _read(path: Path) -> dict[str, str] | None:
    """Digest by name; None where there is no such file, in a checkpoint of an older version."""
    try:
        lines = path.read_bytes().decode("ascii").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DamageError(f"{SUMS} cannot be read") from error
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
