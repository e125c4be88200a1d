"""Training a job, or a model and batches of one's own; and what a step of such a model costs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

from torch import nn

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training.job import Job
from subspace.training.recipe import Recipe
from subspace.training.run import Progress, Run
from subspace.training.run import train as train_job

if TYPE_CHECKING:
    from subspace.training.costs import Accounts
    from subspace.training.method import Method
    from subspace.training.own_batches import Loss

__all__ = ["account", "train"]


@overload
def train(
    what: Job,
    on: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    stopping: Callable[[], bool] = ...,
    tell: Callable[[str], None] = ...,
) -> Run: ...


@overload
def train(
    what: nn.Module,
    on: Iterable[Any],
    *,
    loss: Loss | None = None,
    method: Method | None = None,
    targets: Sequence[str] = (),
    keep: Sequence[str] = (),
    steps: int = 200,
    lr: float | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    save_every: int = 100,
    progress: Progress | None = None,
    stopping: Callable[[], bool] = ...,
    tell: Callable[[str], None] = ...,
    **recipe: Any,
) -> Run: ...


def train(what: Any, on: Any, **options: Any) -> Run:
    """Train what a job says, or a model of one's own on batches of one's own; return the finished run.

    ``train(job, out)`` is ``subspace train``: see `Job`, and for its options `subspace.training.run.train`.

    ``train(model, batches, loss=cross_entropy, targets=["q_proj"], out="run/")`` puts an adapter into the model and
    trains it, on the device where the model is; the options below are for this use. The run has a ``log`` then, with a
    row for each step.

    Parameters
    ----------
    what : a `Job`, or a model: any ``nn.Module``, on any device, which may be compiled or parallel
    on : the job's directory; of a model its batches, an iterable of tensors, tuples, lists or dicts that begins again
        where it ends. A tensor is the model's argument; a tuple or list are its arguments, and a dict those by name.
    loss : function of the model's output and a target, that gives a mean; the target is the last of a tuple or list,
        ``labels`` of a dict, or a tensor itself. None: the model gives its loss, as its output or as ``.loss`` of it.
    method : such as ``LoRA(r=8)``, which it is by default; `Full` trains the model itself. Without method and
        targets the adapter that `inject` or `load` put in is trained.
    targets : patterns of the layers to adapt; by default the query and value projections
    keep : patterns of modules that are trained whole as well
    steps, lr, seed : number of steps, peak learning rate (None: the method's), seed of dropout, of the start and of
        the batches' random numbers
    out : the run's directory, as that of the command; None: nothing is written
    overwrite : begin anew where a run is in the directory already
    save_every : steps between checkpoints; 0 for none
    progress : called after each step with (steps done, steps in all, a short message)
    stopping : called after each step; once it returns true, the state is saved and `KeyboardInterrupt` raised
    tell : called with each note for the user, one sentence
    **recipe : other settings of `Recipe`: accumulate, schedule, warm_up, weight_decay, clip, dtype

    Raises
    ------
    SubspaceError : a model, batches or settings that do not fit, a directory of something else, a full disk
    DivergedError : the loss or a gradient is not finite
    KeyboardInterrupt : it was stopped, and can go on where it has a directory

    Notes
    -----
    The same call with the same model, batches and seed gives the same bits; with the same directory it goes on where an
    interrupted run was last saved, to the same bits as one that was not. To go on, it takes the batches from the first
    one and compares them with those that it was trained on. Where they differ, it does not go on: as with an iterator
    that is used up, or an order that is random and not by torch's generator.

    Examples
    --------
    >>> import torch
    >>> from subspace.training import LoRA
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    >>> batches, loss = [(x, x[:, :2])], nn.functional.mse_loss
    >>> run = train(model, batches, loss=loss, method=LoRA(r=2), targets=["0", "2"], steps=30, lr=0.02)
    >>> run.log[-1]["loss"] < run.log[0]["loss"], run.record["targets"]
    (True, ['0', '2'])
    """
    if isinstance(what, Job):
        return train_job(what, on, **options)
    if not isinstance(what, nn.Module):
        raise ValueRangeError(
            f"Neither a Job nor a model: {shown(repr(what), longest=60)}; give train a Job and a directory, or an "
            "nn.Module and batches"
        )
    from subspace.training.own_run import train_model

    return train_model(what, on, **options)


def account(
    model: nn.Module,
    batch: Any,
    *,
    loss: Loss | None = None,
    dtype: str = "auto",
    rounds: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> Accounts:
    """Return what a step of training a model costs: parameters, operations, memory, time and size of a checkpoint.

    With it come the costs of full fine-tuning of the same model, and the time of a forward pass of the base, merged and
    unmerged; `Accounts.lines` has all as the table of ``subspace train``. Copies are measured: the model and torch's
    random state stay as they are.

    Parameters
    ----------
    model : with an adapter that `inject` or `load` put in, or trained itself
    batch : a tensor, tuple, list or dict, as one of those that `train` takes
    loss : function of the model's output and a target, as in `train`; None: the model gives its loss
    dtype : "float32", "bfloat16" (autocast), or "auto": bfloat16 where the hardware has instructions for it
    rounds : steps that are timed, at least 1; only one where a step takes more than 20 s
    progress : called with (done, in all); the second number may fall

    Raises
    ------
    ValueRangeError : nothing is trainable, a batch that does not fit, no loss
    InconclusiveError : not enough memory for two copies of the model
    DivergedError : the loss is not finite
    """
    from subspace.training import accounts
    from subspace.training.own_batches import OneBatch, OwnTask
    from subspace.training.wrappers import unwrapped

    task = OwnTask(OneBatch(batch), loss)
    return accounts.account(unwrapped(model), task, Recipe(dtype=dtype), rounds=rounds, progress=progress)
