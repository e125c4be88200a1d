"""Top-level settings of a trainer's YAML file, as text."""

from __future__ import annotations

import os

from subspace.errors import FileError, FormatError
from subspace.text import shown

__all__ = ["yaml_settings"]

_LARGEST = 64_000  # bytes; a file of settings has a few thousand


def yaml_settings(path: str | os.PathLike[str]) -> dict[str, str]:
    """Name -> value of the settings that are plain values; empty if there is no such file.

    Raises
    ------
    FileError : it is not a regular file, cannot be read, or is larger than 64 kB
    FormatError : it is not valid YAML
    """
    from subspace.checkpoints.held_file import HeldFile

    if not os.path.exists(path):  # noqa: PTH110 - every command would wait for pathlib
        return {}
    content = HeldFile(path).read(0, _LARGEST + 1)
    where = shown(os.fspath(path), longest=1000)
    if len(content) > _LARGEST:
        raise FileError(
            f"The file of settings is too large: more than 64 kB, in {where}; remove it if no trainer wrote it"
        )
    return yaml_values(content.decode("utf-8", "replace"), where)


def yaml_values(text: str, where: str) -> dict[str, str]:
    r"""Name -> value of the settings of a text.

    Notes
    -----
    PyYAML's ``BaseLoader`` makes text, lists and dicts and nothing else. It runs no code, as ``safe_load`` does not,
    and reads files in which a trainer has left a tag such as ``!!python/tuple``, which ``safe_load`` refuses.

    Raises
    ------
    FormatError : it is not valid YAML

    Examples
    --------
    >>> yaml_values("lora_r: 8\ntrain:\n  epochs: 2\nname: 'a'  # first\n", "a.yaml")
    {'lora_r': '8', 'name': 'a'}
    """
    import yaml

    try:
        values = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        line = shown(str(error).replace("\n", " "), longest=200)
        raise FormatError(f"Not a valid YAML file: {line}, in {where}; correct it or remove it") from None
    if not isinstance(values, dict):
        return {}
    return {str(name): value for name, value in values.items() if isinstance(value, str)}
