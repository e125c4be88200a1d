"""Do time and memory grow in proportion? Very many modules, very many adapters, a base far larger than the memory."""

from __future__ import annotations

import one_thread  # noqa: F401 - before NumPy

# isort: split
import json
import resource
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import made
import numpy as np
from inspect_many import many_modules
from side_by_side import folder, goal, machine, options

_SUBSPACE = str(Path(sys.executable).with_name("subspace"))
_D, _LAYERS = 4096, 320  # 320 layers of q and v in bfloat16 are 21 GB


class Cost(NamedTuple):
    """Of one command: CPU seconds, and its peak memory in MB."""

    seconds: float
    megabytes: float


def cost(*words: str) -> Cost:
    """Run a command in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(
        [_SUBSPACE, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            time.sleep(0.02)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak)


def _resident(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return max((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), default=0.0)


def copies(path: Path, count: int) -> list[str]:
    """Paths of `count` small adapters."""
    first = many_modules(path, 8)
    paths = [path.with_name(f"{path.name}-{n}") for n in range(count)]
    for other in paths:
        shutil.copytree(first, other)
    return [str(other) for other in paths]


def sparse_base(path: Path) -> Path:
    """A file of base weights of 21 GB, of which only layer 0 is on the disk."""
    header, end = {}, 0
    for layer in range(_LAYERS):
        for name in ("q_proj", "v_proj"):
            begin, end = end, end + 2 * _D * _D
            key = f"model.layers.{layer}.self_attn.{name}.weight"
            header[key] = {"dtype": "BF16", "shape": [_D, _D], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for n in range(2):
            W = np.random.default_rng(n).standard_normal((_D, _D), dtype=np.float32)
            file.write(made.narrowed(W, "bf16").tobytes())
        file.truncate(8 + len(text) + end)
    return path


def main() -> None:
    """Print the cost of each, and the cost of ten times as much over ten times the cost."""
    options(__doc__ or "", rounds=1).parse_args()
    if sys.platform != "linux":
        sys.exit("peak memory is read from /proc: Linux only")
    machine()
    with folder() as made_in:
        for what, few, many in _growing(made_in):
            for name, one in ((few[0], few[1]), (many[0], many[1])):
                print(f"{what}, {name}: {one.seconds:.1f} s, {one.megabytes:.0f} MB")
            goal(
                f"{what}, ten times as much over ten times the time",
                many[1].seconds / few[1].seconds / 10,
                "<=",
                1.2,
            )
            goal(
                f"{what}, ten times as much over ten times the memory",
                many[1].megabytes / few[1].megabytes / 10,
                "<=",
                1,
            )
        base = sparse_base(made_in / "base.safetensors")
        delta = made.adapter(made_in / "delta", r=8, d=_D, layers=1, seed=0)
        one = cost("amplify", "--base", str(base), "--delta", str(delta))
        print(
            f"amplify over a base of {base.stat().st_size / 1e9:.0f} GB: {one.seconds:.1f} s, {one.megabytes:.0f} MB"
        )
        goal("memory over a base of 21 GB, MB", one.megabytes, "<=", 300)


def _growing(made_in: Path) -> list[tuple[str, tuple[str, Cost], tuple[str, Cost]]]:
    few, many = (str(many_modules(made_in / f"m{n}", n)) for n in (10_000, 100_000))
    paths = copies(made_in / "a", 10_000)
    return [
        (
            "compare",
            ("10 000 modules", cost("compare", few, few, "--json")),
            ("100 000 modules", cost("compare", many, many, "--json")),
        ),
        (
            "inspect",
            ("1 000 adapters", cost("inspect", "--json", *paths[:1000])),
            ("10 000 adapters", cost("inspect", "--json", *paths)),
        ),
    ]


if __name__ == "__main__":
    main()
