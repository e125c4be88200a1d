"""Directories as ``subspace train`` leaves them, of adapters with a planted direction in common; nothing is trained."""

from __future__ import annotations

import json

import numpy as np

from subspace.training import save_peft

D, LAYERS = 256, 4


def make(plan, folder, *, planted=3.0):
    """Write the runs of a plan: A = start + what is common, B of what is common and noise."""
    common = np.random.default_rng(99)
    modules = {
        f"model.layers.{n}.self_attn.{name}": (common.standard_normal(D), common.standard_normal(D))
        for n in range(LAYERS)
        for name in vars(plan.names).values()
    }
    for number, run in enumerate(plan.runs):
        rng = np.random.default_rng(number)
        begun, ended = {}, {}
        for module, (u, v) in modules.items():
            if not module.endswith(plan.targets(run)):
                continue
            A = rng.uniform(-1, 1, (run.rank, D)) / np.sqrt(D)
            weights = rng.standard_normal(run.rank)
            begun[module] = A, np.zeros((D, run.rank))
            B = planted * np.outer(u, weights) / D + 0.01 * rng.standard_normal((D, run.rank))
            ended[module] = A + planted * np.outer(weights, v) / np.sqrt(D), B
        out = folder / run.name
        save_peft(out, ended, alpha=plan.recipe.alpha)
        save_peft(out / "start", begun, alpha=plan.recipe.alpha)
        (out / "run.json").write_text(json.dumps(_record(run, number)))
    return folder


def _record(run, number):
    return {
        "schema": "subspace.train/1",
        "data": "466,195 bytes of text",
        "trainable": run.rank * 2 * D * len(run.weights) * LAYERS,
        "held_out": {
            "before": {"loss": 5.0, "bits_per_byte": 7.2},
            "after": {"loss": 2.0 + number / 100, "bits_per_byte": 2.9},
        },
        "done": True,
    }
