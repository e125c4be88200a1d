"""What a run checks: that the base is the same, that there is such a device, and that results are finite."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from subspace.errors import InconclusiveError, SubspaceError, ValueRangeError
from subspace.text import listed, shown
from subspace.training.loop import ComputationError, DivergedError, Trainer
from subspace.training.module_patterns import bare_name
from subspace.training.recipe import Recipe

__all__ = [
    "device_of",
    "fingerprint",
    "naming_last_good",
    "never_reached",
    "not_computed",
    "require_begun_with",
    "require_finite",
    "undisturbed",
]

_SAMPLE = 512  # values of a parameter


def require_begun_with(record: Mapping[str, Any], model: nn.Module, given: str) -> None:
    """Refuse another base than the one that an older version began a run with; newer ones compare its files.

    Parameters
    ----------
    record : of the run
    model : as it was loaded
    given : the base, as the user named it

    Raises
    ------
    ValueRangeError : it is another one
    """
    began = record.get("computed", {}).get("base")
    if began is not None and "model_sha256" not in record["settings"] and began != fingerprint(model):
        raise ValueRangeError(
            f"The weights of {shown(given, longest=1000)} have changed since this run began; put the old ones back, or "
            "begin anew with `overwrite`"
        )


def fingerprint(model: nn.Module) -> str:
    """A hash of the names, the shapes and a sample of each parameter, in hexadecimal."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // _SAMPLE)].to("cpu", torch.float32)
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()


def never_reached(trainer: Trainer, targets: Sequence[str], tell: Callable[[str], None]) -> list[str]:
    """Return the adapted modules that no gradient reached, with a note: what is written of them is their start.

    Parameters
    ----------
    trainer : which is done
    targets : names of the adapted modules
    tell : called with the note
    """
    modules = {bare_name(name).rpartition(".")[0] for name in trainer.never_reached()}
    unreached = [name for name in targets if name in modules]
    if unreached:
        tell(
            f"{len(unreached)} of {len(targets)} targets had no gradient in any step and were not trained: "
            f"{listed(unreached)}"
        )
    return unreached


@contextmanager
def naming_last_good(last_good: Callable[[], str]) -> Iterator[None]:
    """Add to the error of a run that diverges where its last checkpoint is.

    Parameters
    ----------
    last_good : says so
    """
    try:
        yield
    except DivergedError as error:
        raise DivergedError(f"{error}; {last_good()}") from None


@contextmanager
def undisturbed(failure: Callable[[Exception], Exception]) -> Iterator[None]:
    """Put back the caller's random state and number of threads after the block.

    Parameters
    ----------
    failure : what is raised in the place of an error of torch or of the model's own code
    """
    threads = torch.get_num_threads()
    try:
        devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
        with torch.random.fork_rng(devices=devices):
            yield
    # of the model's own forward with a configuration that it does not expect, or of the device
    except (RuntimeError, LookupError, AttributeError, TypeError, ValueError, ArithmeticError) as error:
        if isinstance(error, SubspaceError):
            raise
        raise failure(error) from error
    finally:
        torch.set_num_threads(threads)


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
