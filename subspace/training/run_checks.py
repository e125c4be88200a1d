"""What a run checks: that the base is the same, that there is such a device, and that results are finite."""

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
    """Return a hash of the names, the shapes and a sample of each parameter, in hexadecimal."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // _SAMPLE)].to("cpu", torch.float32)
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()


def not_computed(error: Exception, recipe: Recipe, model: str, last_good: str) -> ComputationError:
    """Return the error for one that torch or the model's own code raised.

    Parameters
    ----------
    error : what was raised
    recipe, model : of the run
    last_good : where the last checkpoint is
    """
    message = shown(str(error).strip().partition("\n")[0], longest=300)
    cures = ["give `dtype` float32"] if recipe.dtype == "bfloat16" else []
    cures.append("lower `batch` or `length`" if "memory" in message else "choose another model or tokenizer")
    return ComputationError(
        f"The model {shown(model, longest=1000)} failed with {type(error).__name__}: {message}; "
        f"{', or '.join(cures)}; {last_good}"
    )


def require_finite(measures: Mapping[str, float], *, what: str, cure: str) -> None:
    """Refuse measures on held-out data that are not finite.

    Parameters
    ----------
    measures : by name, such as "loss"
    what : what has happened then, as the beginning of the message
    cure : what to do, as its end

    Raises
    ------
    DivergedError : one is not finite
    """
    if not all(map(math.isfinite, measures.values())):
        values = ", ".join(f"a {name.replace('_', ' ')} of {value:g}" for name, value in measures.items())
        raise DivergedError(f"{what}: {values} on held-out data; {cure}")


def device_of(name: str) -> torch.device:
    """Return the device called "auto", "cpu" or "cuda".

    Raises
    ------
    InconclusiveError : "cuda", and torch sees none
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InconclusiveError("No CUDA device is available: torch sees none; give `device` as cpu")
    return torch.device(name)
