"""Runs whose course is known, as arrays and as the folders that trainers leave."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

MODULES = [f"model.layers.{n}.self_attn.{p}_proj" for n in range(3) for p in "qv"]
D_IN, D_OUT, R = 40, 32, 4


def run(seed: int, strengths=(0.0, 0.3, 0.7, 1.0), *, r: int = R, modules=MODULES, start=None, turn=0):
    """A and B of every module at some steps: a random start of A, and a way that is walked by these shares.

    `turn` numbers another way from the same start.
    """
    begin, way = np.random.default_rng([seed]), np.random.default_rng([seed, 1, turn])
    steps = [{} for _ in strengths]
    for module in modules:
        A_0 = begin.standard_normal((r, D_IN)) if start is None else start[f"{module}.A"]
        B_0 = np.zeros((D_OUT, r)) if start is None else start[f"{module}.B"]
        dA, dB, bend = (way.standard_normal(shape) for shape in ((r, D_IN), (D_OUT, r), (D_OUT, r)))
        for step, share in zip(steps, strengths, strict=True):
            step[f"{module}.A"] = A_0 + 0.5 * share * dA
            step[f"{module}.B"] = B_0 + share * dB + 0.6 * share * (1 - share) * bend
    return steps


def peft_tensors(state):
    return {
        f"base_model.model.{key[:-2]}.lora_{key[-1]}.weight": value.astype(np.float32)
        for key, value in state.items()
    }


def write_peft(folder: Path, state, *, step: int | None = None, alpha: float = 8.0, r: int = R) -> Path:
    """A folder as PEFT writes it, with the Trainer's state where a step is given."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(peft_tensors(state), folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": r, "lora_alpha": alpha, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    if step is not None:
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": []}))
    return folder


def write_run(folder: Path, states, steps, *, final: bool = False, r: int = R) -> Path:
    """checkpoint-N for every step, and with `final` the last once more in the folder itself."""
    for state, step in zip(states, steps, strict=True):
        write_peft(folder / f"checkpoint-{step}", state, r=r)
    if final:
        write_peft(folder, states[-1], r=r)
    return folder
