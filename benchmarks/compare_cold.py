"""What does the whole command `subspace compare` cost, from the shell, beside scripts and a peer?"""

from __future__ import annotations

import one_thread  # noqa: F401 - before NumPy

# isort: split
import shutil
import sys
from pathlib import Path

import made
from compare_warm import limit, stored_A
from side_by_side import child_cpu, cpu_time, folder, goal, machine, measured, options, table

_NAIVE = """
import sys
import numpy as np
import torch
from matplotlib import pyplot as plt
from safetensors.torch import load_file

first, second = (load_file(path + "/adapter_model.safetensors") for path in sys.argv[1:])
for key in first:
    if "lora_A" in key:
        U1 = np.linalg.svd(first[key].float().numpy(), full_matrices=False)[2].T
        U2 = np.linalg.svd(second[key].float().numpy(), full_matrices=False)[2].T
        phi = np.zeros((U1.shape[1], U2.shape[1]))
        for i in range(1, phi.shape[0] + 1):
            for j in range(1, phi.shape[1] + 1):
                phi[i - 1, j - 1] = np.linalg.norm(U1[:, :i].T @ U2[:, :j], "fro") ** 2 / min(i, j)
        print(key, phi[0, 0], phi[-1, -1])
"""
_IMPORTS = "import click, numpy"
_OURS = "subspace compare"
_LIMIT = "limit (in process): read A + float32 syrk"


def commands(first: Path, second: Path, script: Path, gradience: Path | None) -> dict[str, list[str]]:
    """Return the command line of every contender; the report of gradience goes to the temporary folder."""
    found = {
        _IMPORTS: [sys.executable, "-c", _IMPORTS],
        _OURS: [str(Path(sys.executable).with_name("subspace")), "compare", str(first), str(second)],
        "naive script": [sys.executable, str(script), str(first), str(second)],
    }
    if gradience is not None:
        found["gradience merge-audit"] = [
            *(str(gradience), "-m", "gradience", "merge-audit", "--json"),
            *(
                "--adapter-a",
                str(first),
                "--adapter-b",
                str(second),
                "--output-dir",
                str(script.parent / "out"),
            ),
        ]
    return found


def main() -> None:
    """Compare on float32 and bfloat16 files; warm files, cold processes."""
    parser = options(__doc__ or "", rounds=7)
    parser.add_argument(
        "--gradience-python", type=Path, metavar="PYTHON", help="of an environment with gradience"
    )
    arguments = parser.parse_args()
    machine()
    if arguments.gradience_python is None:
        print("gradience is not measured: give --gradience-python\n")
    elif shutil.which(arguments.gradience_python) is None:
        parser.error(f"{arguments.gradience_python} is not a Python")
    with folder() as made_in:
        script = made_in / "naive.py"
        script.write_text(_NAIVE, encoding="utf-8")
        for dtype in ("fp32", "bf16"):
            one, other = made.llama_pair(made_in, dtype)
            runs = {
                name: lambda command=command: child_cpu(command)
                for name, command in commands(one, other, script, arguments.gradience_python).items()
            }
            within = limit(stored_A(one), stored_A(other))
            times = measured(
                {**runs, _LIMIT: lambda within=within: cpu_time(within)},
                rounds=arguments.rounds,
                clock=lambda run: float(run()),  # type: ignore[arg-type]
            )
            print(f"r = 8 and 64, 64 modules, d = 4096, {dtype}; user + system time of the process")
            table(times, _OURS)
            ours, imports, least = (times[name].median for name in (_OURS, _IMPORTS, _LIMIT))
            goal(f"{dtype}: over twice the import line plus the limit", ours / (2 * imports + least), "<=", 1)
            goal(f"{dtype}: ahead of the naive script", times["naive script"].median / ours, ">=", 20)
            if "gradience merge-audit" in times:
                goal(f"{dtype}: ahead of gradience", times["gradience merge-audit"].median / ours, ">=", 8)
            print()


if __name__ == "__main__":
    main()
