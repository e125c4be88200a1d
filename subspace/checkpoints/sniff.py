"""Which container a file is, recognised by its first bytes and never by its name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from subspace.errors import FileError, UnsafeFileError
from subspace.text import counted, shown

if TYPE_CHECKING:
    from subspace.checkpoints.held_file import HeldFile

__all__ = ["container_of"]

# the pickled magic number 0x1950a86a20f9469cfc6c with which torch.save began before its zip format
_TORCH_LEGACY = re.compile(rb"\x80[\x02\x03]\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.")
_READABLE = re.compile(rb"[\t\n\r -~]{9,1000}")  # a file of weights is longer and has other bytes
_PICKLE = re.compile(rb"\x80[\x02-\x05][^\0]|c[\w.]+\n[\w.]+\n|\(dp|\(lp")

_AGAIN = "download it again"
_CONVERT = "convert it to safetensors first"

# first bytes, what the file is, what to do
_OTHER_FILES = (
    (b"version https://git-lfs", "a git-lfs pointer, not the weights", "run git lfs pull"),
    (b"# xet version", "a xet pointer, not the weights", "download the file itself"),
    (b"\x1f\x8b", "gzip data", "unpack it first (gunzip)"),
    (b"BZh", "bzip2 data", "unpack it first"),
    (b"\xfd7zXZ", "xz data", "unpack it first"),
    (b"(\xb5/\xfd", "zstandard data", "unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"\x89PNG", "a PNG image", "give the weights instead"),
    (b"\xff\xd8\xff", "a JPEG image", "give the weights instead"),
    (b"GIF8", "a GIF image", "give the weights instead"),
    (b"%PDF", "a PDF document", "give the weights instead"),
    (b"\x7fELF", "a program", "give the weights instead"),
    (b"ggla", "a GGML LoRA", "give the safetensors file that it was converted from"),
    (b"\x89HDF", "an HDF5 file", _CONVERT),
)


def container_of(file: HeldFile) -> str:
    """One of "safetensors", "zip", "torch legacy", "npy", "gguf".

    Raises
    ------
    FileError
        If it is none of them; the error says what it is instead, and what to do.
    UnsafeFileError
        If it is a pickle that torch.save did not write.
    """
    size, name = file.size, file.path
    head = file.read(0, 4096)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"GGUF"):
        return "gguf"
    if _TORCH_LEGACY.match(head):
        return "torch legacy"
    if head[8:9] == b"{":
        return "safetensors"
    if _PICKLE.match(head):
        raise UnsafeFileError(
            f"The file {shown(name)} could run code when it is loaded: it is a pickle that torch.save did not write; "
            f"it was not opened; if you trust its source, {_CONVERT}"
        )
    if _begins_with_length(head) and not any(head.startswith(magic) for magic, _, _ in _OTHER_FILES):
        return "safetensors"
    fact, cure = _other_file(head, size)
    raise FileError(f"Not a safetensors, torch, NumPy or GGUF file: {shown(name)} is {fact}; {cure}")


def _begins_with_length(head: bytes) -> bool:
    """Whether the file may be a damaged safetensors file: it begins with a number below 2**40."""
    return len(head) >= 8 and any(head[:5]) and not any(head[5:8])


def _other_file(head: bytes, size: int) -> tuple[str, str]:
    for magic, fact, cure in _OTHER_FILES:
        if head.startswith(magic):
            return fact, cure
    if head[257:262] == b"ustar":
        return (
            "a tar archive (of files, or a torch file from 2016)",
            "give the weights inside, as safetensors",
        )
    if not size:
        return "an empty file", _AGAIN
    if not any(head):
        return f"a download that was never completed, {size} bytes that begin with zeros", _AGAIN
    return _text(head) or (
        f"of an unknown format and begins with {shown(head[:12])}",
        "check that it is the file with the weights",
    )


def _text(head: bytes) -> tuple[str, str] | None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        return "an HTML page, such as a login or error page saved under this name", _AGAIN
    if text.startswith((b"{", b"[")):
        return "JSON text, such as an error message or a configuration", "give the weights file"
    if len(head) < 9:
        return f"only {counted(len(head), 'byte')} long", _AGAIN
    if _READABLE.fullmatch(head):
        return f"text such as an error message, {shown(head[:60].decode().strip())}", _AGAIN
    return None
