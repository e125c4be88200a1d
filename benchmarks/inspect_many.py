"""What does `subspace inspect` cost on files of very many modules, and on a folder of ordinary adapters?"""

from __future__ import annotations

import one_thread  # noqa: F401 - before NumPy

# isort: split
import json
import sys
from pathlib import Path

import made
import numpy as np
from side_by_side import child_cpu, folder, goal, machine, measured, options, table


def many_modules(path: Path, count: int) -> Path:
    """One file of `count` modules of rank 4 between 16 and 16 dimensions, with a configuration beside it."""
    path.mkdir()
    rng = np.random.default_rng(count)
    A, B = (rng.standard_normal((count, *shape), dtype=np.float32) for shape in ((4, 16), (16, 4)))
    tensors = {}
    for n in range(count):
        stem = f"base_model.model.model.layers.{n // 8}.experts.{n % 8}.w1"
        tensors[f"{stem}.lora_A.weight"], tensors[f"{stem}.lora_B.weight"] = A[n], B[n]
    made.save(path / "adapter_model.safetensors", tensors, "fp32")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    (path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


def main() -> None:
    """Measure the whole command with --json, one process each."""
    arguments = options(__doc__ or "", rounds=3).parse_args()
    machine()
    command = [str(Path(sys.executable).with_name("subspace")), "inspect", "--json"]
    with folder() as made_in:
        cases = {
            f"{n} modules in one file": [str(many_modules(made_in / f"n{n}", n))] for n in (10_000, 100_000)
        }
        cases["40 files, 64 modules each, d = 1024, r = 8"] = [
            str(made.adapter(made_in / f"a{n}", r=8, d=1024, layers=32, seed=n)) for n in range(40)
        ]
        times = measured(
            {name: lambda paths=paths: child_cpu([*command, *paths]) for name, paths in cases.items()},
            rounds=arguments.rounds,
            clock=lambda run: float(run()),  # type: ignore[arg-type]
        )
    first, second, folders = times
    table(times, first)
    goal("100 000 modules, seconds", times[second].median / 1e3, "<=", 60)
    goal("milliseconds a module, 100 000 in one file", times[second].median / 100_000, "<=", 0.3)
    goal(
        "ten times the modules, over ten times the time",
        times[second].median / times[first].median / 10,
        "<=",
        1.2,
    )
    goal("milliseconds a module, 40 files", times[folders].median / (40 * 64), "<=", 2)


if __name__ == "__main__":
    main()
