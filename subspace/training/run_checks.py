"""What a run checks on its way: the base's weights, the device, and that what comes out is finite."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import nn

from subspace.errors import InconclusiveError
from subspace.text import shown
from subspace.training.loop import ComputationError, DivergedError
from subspace.training.recipe import Recipe

__all__ = ["device_of", "fingerprint", "not_computed", "require_finite"]

_SAMPLE = 512  # values of a parameter


def fingerprint(model: nn.Module) -> str:
    """A number that other weights do not have, of names, shapes and a sample of each parameter, in hexadecimal."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // _SAMPLE)].to("cpu", torch.float32)
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()


def not_computed(error: Exception, recipe: Recipe, model: str, last_good: str) -> ComputationError:
    """What to say of an error that torch or the model's own code raised."""
    told = shown(str(error).strip().partition("\n")[0], longest=300)
    cures = ["use --dtype float32"] if recipe.dtype == "bfloat16" else []
    cures.append("a smaller --batch or --length" if "memory" in told else "another model or tokenizer")
    return ComputationError(
        f"a model must compute what it is given: got {type(error).__name__}: {told}, of "
        f"{shown(model, longest=1000)}; {', or '.join(cures)}; {last_good}"
    )


def require_finite(measures: Mapping[str, float], *, must: str, where: str, cure: str) -> None:
    """Refuse measures on what was held out that are not finite.

    Raises
    ------
    DivergedError : one is not; `must` says what was expected, `where` of what or when, `cure` what to do
    """
    if not all(map(math.isfinite, measures.values())):
        raise DivergedError(f"{must}: got {_told(measures)} on what was held out{where}; {cure}")


def _told(measures: Mapping[str, float]) -> str:
    return ", ".join(f"a {name.replace('_', ' ')} of {value:g}" for name, value in measures.items())


def device_of(name: str) -> torch.device:
    """The device of a name: "auto", "cpu" or "cuda".

    Raises
    ------
    InconclusiveError : there is none of that name
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InconclusiveError(
            "a device must be there: got cuda, of which torch sees none; use the device cpu"
        )
    return torch.device(name)
