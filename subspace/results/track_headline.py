"""The sentences that `track` says of its runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from subspace.text import counted

if TYPE_CHECKING:
    from subspace.results.track import Track
    from subspace.results.trajectory import Run, Trajectory

__all__ = ["track_facts"]

_NEAR = 0.9  # cosine from which a checkpoint points where the run ends
_NAMES = {"a": "A", "b": "B", "left": "the outputs of delta_W", "right": "the inputs of delta_W"}


def track_facts(result: Track) -> tuple[str, ...]:
    """The sentences of the headline: of each run its course, its sides, births and intruders."""
    several = len(result.runs) > 1
    facts: list[str] = []
    for number, run in enumerate(result.runs):
        begin = f"Run {number}: " if several else ""
        facts.append(f"{begin}{_course(run, result)}")
        facts += [f"{begin}{fact}" for fact in (*_sides(run), *_births(run), *_intruders(run))]
    return tuple(facts)


def _course(run: Run, result: Track) -> str:
    modules = len({each.module for each in run.modules})
    n = len(run.checkpoints)
    span = run.step_name(0) if n == 1 else f"{run.step_name(0)} to {run.step_name(n - 1)}"
    said = f"{counted(n, 'checkpoint')} of {counted(modules, 'module')}, {span}{_parent(run, result)}"
    total = run.total[0] if run.total else None
    if total is None or n == 1:
        return f"{said}: one checkpoint has no course." if n == 1 else f"{said}."
    near = _first_near(total)
    if near is None:
        return f"{said}."
    if near == n - 1:
        return (
            f"{said}: delta_W still turned at the end, with a cosine of {total.cosine[-2]:.2f} between the last two."
            if total.cosine[-2] is not None
            else f"{said}."
        )
    since = f"from {run.step_name(near)} on"
    return f"{said}: delta_W points where it ends (cosine at least {_NEAR:g}) {since}."


def _parent(run: Run, result: Track) -> str:
    resumed = [step for step in run.resumed if step is not None]
    more = f", resumed in another folder at {run.unit} {resumed[0]}" if resumed else ""
    parent = run.parent
    if parent is None:
        return more
    other = result.runs[parent.run]
    at = "its last checkpoint" if parent.step is None else f"{other.unit} {parent.step}"
    words = {
        "branch": f", a branch of run {parent.run} from {at}",
        "continued": f", which goes on from {at} of run {parent.run} with steps counted anew",
        "common_start": f", which began from the same random start as run {parent.run}",
    }
    return f"{words.get(parent.kind, '')}{more}"


def _first_near(total: Trajectory) -> int | None:
    """First checkpoint from which on the cosine with the last stays near 1."""
    if all(value is None for value in total.cosine):
        return None
    below = [n for n, value in enumerate(total.cosine) if value is None or value < _NEAR]
    return below[-1] + 1 if below else 0


def _sides(run: Run) -> Iterator[str]:
    """How near the first trained checkpoint was to the last one, on each side."""
    for total in run.total:
        n = next((n for n, each in enumerate(total.to_final[:-1]) if each is not None), None)
        if n is None or (total.init == "kept" and total.side in ("left", "right")):
            continue
        kept = " with the start removed" if total.init == "removed" else ""
        control = total.to_final_control[n]
        beside = "" if control is None else f", {_kind(total)}: {control:.2f}"
        start = ""
        known = run.start != "first_checkpoint" and (total.side, total.init) == ("a", "kept")
        if known and (last := total.from_start[-1]) is not None:
            start = f" At the end A still has {last:.2f} of its start's span."
        yield (
            f"{_NAMES[total.side]}{kept}: phi {total.to_final[n]:.2f} between {run.step_name(n)} and the end "
            f"(isotropic: {total.to_final_isotropic[n]:.2g}{beside}).{start}"
        )


def _kind(total: Trajectory) -> str:
    return "modules with the same input" if total.control == "same_input" else "other layers"


def _births(run: Run) -> Iterator[str]:
    """When the directions of the end were there, on the side with the start removed if there is one."""
    if len(run.checkpoints) < 2:
        return
    chosen = next((each for each in run.total if each.side == "left"), None)
    chosen = chosen or next((each for each in run.total if each.side == "b"), None)
    if chosen is None or not chosen.directions:
        return
    side = "leading output directions" if chosen.side == "left" else "directions of B"
    early = chosen.born.index(next(count for count in chosen.born if 2 * count >= chosen.directions))
    late = chosen.directions - chosen.born[-2]
    whole = chosen.born.index(chosen.directions)
    rest = f"and {late} only at the end" if late else f"and all by {run.step_name(whole)}"
    by = f"all are there by {run.step_name(whole)}"
    by = by if early == whole else f"half are there by {run.step_name(early)}, {rest}"
    yield (
        f"Of the {chosen.directions} {side} of the last checkpoint {by} (level 0.01 against isotropic directions)"
        f"{_strength(run)}."
    )


def _strength(run: Run) -> str:
    """When delta_W had half of its final strength along half of its directions."""
    halves = sorted(
        birth.half
        for each in run.modules
        if each.side == "left"
        for birth in each.births
        if birth.half is not None
    )
    if not halves:
        return ""
    since = run.step_name(halves[(len(halves) - 1) // 2])
    return f"; along half of them delta_W has half of its final strength from {since} on"


def _intruders(run: Run) -> Iterator[str]:
    total = run.total[0] if run.total else None
    if total is None or not any(count is not None for count in total.intruders):
        return
    first = next((n for n, count in enumerate(total.intruders) if count), None)
    if first is None:
        yield "No checkpoint has an intruder dimension."
    else:
        yield (
            f"Intruder dimensions: the first at {run.step_name(first)}, {total.intruders[-1]} at the end in all "
            "modules together."
        )
