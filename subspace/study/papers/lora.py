"""Section 7 of the LoRA paper: what two adapters share, and what they amplify of the base weights.

References
----------
Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685v2, section 7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.errors import ValueRangeError
from subspace.study.paper import Choices, Outcome, Paper
from subspace.study.plan import EMBEDDED, Plan, planned

if TYPE_CHECKING:
    from subspace.results.comparison import Comparison
    from subspace.study.measurements import Measures
    from subspace.study.study import Study
    from subspace.study.trio import Trio

__all__ = ["PAPER"]

_TEXTS = {
    "": "the text", "scrambled": "characters shuffled", "scrambled-words": "words shuffled",
    "uniform": "random characters", "c-headers": "C headers",
}  # fmt: skip


def _planned(choices: Choices) -> Plan:
    if choices.pretraining_text is not None:
        raise ValueRangeError(
            "Forgetting is not measured in the study of section 7 of the LoRA paper; leave `pretraining_text` out, or "
            "give `paper` intruders"
        )
    return planned(choices.model, choices.data, full=choices.full, steps=choices.steps)


def _outcome(plan: Plan, folder: Path, progress: Callable[[int, int], None] | None) -> Outcome:
    from subspace.study.findings import findings
    from subspace.study.measurements import measured
    from subspace.study.study_figures import pictures
    from subspace.study.study_tables import tables

    measures = measured(plan, folder, progress=progress)
    return Outcome(
        measures,
        findings(measures),
        tables(measures),
        tuple(pictures(measures)),
        tuple(_run(measures, run.name) for run in plan.runs),
        _record(measures),
    )


def _record(measures: Measures) -> dict[str, Any]:
    return {
        "comparisons": _pairs(measures.here),
        "controls": {name: _control(trio) for name, trio in measures.controls.items()},
        "doses": {name: _comparison(each) for name, each in measures.doses.items()},
        "against_base": {name: _comparison(each) for name, each in measures.against_base.items()},
        "amplification": {name: each.records() for name, each in measures.amplified.items()},
    }


def _pairs(trio: Trio) -> dict[str, Any]:
    return {"ranks": _comparison(trio.ranks), "seeds": _comparison(trio.seeds)}


def _control(trio: Trio) -> dict[str, Any]:
    """The same of a control; its low rank and r = 64 are those of `amplification`."""
    return {
        **_pairs(trio),
        "against_base": _comparison(trio.against_base),
        "amplification": {name: each.records() for name, each in (("low", trio.low), ("r64", trio.high))},
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "headline": comparison.headline(),
        "cosine": comparison.cosine,
        "level": comparison.level,
        "modules": comparison.records(),
        "notes": comparison.notes,
    }


def _run(measures: Measures, name: str) -> dict[str, Any]:
    run, record = measures.plan.run(name), measures.runs[name]
    shared = {
        key: record.get(key)
        for key in ("model_type", "task", "data", "trainable", "held_out", "computed", "settings")
    }
    return {**asdict(run), "targets": measures.plan.targets(run), **shared}


def _run_row(run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run": run["name"],
        "text": _TEXTS[run["text"]],
        "r": run["rank"],
        "seed": run["seed"],
        "adapted": ", ".join(run["targets"]),
    }


def _commands(study: Study) -> list[list[str]]:
    plan, folder = study.measures.plan, str(study.folder)
    low, high, other = (f"{folder}/runs/{name}" for name in ("r8", "r64", "r64-seed1"))
    scrambled = f"{folder}/runs/scrambled-r64"
    groups = plan.groups(plan.runs[0])
    fused = ["--enable-lora", ",".join(str(int(on)) for on in groups)] if groups else []
    lines = []
    pairs = ((low, high, "fig3"), (low, scrambled, "fig3"), (high, other, "fig4"), (high, scrambled, "fig4"))
    for first, second, figure in pairs:
        starts = ["--init", f"{first}/start", "--init", f"{second}/start"] if not fused else []
        lines.append(["compare", first, second, *starts, *fused, "--figure", figure])
    base = EMBEDDED if plan.model == EMBEDDED else study.record["base"]["path"]
    lines.append(["compare", base, low, *fused, "--figure", "fig8"])
    ranks = {run.name: run.rank for run in plan.runs}
    for name in study.measures.amplified:
        scale = ["--scale", str(plan.recipe.alpha / ranks[name])] if fused else []
        lines.append(["amplify", "--base", base, "--delta", f"{folder}/runs/{name}", *fused, *scale])
    return lines


PAPER = Paper(
    name="lora",
    about="section 7 of the LoRA paper (Hu et al., arXiv 2106.09685)",
    planned=_planned,
    outcome=_outcome,
    controls={"scrambled": "scrambled text", "barely": "barely trained", "random": "random adapter"},
    run_row=_run_row,
    commands=_commands,
)
