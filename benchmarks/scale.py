"""A model of 7 billion parameters on a laptop: is cost linear in modules, memory two of them, a kill without a loss?"""

from __future__ import annotations

import one_thread  # noqa: F401 - before NumPy

# isort: split
import argparse
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import made
import numpy as np
from side_by_side import folder, goal, machine, options

_D, _LAYERS = 4096, 32  # q and v of LLaMA-7B: 64 modules, 2.1 GB in bfloat16
_MODULE = 2 * _D * _D / 2**20  # MB as stored


class Cost(NamedTuple):
    """Of one command: seconds, CPU seconds, peak memory in MB of its largest process, and what it printed."""

    wall: float
    cpu: float
    megabytes: float
    printed: bytes


def base_model(path: Path, layers: int) -> Path:
    """Weights of q and v of some layers in bfloat16: one matrix, its rows in another order in each."""
    W = made.narrowed(made.power_law(_D, power=0.5), "bf16")
    header, end = {}, 0
    for layer in range(layers):
        for name in ("q_proj", "v_proj"):
            begin, end = end, end + W.nbytes
            key = f"model.layers.{layer}.self_attn.{name}.weight"
            header[key] = {"dtype": "BF16", "shape": [_D, _D], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for n in range(2 * layers):
            file.write(W[np.random.default_rng(n).permutation(_D)].tobytes())
    return path


def cost(words: Sequence[str]) -> Cost:
    """Run `subspace amplify` in a process of its own."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, *(_resident(pid) for pid in (process.pid, *_children(process.pid))))
            time.sleep(0.02)
        printed = process.stdout.read() if process.stdout else b""
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.perf_counter() - began, used, peak, printed)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]
    except OSError:
        return []


def _resident(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return max((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), default=0.0)


def killed_and_resumed(words: list[str], file: Path, modules: int) -> bytes:
    """What the command prints after it was killed at a third and at two thirds of the modules."""
    words = [*words, "--resume", str(file)]
    for share in (1 / 3, 2 / 3):
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                if file.exists() and file.read_bytes().count(b"\n") > share * modules:
                    process.kill()
                time.sleep(0.02)
        print(f"  killed after {file.read_bytes().count(b'%c' % 10) - 1} of {modules} modules")
    return cost(words).printed


def command(base: Path, delta: Path, *more: str) -> list[str]:
    """Words of the command, without what an earlier run has found."""
    fixed = ["amplify", "--base", str(base), "--delta", str(delta), "--no-cache", "--json"]
    return [sys.executable, "-m", "subspace", *fixed, *more]


def _linear(base: Path, delta: Path, layers: int) -> Cost:
    few = cost(command(base, delta, "--layers", ",".join(map(str, range(layers // 4)))))
    many = cost(command(base, delta))
    for what, one in ((f"{layers // 2} modules", few), (f"{2 * layers} modules", many)):
        print(f"{what}: {one.cpu:.1f} s, {one.megabytes:.0f} MB")
    goal("four times as many modules over four times the time", many.cpu / few.cpu / 4, "<=", 1.1)
    goal("memory at four times as many modules over that at one", many.megabytes / few.megabytes, "<=", 1.1)
    goal(f"memory over two modules of {_MODULE:.0f} MB, MB", many.megabytes - 2 * _MODULE, "<=", 60)
    return many


def _shared(base: Path, delta: Path, one: Cost) -> None:
    two = cost(command(base, delta, "--jobs", "2"))
    print(f"two processes: {two.wall:.1f} s, one: {one.wall:.1f} s; each at most {two.megabytes:.0f} MB")
    print(f"  on cores of their own at best {2 * one.cpu / two.cpu:.2f} times as fast, by CPU time")
    goal("the same bytes from two processes (1 is yes)", float(two.printed == one.printed), ">=", 1)
    if os.getloadavg()[0] > 1:
        print("  others are using the cores: the next number says little")
    goal("two processes ahead of one, by the clock on the wall", one.wall / two.wall, ">=", 1.6)


def _kept(base: Path, delta: Path, made_in: Path) -> None:
    words = [word for word in command(base, delta) if word != "--no-cache"]
    os.environ["SUBSPACE_CACHE"] = str(made_in / "cache")
    first, second = cost(words), cost(words)
    os.environ["SUBSPACE_CACHE"] = "off"
    goal("what was found is kept: the first run over the second", first.cpu / second.cpu, ">=", 3)
    goal("the same bytes from what was kept (1 is yes)", float(first.printed == second.printed), ">=", 1)
    shutil.rmtree(made_in / "cache")


def main() -> None:
    """Print the cost of each, and whether a run that is killed ends with the same bytes."""
    parser: argparse.ArgumentParser = options(__doc__ or "", rounds=1)
    parser.add_argument(
        "--layers", type=int, default=_LAYERS, help="layers of the model (default %(default)s)"
    )
    layers = parser.parse_args().layers
    if sys.platform != "linux":
        sys.exit("peak memory is read from /proc: Linux only")
    machine()
    with folder() as made_in:
        base = base_model(made_in / "model.safetensors", layers)
        delta = made.adapter(made_in / "delta", r=8, d=_D, layers=layers)
        one = _linear(base, delta, layers)
        _shared(base, delta, one)
        same = killed_and_resumed(command(base, delta), made_in / "kept.jsonl", 2 * layers) == one.printed
        goal("the same bytes after two kills (1 is yes)", float(same), ">=", 1)
        _kept(base, delta, made_in)


if __name__ == "__main__":
    main()
