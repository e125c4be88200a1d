"""At which step a checkpoint was saved: from its trainer's record, the metadata of its file, or its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from subspace import checkpoints
from subspace.errors import SubspaceError

__all__ = ["Step", "named_step", "step_of"]

Unit: TypeAlias = Literal["step", "epoch"]

_STATE, _RUN = "trainer_state.json", "run.json"
# 12 digits: what is longer is a hash or a date
_NAMES: tuple[tuple[Unit, re.Pattern[str]], ...] = (
    ("step", re.compile(r"(?:^|[^a-z])(?:global)?[-_]?steps?[-_=]?0*(\d{1,12})(?!\d)", re.I)),
    (
        "step",
        re.compile(r"(?:^|[^a-z])(?:checkpoint|ckpt|ck|iter(?:ation)?s?)[-_=]?0*(\d{1,12})(?!\d)", re.I),
    ),
    ("epoch", re.compile(r"(?:^|[^a-z])epochs?[-_=]?0*(\d{1,12})(?!\d)", re.I)),
    ("step", re.compile(r"^0*(\d{1,12})_adapters$")),  # MLX
    ("epoch", re.compile(r"-0*(\d{1,6})$(?<=-\d{6})")),  # kohya: name-000010 is of epoch 10
    ("step", re.compile(r"_0*(\d{1,9})$(?<=_\d{9})")),  # ai-toolkit: name_000000500
    ("step", re.compile(r"[-_]0*(\d{2,12})$")),
)
_ENDING = re.compile(r"\.(?:safetensors|bin|pt|pth|npz|npy|gguf|lora)$")


class Step(NamedTuple):
    """When a checkpoint was saved.

    Attributes
    ----------
    number : of the optimiser step, or of the epoch; None where nothing says it
    unit : "step" or "epoch"
    source : "trainer_state.json", "run.json", "metadata", "name", or "" where nothing says it
    family : the name with its number taken out, the same for the checkpoints of one run
    """

    number: int | None
    unit: Unit = "step"
    source: str = ""
    family: str = ""


def named_step(name: str) -> Step:
    """The step that the name of a file or folder says.

    Examples
    --------
    >>> named_step("checkpoint-500")
    Step(number=500, unit='step', source='name', family='checkpoint-*')
    >>> named_step("style-000010.safetensors")[:2], named_step("style-step00000500.safetensors")[:2]
    ((10, 'epoch'), (500, 'step'))
    >>> named_step("0000100_adapters.safetensors").number, named_step("adapter_model.safetensors").number
    (100, None)
    """
    stem = _stem(name)
    for unit, pattern in _NAMES:
        every = list(pattern.finditer(stem))
        if every:
            found = every[-1]
            family = f"{stem[: found.start(1)].rstrip('0')}*{stem[found.end(1) :]}"
            return Step(int(found[1]), unit, "name", family)
    return Step(None, family=stem)


def step_of(folder: Path, name: str, metadata: Mapping[str, str]) -> Step:
    """When a checkpoint was saved.

    Parameters
    ----------
    folder : that it is in
    name : of the file, or of the folder where that is the checkpoint
    metadata : of its safetensors file

    References
    ----------
    transformers, trainer_callback.py: ``TrainerState.global_step``. kohya-ss/sd-scripts, train_util.py:
    ``EPOCH_FILE_NAME``, ``STEP_FILE_NAME``, metadata ``ss_steps``. ostris/ai-toolkit: metadata ``training_info``.
    """
    said = named_step(name)
    for number, source in (
        (_in_json(folder / _STATE, "global_step"), _STATE),
        (_in_json(folder / _RUN, "step"), _RUN),
        (_in_metadata(metadata), "metadata"),
    ):
        if number is not None:
            return Step(number, "step", source, said.family)
    return said


def _stem(name: str) -> str:
    while (found := _ENDING.search(name)) is not None:
        name = name[: found.start()]
    return name


def _in_json(path: Path, key: str) -> int | None:
    if not path.is_file():
        return None
    try:
        return _whole(checkpoints.read_json(path).get(key))
    except SubspaceError:
        return None  # half-written, or of something else


def _in_metadata(metadata: Mapping[str, str]) -> int | None:
    for key in ("ss_steps", "global_step", "step"):
        if (number := _whole(metadata.get(key))) is not None:
            return number
    found = re.search(r'"step"\s*:\s*(\d{1,12})\b', metadata.get("training_info", ""))
    return int(found[1]) if found else None


def _whole(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\d{1,12}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
