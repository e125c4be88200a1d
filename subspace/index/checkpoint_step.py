"""The step that a checkpoint was saved at, as trainers write it into the names of folders and files."""

from __future__ import annotations

import os
import re

__all__ = ["step_of"]

_STEP = re.compile(
    r"(?:^|[-_/])(?:checkpoint|ckpt|ck|step|iter)[-_]?(?P<step>\d+)(?=$|[-_./])|(?:^|/)(?P<bare>\d{4,})_adapters\."
)


def step_of(path: str) -> int | None:
    """The optimiser step that a checkpoint was saved at, by its path; None where it does not say.

    Examples
    --------
    >>> step_of("run/checkpoint-4000"), step_of("run/0000600_adapters.safetensors"), step_of("run/final")
    (4000, 600, None)
    """
    hits = list(_STEP.finditer(path.replace(os.sep, "/").rstrip("/")))
    # a number of more digits is no step, and none that SQLite could hold
    digits = (hits[-1]["step"] or hits[-1]["bare"]) if hits else ""
    return int(digits) if 0 < len(digits) < 16 else None
