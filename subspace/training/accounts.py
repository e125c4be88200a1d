"""What a training run costs, compared with full fine-tuning of the same model in the same process.

The claims of the LoRA paper on the user's own model: less memory, smaller checkpoints and quicker steps than full
fine-tuning, and no slower inference once the update is merged.

References
----------
Hu et al., arXiv 2106.09685v2: section 4.2 for memory, checkpoints and the speed of training, 4.1 for latency.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from subspace.errors import InconclusiveError, ValueRangeError
from subspace.text import shown
from subspace.training import meters
from subspace.training.costs import Accounts, Cost, in_bytes
from subspace.training.injection import adapted, merge, remove, unmerge
from subspace.training.loop import DivergedError, Trainer, autocast_dtype, precision
from subspace.training.recipe import Recipe
from subspace.training.tasks import Objective

__all__ = ["Accounts", "Cost", "account"]

_LONG_MS = 20e3  # a step above this is timed once
_FULL = "full fine-tuning was not measured: "


def account(
    model: nn.Module,
    task: Objective,
    recipe: Recipe,
    *,
    rounds: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> Accounts:
    """Return what training a model costs compared with full fine-tuning, and what its adapter costs at inference.

    Neither the model nor torch's random state changes: copies are measured, with a learning rate of 0.

    Parameters
    ----------
    model : with its adapter active, or without one
    task : gives the loss
    recipe : of the run
    rounds : steps that are timed, at least 1; only one where a step takes more than 20 s
    progress : called with (done, in all); the second number may fall

    Raises
    ------
    ValueRangeError : nothing is trainable, `rounds` is below 1, a task that does not call the model
    InconclusiveError : not enough memory for two copies of the model
    DivergedError : the loss is not finite

    Notes
    -----
    Steps of both ways to train alternate, and so do the forward passes that are compared, so that whatever else the
    machine does affects each equally. Operations are counted in the first step, which warms up too, and memory is
    measured in the second; neither is timed.
    """
    if rounds < 1:
        raise ValueRangeError(f"Invalid `rounds` {rounds}: it must be at least 1")
    _require_memory(model)
    on_cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if on_cuda else ()):
        return _Accounting(model, task, recipe, rounds, progress or (lambda *_: None)).result()


def _require_memory(model: nn.Module) -> None:
    needed, there = 2 * _size(model), meters.available_bytes(_device(model))
    if there is not None and needed > there:
        raise InconclusiveError(
            f"Not enough memory to measure costs: two copies of the model need {in_bytes(needed)}, and "
            f"{in_bytes(there)} are free; measure on a larger machine"
        )


def _device(model: nn.Module) -> torch.device:
    found: torch.device = next(model.parameters()).device
    return found


def _size(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _copied(model: nn.Module) -> nn.Module:
    """A copy that shares nothing, with the adapter unmerged; tied weights are tied in it too."""
    # torch copies no tensor that a graph computed, such as the weight that weight normalisation keeps
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    copied = copy.deepcopy(model, computed)
    for _, layer in adapted(copied):
        layer.merge_on_eval = False
    unmerge(copied)
    return copied.train()


class _Accounting:
    """Measurements on an adapted copy of a model and on a plain one."""

    def __init__(
        self,
        model: nn.Module,
        task: Objective,
        recipe: Recipe,
        rounds: int,
        progress: Callable[[int, int], None],
    ) -> None:
        self.task, self.recipe, self.rounds = task, replace(recipe, lr=0.0), rounds
        self.progress, self.done, self.device = progress, 0, _device(model)
        self.model, self.plain = _copied(model), _copied(model)
        remove(self.plain)
        self.adapted = bool(adapted(self.model))
        self.notes: list[str] = []
        self.full = True  # whether full fine-tuning is, or still may be, measured

    def result(self) -> Accounts:
        run, full = self._costs()
        base, merged, unmerged = self._latencies()
        dtype = autocast_dtype(self.recipe.dtype, self.device) or next(self.plain.parameters()).dtype
        return Accounts(
            total=sum(p.numel() for p in self.plain.parameters()),
            run=run,
            full=full,
            base_ms=base,
            merged_ms=merged,
            latency_ratio=merged / base,
            adapter_ms=unmerged,
            merged_difference=self._difference() if self.adapted else math.nan,
            dtype=str(dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            notes=tuple(self.notes),
        )

    def _tick(self) -> None:
        """Report that one step or one round of forward passes is done."""
        self.done += 1
        ways = 2 if self.full else 1
        self.progress(self.done, ways * (2 + self.rounds) + 2 * self.rounds)

    def _costs(self) -> tuple[Cost, Cost | None]:
        mine = _Side(self.model, self.task, self.recipe)
        self._warm(mine)
        if mine.slowest > _LONG_MS:
            self.rounds = 1
        other = self._full_side(mine)
        for number in range(self.rounds):
            for side in (mine, other) if number % 2 else (other, mine):
                if side is not None:
                    side.time()
                    self._tick()
        return mine.cost(), other.cost() if other else None

    def _warm(self, side: _Side) -> None:
        for measure in (side.count, side.weigh):
            measure()
            self._tick()

    def _full_side(self, mine: _Side) -> _Side | None:
        """Full fine-tuning, its operations and memory measured; or None and a note."""
        if not self.adapted and all(p.requires_grad for p in self.model.parameters()):
            self.full = False
            self.notes.append("this run is full fine-tuning itself")
            return None
        for parameter in self.plain.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        # gradients and two moments, and activations as the run has them
        needed, there = 3 * _size(self.plain) + mine.peak, meters.available_bytes(self.device)
        if there is not None and needed > there:
            self.full = False
            self.notes.append(
                f"{_FULL}it needs about {in_bytes(needed)} of memory, and {in_bytes(there)} are free"
            )
            return None
        done = self.done
        try:
            side = _Side(self.plain, self.task, self.recipe)
            self._warm(side)
        except (DivergedError, RuntimeError) as error:  # out of memory is a RuntimeError
            self.full, self.done = False, done
            self.notes.append(_FULL + shown(str(error).partition("\n")[0]))
            self.plain.zero_grad()
            return None
        return side

    def _latencies(self) -> tuple[float, float, float]:
        """Milliseconds of the base, merged and unmerged; the last two are NaN without an adapter."""
        for model in (self.plain, self.model):
            # autocast keeps its copies of weights that require gradients: none may have that advantage
            model.requires_grad_(False).eval()
        args, kwargs = self.inputs = self._inputs()
        ways = [self.plain, self.model, self.model] if self.adapted else [self.plain]
        taken: list[list[float]] = [[] for _ in ways]
        for number in range(2 * self.rounds):
            for way in list(range(len(ways)))[:: 1 if number % 2 else -1]:
                unmerge(self.model)
                if way == 1:
                    merge(self.model)
                taken[way].append(self._forward_ms(ways[way], args, kwargs))
            self._tick()
        unmerge(self.model)
        base, merged, unmerged = [median(times) for times in taken] + [math.nan] * (3 - len(ways))
        return base, merged, unmerged

    def _forward_ms(self, model: nn.Module, args: Any, kwargs: Any) -> float:
        with torch.no_grad(), precision(model, self.recipe.dtype):
            model(*args, **kwargs)  # merging has just touched some weights: all start from the same caches
            return meters.milliseconds(lambda: model(*args, **kwargs), self.device)

    def _inputs(self) -> tuple[Any, Any]:
        """What the task gives the model in its first micro-batch."""
        seen: list[tuple[Any, Any]] = []
        hook = self.plain.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
        )
        with torch.no_grad(), precision(self.plain, self.recipe.dtype):
            self.task.loss(self.plain, 0)
        hook.remove()
        if not seen:
            raise ValueRangeError("The task gives a loss without calling the model; let it call the model")
        return seen[0]

    @torch.no_grad()
    def _difference(self) -> float:
        """Difference of merged outputs from unmerged ones, in float32; of several outputs the largest."""
        args, kwargs = self.inputs
        wide = torch.promote_types(next(self.plain.parameters()).dtype, torch.float32)
        model = self.model.to(wide)
        unmerged = _tensors(model(*args, **kwargs))
        merge(model)
        merged = _tensors(model(*args, **kwargs))
        pairs = zip(merged, unmerged, strict=True)
        return max(float((m - u).abs().max() / u.abs().max().clamp_min(1e-30)) for m, u in pairs)


class _Side:
    """One way to train, step by step."""

    def __init__(self, model: nn.Module, task: Objective, recipe: Recipe) -> None:
        self.trainer, self.device = Trainer(model, task, recipe), _device(model)
        self.flops, self.peak, self.slowest = 0, 0, 0.0
        self.times: list[float] = []

    def count(self) -> None:
        """The first step: count its operations."""
        self.flops = meters.flops(self.trainer.advance)

    def weigh(self) -> None:
        """The second step, when the moments are there: measure its memory."""
        self.slowest = meters.milliseconds(self._weigh, self.device)

    def _weigh(self) -> None:
        states = self.trainer.optimizer.state.values()
        moments = [value for state in states for value in state.values() if isinstance(value, Tensor)]
        held = sum(value.numel() * value.element_size() for value in moments)
        self.peak = held + meters.peak_bytes(self.trainer.advance, self.device)

    def time(self) -> None:
        """Any later step: time it."""
        self.times.append(meters.milliseconds(self.trainer.advance, self.device))

    def cost(self) -> Cost:
        trained = self.trainer.parameters
        return Cost(
            trainable=sum(p.numel() for p in trained.values()),
            flops=self.flops,
            peak_bytes=self.peak,
            checkpoint_bytes=meters.safetensors_bytes(trained),
            step_ms=median(self.times),
        )


def _tensors(output: Any) -> list[Tensor]:
    """The floating tensors of a model's output, however they are nested."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() and output.numel() else []
    values: Sequence[Any] = ()
    if isinstance(output, Mapping):
        values = list(output.values())
    elif isinstance(output, list | tuple):
        values = output
    return [tensor for value in values for tensor in _tensors(value)]
