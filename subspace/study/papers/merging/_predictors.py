"""Numbers that may foretell what a merge does to a task: from the weights alone, or with inputs of the task's text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats
    from subspace.study.papers.merging._measured import Sample
    from subspace.study.papers.merging._meetings import Meetings

__all__ = ["NORMS", "PREDICTORS", "Predictor"]

NORMS = "norms"  # the null that a forecast has to beat


@dataclass(frozen=True)
class Predictor:
    """A number of one task in one sum.

    Attributes
    ----------
    label : what figures and tables call it
    says : what it is, in words
    source : where it is from
    value : (how the updates meet, the sample) -> number; NaN where there is none
    """

    label: str
    says: str
    source: str
    value: Callable[[Meetings, Sample], float]


def _norms(met: Meetings, sample: Sample) -> float:
    squares = met.inner.diagonal()
    return math.sqrt(sum(squares[j] for j in sample.others) / squares[sample.task])


def _cosine(products: Floats, sample: Sample) -> float:
    """Of the task's own update and the sum of the others."""
    i, others = sample.task, list(sample.others)
    size = products[i, i] * products[np.ix_(others, others)].sum()
    return float(products[i, others].sum()) / math.sqrt(size) if size > 0 else math.nan


def _weight_cosine(met: Meetings, sample: Sample) -> float:
    return _cosine(met.inner, sample)


def _output_cosine(met: Meetings, sample: Sample) -> float:
    return _cosine(met.outputs[sample.task], sample)


def _output_size(met: Meetings, sample: Sample) -> float:
    products, others = met.outputs[sample.task], list(sample.others)
    own = products[sample.task, sample.task]
    return math.sqrt(max(float(products[np.ix_(others, others)].sum()), 0.0) / own) if own > 0 else math.nan


def _energy_ratio(met: Meetings, sample: Sample) -> float:
    every = [sample.task, *sample.others]
    products = met.inner[np.ix_(every, every)]
    return float(products.sum() / products.trace())


def _excess(side: str, met: Meetings, sample: Sample) -> float:
    values = met.paired[f"overlap_{side}"] - met.paired[f"overlap_{side}_control"]
    return float(np.mean(values[sample.task, list(sample.others)]))


def _interference(met: Meetings, sample: Sample) -> float:
    return met.interference[frozenset((sample.task, *sample.others))]


def _peer(name: str, met: Meetings, sample: Sample) -> float:
    return float(np.mean(met.peers[name][sample.task, list(sample.others)]))


_HERE = "this package"
PREDICTORS: Mapping[str, Predictor] = {
    NORMS: Predictor(
        "norm ratio",
        "the norm of the other updates over that of the task's own",
        "the null that a forecast has to beat",
        _norms,
    ),
    "cosine": Predictor(
        "cosine", "the signed cosine of the task's update and the sum of the others", _HERE, _weight_cosine
    ),
    "energy_ratio": Predictor(
        "energy ratio", "the energy of the sum over the sum of the energies", _HERE, _energy_ratio
    ),
    "overlap_left": Predictor(
        "overlap, left",
        "phi of the directions that are written, above that of other layers",
        _HERE,
        partial(_excess, "left"),
    ),
    "overlap_right": Predictor(
        "overlap, right",
        "phi of the directions that are read, above that of modules with the same input",
        _HERE,
        partial(_excess, "right"),
    ),
    "sti": Predictor(
        "STI",
        "singular task interference over that of random directions",
        "Gargiulo et al., arXiv 2412.00081",
        _interference,
    ),
    "cosine_functional": Predictor(
        "cosine of outputs",
        "the cosine of the outputs of the task's update and of the others on the task's inputs",
        _HERE,
        _output_cosine,
    ),
    "outputs": Predictor(
        "size of outputs",
        "the size of the others' outputs over that of the task's own on the task's inputs",
        _HERE,
        _output_size,
    ),
    "angle_cosine": Predictor(
        "angle cosine",
        "the mean cosine of principal angles on the left at 90 % of the energy",
        "as Gradience has it",
        partial(_peer, "angle_cosine"),
    ),
    "cka": Predictor(
        "CKA",
        "linear CKA of the updates, without centring",
        "after figure 2 of KnOTS, arXiv 2410.19735",
        partial(_peer, "cka"),
    ),
    "flattened": Predictor(
        "flattened cosine",
        "the cosine of the stored numbers of A and B in one row",
        "as vLoRA has it",
        partial(_peer, "flattened"),
    ),
    "root_overlap": Predictor(
        "root of overlap",
        "||V_1.T V_2||_F / sqrt(k) of the directions that are read",
        "as mergelens has it",
        partial(_peer, "root_overlap"),
    ),
}
