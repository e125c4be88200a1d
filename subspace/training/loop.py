"""The training loop: AdamW over what is trainable, a schedule, clipping, accumulation, autocast.

The random numbers of a step depend on the seed and the step alone, and so does its data: a run that was interrupted
goes on to the same bits from its parameters, the optimiser's moments and the number of the step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from subspace.errors import SubspaceError, ValueRangeError
from subspace.text import shown
from subspace.training.parameter_groups import parameter_groups
from subspace.training.recipe import Recipe
from subspace.training.seeds import start_seed
from subspace.training.tasks import Objective
from subspace.training.unsupported import require_trainable

__all__ = ["ComputationError", "DivergedError", "Trainer", "autocast_dtype", "evaluate", "precision"]

_BETAS = (0.9, 0.999)
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class DivergedError(SubspaceError, ArithmeticError):
    """A loss or a gradient that is not finite: training cannot go on."""


class ComputationError(SubspaceError, RuntimeError):
    """A model whose own code, or torch, failed in a forward or backward pass."""


def autocast_dtype(dtype: str, device: torch.device) -> torch.dtype | None:
    """Return the type of autocast, None for none; "auto" is bfloat16 where the hardware has instructions for it."""
    if dtype == "auto":
        dtype = "bfloat16" if _multiplies_bfloat16(device) else "float32"
    return torch.bfloat16 if dtype == "bfloat16" else None


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16") or known.get("amx_tile"))


@contextmanager
def precision(model: nn.Module, dtype: str) -> Iterator[None]:
    """Autocast to a recipe's `dtype` on the model's device within the block; see `autocast_dtype`."""
    device = next(model.parameters()).device
    found = autocast_dtype(dtype, device)
    with torch.autocast(device.type, found or torch.bfloat16, enabled=found is not None):
        yield


@torch.no_grad()
def evaluate(model: nn.Module, task: Objective, recipe: Recipe) -> dict[str, float]:
    """Return a task's measures on held-out data, in evaluation mode; the mode of every module is put back.

    Parameters
    ----------
    model : which is left as it was
    task : gives the measures
    recipe : for its `dtype`
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with precision(model, recipe.dtype):
            return task.held_out(model)
    finally:
        model.train(modes[0][1])
        for module, training in modes:
            module.training = training


@dataclass
class Trainer:
    """Trains a model one step at a time, so that the caller decides when to stop or to save.

    Attributes
    ----------
    model : of which everything that requires gradients is trained
    task : gives the loss
    recipe : how it is trained
    step : how many steps are done
    optimizer : AdamW
    parameters : what is trained, by name
    """

    model: nn.Module
    task: Objective
    recipe: Recipe
    step: int = 0
    optimizer: Any = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueRangeError("Nothing to train: all parameters of the model are frozen")
        require_trainable(self.model)
        groups = parameter_groups(self.model, self.parameters, weight_decay=self.recipe.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=self.recipe.lr, betas=_BETAS, fused=True)

    def advance(self) -> dict[str, float]:
        """Make one step; return its ``step`` (from 1), ``loss``, ``lr``, ``gradient_norm`` and ``seconds``.

        Raises
        ------
        DivergedError : the loss or the gradient is not finite; the parameters are those from before the step
        """
        began, lr = time.perf_counter(), self.recipe.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        loss = self._gradients()
        norm = self._clipped()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.optimizer.zero_grad()
            raise DivergedError(
                f"Training diverged at step {self.step + 1}: the loss is {loss:g} and the norm of the gradient "
                f"{norm:g}; lower `lr` (now {self.recipe.lr:g}), or give `dtype` float32"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        seconds = time.perf_counter() - began
        return {"step": self.step, "loss": loss, "lr": lr, "gradient_norm": norm, "seconds": seconds}

    def _gradients(self) -> float:
        """Accumulate the gradients of a step; return its mean loss."""
        n, total = self.recipe.accumulate, 0.0
        for micro in range(n):
            number = self.step * n + micro
            torch.manual_seed(start_seed(self.recipe.seed, "step", number))
            with precision(self.model, self.recipe.dtype):
                loss = self.task.loss(self.model, number) / n
            if not loss.requires_grad:
                raise ValueRangeError(
                    "The loss does not depend on anything that is trained; choose other `targets`"
                )
            loss.backward()
            total += float(loss.detach())
        return total

    def _clipped(self) -> float:
        most = self.recipe.clip or math.inf
        return float(torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), most))

    def require_finite(self) -> None:
        """Refuse parameters that are not finite, as the last step may have left them.

        Raises
        ------
        DivergedError : some are not
        """
        for name, parameter in self.parameters.items():
            if not bool(torch.isfinite(parameter).all()):
                raise DivergedError(
                    f"Training diverged by step {self.step}: {shown(name)} is not finite; lower `lr` (now "
                    f"{self.recipe.lr:g}), or give `dtype` float32"
                )

    def never_reached(self) -> list[str]:
        """Return the names of the trained parameters that had no gradient in any step so far."""
        return [name for name, parameter in self.parameters.items() if parameter not in self.optimizer.state]

    def state(self) -> dict[str, Tensor]:
        """Return all that a later trainer needs to go on: parameters, moments and buffers by name, on the CPU."""
        tensors = {f"buffer/{name}": value for name, value in self._buffers().items()}
        for name, parameter in self.parameters.items():
            tensors[f"parameter/{name}"] = parameter.detach()
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{key}/{name}"] = torch.as_tensor(value)
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    def _buffers(self) -> dict[str, Tensor]:
        parameters = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        state = self.model.state_dict()
        return {
            name: value
            for name, value in state.items()
            if name not in parameters and isinstance(value, Tensor)
        }

    @torch.no_grad()
    def restore(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Go on from a state that `state` gave.

        Parameters
        ----------
        step : how many steps had been done
        tensors : the state

        Raises
        ------
        ValueRangeError : the state is of another model
        """
        wanted = {f"parameter/{name}" for name in self.parameters}
        if not wanted <= set(tensors):
            missing = sorted(wanted - set(tensors))[0]
            raise ValueRangeError(
                f"The checkpoint is of another model: it has no {shown(missing)}; choose another directory"
            )
        states = {
            name: self._checked(name, parameter, tensors) for name, parameter in self.parameters.items()
        }
        for name, parameter in self.parameters.items():
            value, moments = states[name]
            parameter.copy_(value)
            if moments:
                self.optimizer.state[parameter] = {
                    key: moment.to(parameter.device).clone() for key, moment in moments.items()
                }
        for name, buffer in self._buffers().items():
            if f"buffer/{name}" in tensors:
                buffer.copy_(tensors[f"buffer/{name}"])
        self.step = step

    @staticmethod
    def _checked(
        name: str, parameter: nn.Parameter, tensors: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A parameter and its moments, of which there are none or all, in its shape."""
        value = tensors[f"parameter/{name}"]
        moments = {key: tensors[f"{key}/{name}"] for key in _MOMENTS if f"{key}/{name}" in tensors}
        shapes = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
        whole = not moments or {key: moment.shape for key, moment in moments.items()} == shapes
        if value.shape != parameter.shape or not whole:
            found = {"parameter": value, **moments}
            shapes_there = ", ".join(f"{key} {tuple(t.shape)}" for key, t in found.items())
            raise ValueRangeError(
                f"The checkpoint is of another model: {shown(name)} has the shape {tuple(parameter.shape)}, and in the "
                f"checkpoint there is {shapes_there}; choose another directory"
            )
        return value, moments
