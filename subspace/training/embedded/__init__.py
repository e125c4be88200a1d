"""The embedded base: a small language model over bytes that is part of the package.

Importing this package imports no torch; `load` does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subspace.training.embedded.byte_llama import ByteLlama

__all__ = ["FOLDER", "HELD_OUT", "load"]

FOLDER = Path(__file__).parent / "base"
# the part of the text of its pre-training that it was not trained on
HELD_OUT = FOLDER / "held_out.txt"


def __dir__() -> list[str]:
    return __all__


def load() -> ByteLlama:
    """Return the embedded base in float32, in evaluation mode.

    Raises
    ------
    RuntimeError : the weights do not fit the model, which an installation that is whole never has

    Examples
    --------
    >>> from subspace.training import embedded
    >>> sum(weight.numel() for weight in embedded.load().parameters())
    3229952
    """
    from safetensors.torch import load_file

    from subspace.training.embedded.byte_llama import ByteLlama, Shape

    shape = Shape.read(json.loads((FOLDER / "config.json").read_text(encoding="utf-8")))
    model = ByteLlama(shape)
    model.load_state_dict(load_file(FOLDER / "model.safetensors"))
    model.eval()
    return model
