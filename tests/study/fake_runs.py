"""Directories as ``subspace train`` leaves them, of adapters with a planted direction in common; nothing is trained.

The controls have their own: of another text, and barely trained, nothing is planted.
"""

from __future__ import annotations

import json

import numpy as np

from subspace.training import save_peft

D, LAYERS = 256, 4
# how much of what is planted each text has
_COMMON = {"": 1.0, "scrambled-words": 0.8, "c-headers": 0.6}


def make(plan, folder, *, planted=3.0):
    """Write the runs of a plan: A = start + what is common, B of what is common and noise."""
    common = np.random.default_rng(99)
    modules = {
        f"model.layers.{n}.self_attn.{name}": (common.standard_normal(D), common.standard_normal(D))
        for n in range(LAYERS)
        for name in vars(plan.names).values()
    }
    for number, run in enumerate(plan.runs):
        strength = 0.0 if run.barely else planted * _COMMON.get(run.text, 0.0)
        rng = np.random.default_rng(number)
        begun, ended = {}, {}
        for module, (u, v) in modules.items():
            if not module.endswith(plan.targets(run)):
                continue
            A = rng.uniform(-1, 1, (run.rank, D)) / np.sqrt(D)
            weights = rng.standard_normal(run.rank)
            begun[module] = A, np.zeros((D, run.rank))
            B = strength * np.outer(u, weights) / D + 0.01 * rng.standard_normal((D, run.rank))
            ended[module] = A + strength * np.outer(weights, v) / np.sqrt(D), B
        out = folder / run.name
        save_peft(out, ended, alpha=plan.recipe.alpha)
        save_peft(out / "start", begun, alpha=plan.recipe.alpha)
        (out / "run.json").write_text(json.dumps(_record(plan, run, number)))
    return folder


def _record(plan, run, number):
    held_out = {
        "before": {"loss": 5.0, "bits_per_byte": 7.2},
        "after": {"loss": 2.0 + number / 100, "bits_per_byte": 2.9},
    }
    return {
        "schema": "subspace.train/1",
        "data": "466,195 bytes of text",
        "trainable": run.rank * 2 * D * len(run.weights) * LAYERS,
        "settings": {"steps": plan.steps(run), "batch": plan.batch(run)},
        "held_out": held_out if run.held_out else {"before": {}, "after": {}},
        "done": True,
    }
