"""Is one module at a time in memory? Peak resident memory of compare, amplify and inspect, in a process of its own."""

from __future__ import annotations

import one_thread  # noqa: F401 - before NumPy

# isort: split
import json
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path

import made
import numpy as np
from side_by_side import folder, goal, machine, options, peak_of

import subspace

_W = "model.layers.{}.self_attn.{}.weight"


def base_model(path: Path, layers: int) -> Path:
    """File of bfloat16 q and v of some layers, 4096 x 4096."""
    tensors = {}
    for layer in range(layers):
        for name in ("q_proj", "v_proj"):
            W = np.random.default_rng(layer).standard_normal((4096, 4096), dtype=np.float32)
            tensors[_W.format(layer, name)] = made.narrowed(W, "bf16")
    return made.save(path, tensors, "bf16")


def _peak(
    run: Callable[..., object], arguments: tuple[str, ...], out: multiprocessing.SimpleQueue[float]
) -> None:
    run(*arguments[:1])  # imports and first calls, on the small file
    out.put(peak_of(lambda: run(*arguments)) or float("nan"))


def compared(first: str, second: str | None = None) -> object:
    """Compare two adapters, or one with itself."""
    return subspace.compare(first, second or first, side="all")


def amplified(delta: str, base: str | None = None) -> object:
    """Amplify over a base, or only open the adapter."""
    return subspace.amplify(base, delta) if base else subspace.inspect(delta)


def inspected(path: str, other: str | None = None) -> object:
    """Inspect one adapter."""
    return subspace.inspect(other or path)


def main() -> None:
    """Print each peak beside the size of the files and of one module in float64."""
    options(__doc__ or "", rounds=1).parse_args()
    if sys.platform != "linux":
        sys.exit("peak memory is read from /proc: Linux only")
    machine()
    with folder() as made_in:
        small = str(made.adapter(made_in / "small", r=8, d=64, layers=1))
        one, other = (str(path) for path in made.llama_pair(made_in, "bf16"))
        few = str(made.adapter(made_in / "few", r=8, d=4096, layers=4, dtype="bf16", seed=1))
        base = str(base_model(made_in / "model.safetensors", 4))
        files = Path(one, "adapter_model.safetensors"), Path(other, "adapter_model.safetensors")
        pair = sum(path.stat().st_size for path in files) / 2**20
        module = (8 + 64) * 2 * 4096 * 8 / 2**20
        cases = [
            ("compare --side all, 64 modules, r = 8 and 64", compared, (one, other), pair, 6 * module),
            ("inspect, 64 modules, r = 64", inspected, (small, other), pair * 64 / 72, 6 * module),
            (
                "amplify, 8 modules of 4096 x 4096 bf16",
                amplified,
                (few, base),
                Path(base).stat().st_size / 2**20,
                3 * 32.0,  # of stored W, 32 MB each
            ),
        ]
        context = multiprocessing.get_context("spawn")
        for what, run, arguments, size, most in cases:
            out = context.SimpleQueue()
            child = context.Process(target=_peak, args=(run, arguments, out))
            child.start()
            child.join()
            goal(f"{what}: peak MB, of files of {size:.0f} MB", out.get(), "<=", round(most))
    print(json.dumps({"one module of the pair in float64, A and B, MB": round(module, 1)}))


if __name__ == "__main__":
    main()
