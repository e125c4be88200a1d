"""What are the modules of a model given? Second moments of their inputs on some data, and the first gradient."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from subspace.analysis.inputs_plan import Reach, planned
from subspace.analysis.resolve import Loading

if TYPE_CHECKING:
    from subspace.results.inputs import Inputs

__all__ = ["inputs"]


def inputs(
    model: Any = None,
    data: Any = None,
    *,
    targets: Sequence[str] | None = None,
    adapter: Any = None,
    tokens: int = 32768,
    eigenpairs: int = 64,
    full: int = 4096,
    gradients: bool = False,
    loss: Callable[[Any, Any], Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    held_out: float | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    labels: bool | None = None,
    tokenizer: Any = None,
    length: int | None = None,
    batch: int = 16,
    device: str = "auto",
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    layout: str | None = None,
    rename: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Inputs:
    """Second moments ``C = E[x x^T]`` of the inputs of a model's linear modules, from one pass over some data.

    Parameters
    ----------
    model : "embedded", a directory or hub id as `train` takes it, or any `nn.Module`, which is as it was afterwards;
        None for the one that `adapter` was trained on, by its run.json, else "embedded"
    data : path of a text, JSONL, CSV or TSV file or a folder of texts, a control such as "scrambled", or `Examples`;
        for a module also batches, any iterable of what the model is called with: a tensor, a tuple or a dict. None:
        what `adapter` was trained on
    targets : patterns of modules, as `train` has them; by default every linear module of the model's blocks
    adapter : an adapter, as `load_adapter` takes it, whose modules are measured in the place of `targets`
    tokens : how many tokens are read, evenly chosen from the data; of batches the first
    eigenpairs : how many leading eigenpairs of C are kept; all where d is at most 1024
    full : the largest d at which the d x d matrix is summed up; beyond it a sketch of 4 * `eigenpairs` columns is
    gradients : whether the leading directions of the gradient of the loss by each weight are measured too
    loss : of batches, a function of the model's output and the last of the batch; None: the batch is all that the
        model is called with, and with `gradients` the model gives its own loss
    out : file that the result is written to; what was summed up is kept next to it, as ``out.partial``, every minute
        and when the work is interrupted, and taken up again by the same call
    overwrite : whether a file of inputs that is there may be replaced
    held_out : fraction of the data whose held-out part is read, split as a run of that fraction does it; by default all
    text_column, label_column, labels, tokenizer, length, batch : as `evaluate` has them
    device : "auto", "cpu" or "cuda"; a module stays where it is
    scale, adapter_name, enable_lora, layout, rename : how `adapter` is read, as `load_adapter` takes them
    progress : called with (tokens read, tokens in all)

    Returns
    -------
    Inputs
        A row per module. Modules that are given the very same tensor, such as q, k and v, share one second moment.

    Raises
    ------
    InconclusiveError : the model has no module of the adapter
    FileError : a file cannot be read or written, or partial sums of other settings are in the way
    ValueRangeError : a number is out of its range, there is not enough memory, an input is not finite

    Notes
    -----
    Products of up to 2048 tokens are computed in float32, after a fixed vector near the mean is taken off, and added up
    in float64: C is right to about 1e-6 of what varies. What attention masks leave out does not count. A sketch gives
    eigenvalues that are too low by no more than `error_share` of the energy in all (Nystroem).

    References
    ----------
    Tropp, Yurtsever, Udell & Cevher 2017, NeurIPS (the sketch).

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    >>> result = inputs(model, [torch.tensor([[2.0, 0.0], [0.0, 1.0]])])
    >>> result.modules[0].eigenvalues, result.modules[0].energy
    (array([2. , 0.5]), 2.5)
    """
    plan = planned(
        model,
        data,
        targets=targets,
        adapter=adapter,
        reach=Reach(tokens, eigenpairs, full, gradients),
        loss=loss,
        out=out,
        overwrite=overwrite,
        reading={"text_column": text_column, "label_column": label_column, "labels": labels},
        showing={"tokenizer": tokenizer, "length": length, "batch": batch, "held_out": held_out},
        device=device,
        loading=Loading(None, scale, adapter_name, enable_lora, rename, layout),
    )
    return plan.carried_out(progress or (lambda *_: None))
