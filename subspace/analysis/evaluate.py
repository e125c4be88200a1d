"""What do adapters do to the loss of their model? Each, cut ones and sums, on the same examples, with intervals.

An adapter is put onto the model through its delta_W, whatever format it is of, and the loss of each example is measured
with it and without it. Both losses are of the same example, so that what makes one example harder than another cancels
in their difference: the interval of the difference is of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from subspace.analysis.evaluated_data import named_data, settings_of
from subspace.analysis.evaluation_plan import EvaluationPlan
from subspace.analysis.resolve import Loading
from subspace.analysis.run_settings import common_setting, run_settings
from subspace.analysis.update_variants import BASE, named_sources
from subspace.results.evaluation import Evaluation

__all__ = ["evaluate"]


def evaluate(
    model: Any = None,
    updates: Any = (),
    data: Any = None,
    *,
    truncate: Sequence[int] = (),
    merge: Sequence[str | Mapping[str, float]] = (),
    reference: str = BASE,
    held_out: float | None = None,
    most: int | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    labels: bool | None = None,
    tokenizer: Any = None,
    length: int | None = None,
    batch: int = 16,
    dtype: str = "float32",
    device: str = "auto",
    seed: int = 0,
    resamples: int = 10_000,
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    layout: str | None = None,
    rename: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Losses of a model alone and with adapters, on the same examples, with intervals of their differences.

    Parameters
    ----------
    model : "embedded", a directory or hub id as `train` takes it, or a module, which is as it was afterwards; None for
        the one that the adapters were trained on, by the run.json in their directories, else "embedded"
    updates : adapters, each as `load_adapter` takes it: one, a sequence, or a mapping of names to them
    data : path of a text, JSONL, CSV or TSV file or a folder of texts, a control such as "scrambled", or `Examples`; a
        sequence of those, or a mapping of names to them, is measured one after the other. None: what the adapters were
        trained on
    truncate : ranks that each adapter is cut to and measured at as well
    merge : sums to measure as well: "sum" or "mean" of all adapters, expressions such as "0.5*a + 0.5*b@r=4", or
        mappings of name to weight
    reference : name of the update that differences are taken from
    held_out : fraction of the data whose held-out part is measured, split as a run of that fraction does it; 1 for all.
        By default what the run of an adapter held out, if it trained on these data; else all
    most : examples at most, evenly chosen; by default 256 windows of text, and all texts with classes
    text_column, label_column, labels, tokenizer, length : as `train` has them, by default as the runs have them; for a
        module `tokenizer` is that of transformers or a function of a text that returns ids
    batch : windows or texts at a time
    dtype : "float32", "bfloat16" or "auto"; bfloat16 rounds small updates away
    device : "auto", "cpu" or "cuda"; a module stays where it is
    seed, resamples : of the bootstrap
    scale, adapter_name, enable_lora, layout, rename : how adapters are read, as `load_adapter` takes them
    progress : called with (examples done, examples in all), over all updates

    Returns
    -------
    Evaluation
        A row per update and data; ``result["r8"].losses`` are the losses of the examples.

    Raises
    ------
    InconclusiveError : the model has no module of an adapter, a scale is unknown
    FormatError : the model lacks some modules of an adapter; they are named
    ShapeError : a weight does not have the shape of its update
    SubspaceError : something cannot be read

    Notes
    -----
    ``W + scale * B A`` is computed in float32 at least when a module is called and given up afterwards. So the model's
    weights are never written to, and one of them is held twice at a time. With several adapters, what files hold in
    full, such as classifiers, is summed as differences from the model's own.

    The intervals are expanded percentiles of a paired bootstrap of the examples, where every example counts by its
    tokens. Neighbouring windows of a text are not independent, which they do not account for.

    References
    ----------
    Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13. Hesterberg 2015, Am. Stat. 69:371.
    Ilharco et al., arXiv 2212.04089 (sums of updates).
    """
    sources = named_sources(updates) if updates is not None else {}
    runs = [run for each in sources.values() if (run := run_settings(each)) is not None]
    given = {
        "text_column": text_column,
        "label_column": label_column,
        "labels": labels,
        "tokenizer": tokenizer,
        "length": length,
        "batch": batch,
        "held_out": held_out,
        "most": most,
    }
    settings = settings_of(given, runs, own_data=data is None)
    plan = EvaluationPlan(
        model=common_setting(runs, "model", "embedded") if model is None else model,
        sources=sources,
        settings=settings,
        loading=Loading(None, scale, adapter_name, enable_lora, rename, layout),
        ranks=tuple(truncate),
        merge=tuple(merge),
        reference=reference,
        dtype=dtype,
        device=device,
        seed=seed,
        resamples=resamples,
        progress=progress or (lambda *_: None),
    )
    return plan.carried_out(named_data(data, runs))
