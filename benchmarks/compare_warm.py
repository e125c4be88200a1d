"""How far is a warm `subspace.compare` ahead of the usual scripts and of its limit, and what do controls cost?"""

from __future__ import annotations

import one_thread  # noqa: F401 - before NumPy

# isort: split
import json
import mmap
import struct
from collections.abc import Callable
from pathlib import Path

import made
import numpy as np
import torch
from side_by_side import folder, goal, machine, measured, options, table

import subspace

_SAMPLE = 3  # modules on which the slow scripts are timed; they repeat the same work for every module
_MODULES = 64


def stored_A(path: Path) -> list[np.ndarray]:
    """Every A of an adapter as it lies in the mapped file, float32 or the bits of bfloat16."""
    with (path / "adapter_model.safetensors").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    (size,) = struct.unpack("<Q", mapped[:8])
    header = json.loads(mapped[8 : 8 + size])
    held = {"F32": np.float32, "BF16": np.uint16}
    return [
        np.frombuffer(mapped, held[entry["dtype"]], int(np.prod(entry["shape"])), 8 + size + entry["data_offsets"][0])
        .reshape(entry["shape"])
        for key, entry in header.items()
        if ".lora_A." in key
    ]  # fmt: skip


def widened(stored: np.ndarray) -> np.ndarray:
    """Return float32 of one stored matrix."""
    return stored if stored.dtype == np.float32 else (stored.astype(np.uint32) << 16).view(np.float32)


def naive(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    """NumPy thin SVD of each A, then phi(i, j) by the formula in a double loop."""
    for A1, A2 in zip(first[:_SAMPLE], second[:_SAMPLE], strict=True):
        U1 = np.linalg.svd(widened(A1), full_matrices=False)[2].T
        U2 = np.linalg.svd(widened(A2), full_matrices=False)[2].T
        phi = np.zeros((U1.shape[1], U2.shape[1]))
        for i in range(1, phi.shape[0] + 1):
            for j in range(1, phi.shape[1] + 1):
                phi[i - 1, j - 1] = np.linalg.norm(U1[:, :i].T @ U2[:, :j], "fro") ** 2 / min(i, j)


def published(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    """Torch thin SVD of each A, then the singular values of U_i^T U_j for every cell, as published scripts do."""
    for A1, A2 in zip(first[:_SAMPLE], second[:_SAMPLE], strict=True):
        U1 = torch.linalg.svd(torch.tensor(widened(A1)), full_matrices=False)[2].T
        U2 = torch.linalg.svd(torch.tensor(widened(A2)), full_matrices=False)[2].T
        phi = np.zeros((U1.shape[1], U2.shape[1]))
        for i in range(1, phi.shape[0] + 1):
            for j in range(1, phi.shape[1] + 1):
                sigma = torch.linalg.svdvals(U1[:, :i].T @ U2[:, :j])
                phi[i - 1, j - 1] = float((sigma**2).sum()) / min(i, j)


def limit(first: list[np.ndarray], second: list[np.ndarray]) -> Callable[[], None]:
    """Read every byte of the A factors, and one float32 symmetric product of each stacked pair."""
    stacked = [np.vstack([widened(A1), widened(A2)]) for A1, A2 in zip(first, second, strict=True)]

    def run() -> None:
        for stored in (*first, *second):
            stored.view(np.uint32).sum(dtype=np.uint32)
        for X in stacked:
            X @ X.T

    return run


def main() -> None:
    """Compare on float32 and bfloat16 files."""
    torch.set_num_threads(1)
    arguments = options(__doc__ or "", rounds=9).parse_args()
    machine()
    with folder() as made_in:
        for dtype in ("fp32", "bf16"):
            paths = made.llama_pair(made_in, dtype)
            one, other = (subspace.load_adapter(path) for path in paths)
            first, second = (stored_A(path) for path in paths)
            times = measured(
                {
                    "limit: read A + float32 syrk": limit(first, second),
                    "subspace.compare": lambda one=one, other=other: subspace.compare(one, other),
                    "without controls": lambda one=one, other=other: subspace.compare(
                        one, other, controls="none"
                    ),
                    "naive script": lambda first=first, second=second: naive(first, second),
                    "published script": lambda first=first, second=second: published(first, second),
                },
                rounds=arguments.rounds,
            )
            scaled = dict.fromkeys(("naive script", "published script"), _MODULES / _SAMPLE)
            print(
                f"r = 8 and 64, {_MODULES} modules, d = 4096, {dtype}; the scripts on {_SAMPLE} modules, scaled"
            )
            table(times, "subspace.compare", scaled=scaled)
            ours = times["subspace.compare"].median
            for script in scaled:
                goal(
                    f"{dtype}: ahead of the {script}", times[script].median * scaled[script] / ours, ">=", 25
                )
            goal(
                f"{dtype}: over compare without controls", ours / times["without controls"].median, "<=", 1.5
            )
            goal(f"{dtype}: over the limit", ours / times["limit: read A + float32 syrk"].median, "<=", 2)
            print()


if __name__ == "__main__":
    main()
