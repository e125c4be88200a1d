"""The tables of a study, with the paper's numbers in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from subspace.study.dose import dose_rows
from subspace.study.measurements import Measures
from subspace.study.runs import RANKS
from subspace.study.trio import ranked, rows_of

__all__ = ["Table", "tables"]

Row = dict[str, Any]

# Hu et al., arXiv 2106.09685v2, tables 5 and 6 (accuracy in %) and 7
_PAPER_5 = {
    "q": (70.4, 91.0), "k": (70.0, 90.8), "v": (73.0, 91.0), "o": (73.2, 91.3), "qk": (71.4, 91.3),
    "qv": (73.7, 91.3), "qkvo": (73.7, 91.7),
}  # fmt: skip
_PAPER_6 = {1: (73.4, 91.3), 2: (73.3, 91.4), 4: (73.7, 91.3), 8: (73.8, 91.6), 64: (73.5, 91.4)}
_PAPER_7 = ((4, 6.91, 0.32, 21.67, 0.02), (64, 3.57, 1.90, 37.71, 0.33))
_PAPER_NORM = 61.95


@dataclass(frozen=True)
class Table:
    """A table of flat rows.

    Attributes
    ----------
    key : short name, also of its CSV file
    title, caption : what it is, and how to read it
    rows : one dictionary per row, of the same keys
    """

    key: str
    title: str
    caption: str
    rows: tuple[Row, ...]


def tables(measures: Measures) -> tuple[Table, ...]:
    """Return table 7 and the shared dimensions; for a full study also tables 5 and 6, and dose and response."""
    found = [_table_7(measures), _shared(measures)]
    if measures.plan.full:
        found += [_table_5(measures), _table_6(measures), _dose(measures)]
    return tuple(found)


def _table_7(measures: Measures) -> Table:
    rows = [_paper_row(*each) for each in _PAPER_7]
    scrambled = measures.controls["scrambled"]
    others = {"scrambled-r8": scrambled.low, "scrambled-r64": scrambled.high}
    for name, amplified in {**measures.amplified, **others}.items():
        rows += [_amplified_row(name, module, rank) for module, rank in ranked(amplified)]
    return Table(
        "table7",
        "Table 7: what delta_W amplifies of W",
        "The norm of W in the top r directions of delta_W, in W's own, and in isotropic random ones. The factor is the "
        "norm of delta_W over the first; for random directions it is larger, since there is less of W in them.",
        tuple(rows),
    )


def _paper_row(r: int, norm: float, mine: float, own: float, random: float) -> Row:
    return {
        "run": "the paper",
        "module": "48th layer, W_q",
        "r": r,
        "norm_W": _PAPER_NORM,
        "norm_delta_W": norm,
        "proj_delta_W": mine,
        "proj_W": own,
        "proj_random": random,
        "proj_random_sd": None,
        "over_random": mine / random,
        "factor": norm / mine,
        "factor_random": norm / random,
    }


def _amplified_row(name: str, module: Any, rank: Any) -> Row:
    norm, random = module.norm_delta_W, rank.proj_random
    return {
        "run": name,
        "module": module.module,
        "r": rank.r,
        "norm_W": module.norm_W,
        "norm_delta_W": norm,
        "proj_delta_W": rank.proj_delta_W,
        "proj_W": rank.proj_W,
        "proj_random": random,
        "proj_random_sd": rank.proj_random_sd,
        "over_random": rank.over_random,
        "factor": rank.amplification,
        "factor_random": norm / random if norm is not None and random > 0 else None,
    }


def _shared(measures: Measures) -> Table:
    scrambled, random = measures.controls["scrambled"], measures.controls["random"]
    pairs = {
        "r8 and r64": measures.here.ranks,
        "r64 and r64-seed1": measures.here.seeds,
        "r8 and scrambled-r64": scrambled.ranks,
        "r64 and scrambled-r64": scrambled.seeds,
        "random r64 and r64": random.seeds,
    }
    rows = tuple(
        _shared_row(pair, comparison, row)
        for pair, comparison in pairs.items()
        for row in rows_of(comparison)
    )
    return Table(
        "shared-dimension",
        "Shared dimension of every module",
        "How many principal directions agree beyond isotropic random spans, at the "
        f"{measures.here.ranks.level:.3g} level with Holm's correction over modules: of A, of A with its known start "
        "subtracted, and of B, which the paper did not look at. The test rejects isotropic random spans only: modules "
        "with the same input, and an adapter of the scrambled text, share directions of A as well.",
        rows,
    )


def _shared_row(pair: str, comparison: Any, row: Any) -> Row:
    return {
        "pair": pair,
        "module": row.module,
        "of": len(row.theta),
        "A": row.shared_dim,
        "A_same_input": row.shared_dim_control if row.control_kind == "same_input" else None,
        "A_start_removed": _dim(comparison, row.module, "a", "removed"),
        "B": _dim(comparison, row.module, "b", "kept"),
        "cosine": row.cosine,
        "phi_11": row.phi_11,
        "phi_11_isotropic": 1 / row.d,
        "phi_11_same_input": row.phi_control if row.control_kind == "same_input" else None,
        "phi_full": row.phi_full,
        "phi_full_isotropic": row.chance_full,
    }


def _dim(comparison: Any, module: str, side: str, init: str) -> int | None:
    return next((row.shared_dim for row in rows_of(comparison, side, init) if row.module == module), None)


def _dose(measures: Measures) -> Table:
    left_out = "" if measures.plan.headers else _WITHOUT_HEADERS
    return Table(
        "dose",
        "Dose and response",
        "r = 8 against r = 64 of another seed on other texts, medians over modules. The sizes of the effects order the "
        f"texts, the number of shared directions does not.{left_out}",
        dose_rows(measures.doses),
    )


_WITHOUT_HEADERS = (
    " Other code is left out: it takes Python's help topics as the text, and C headers of Python or NumPy."
)


def _loss_rows(
    measures: Measures, names: Sequence[str], key: str, paper: dict[Any, tuple[float, float]]
) -> Any:
    noise = [measures.gain("r64"), measures.gain("r64-seed1")]
    between = None if None in noise else abs(noise[0] - noise[1])  # type: ignore[operator]
    for name in names:
        run = measures.plan.run(name)
        record = measures.runs[name]
        held_out = record.get("held_out") or {}
        before, after = (held_out.get(when, {}).get("loss") for when in ("before", "after"))
        wikisql, mnli = paper[getattr(run, key)]
        yield {
            "weights": "+".join(run.weights),
            "r": run.rank,
            "parameters": record.get("trainable"),
            "loss_untrained": before,
            "loss": after,
            "between_seeds": between,
            "paper_WikiSQL": wikisql,
            "paper_MNLI": mnli,
        }


def _unit(measures: Measures) -> str:
    """What a loss is the mean over."""
    return "text" if measures.runs["r8"].get("task") == "classify" else "token"


def _table_5(measures: Measures) -> Table:
    return Table(
        "table5",
        "Table 5: which weights, at one budget of parameters",
        f"Held-out loss in nats per {_unit(measures)}, lower is better; the paper's are accuracies in %, higher is "
        "better. A difference below that of two seeds of r = 64 means nothing.",
        tuple(_loss_rows(measures, measures.plan.budget, "weights", _PAPER_5)),
    )


def _table_6(measures: Measures) -> Table:
    return Table(
        "table6",
        "Table 6: how large a rank",
        f"Held-out loss in nats per {_unit(measures)} by rank, q and v adapted, lower is better; the paper's are "
        "accuracies in %, higher is better. A difference below that of two seeds of r = 64 means nothing.",
        tuple(_loss_rows(measures, RANKS, "rank", _PAPER_6)),
    )
