"""The top-level ``name: value`` lines of a YAML file, as text: all that is needed of a trainer's settings."""

from __future__ import annotations

import os
import re

__all__ = ["flat_yaml"]

_LONGEST = 1_000_000
_LINE = re.compile(r"([A-Za-z_]\w*):[ \t]+([^#\s][^#\n]*?)[ \t]*(?:#.*)?")


def flat_yaml(path: str | os.PathLike[str]) -> dict[str, str]:
    """Names and values of the lines that are not indented; empty if there is no such file.

    Raises
    ------
    FileError : it is no regular file, or cannot be read
    """
    from subspace.checkpoints.regular_file import open_regular

    if not os.path.exists(path):  # noqa: PTH110 - every command would wait for pathlib
        return {}
    with open_regular(path) as file:
        text = file.read(_LONGEST).decode("utf-8", "replace")
    return flat_values(text)


def flat_values(text: str) -> dict[str, str]:
    r"""Names and values of the lines of a text.

    Examples
    --------
    >>> flat_values("lora_r: 8\ntrain:\n  epochs: 2\nname: 'a'  # first\n")
    {'lora_r': '8', 'name': 'a'}
    """
    lines = (_LINE.fullmatch(line) for line in text.splitlines())
    return {match[1]: match[2].strip("'\"") for match in lines if match is not None}
