"""Adapters in memory and on disk for the conformance tests; nothing of the package is used to make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

Pair = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20210617)


@pytest.fixture
def lora() -> Callable[..., dict[str, np.ndarray]]:
    """The tensors of an adapter: module -> (B, A), in the order of the formula."""

    def make(factors: Mapping[str, Pair] | None = None, **named: Pair) -> dict[str, np.ndarray]:
        tensors = {}
        for module, (B, A) in {**(factors or {}), **named}.items():
            tensors[f"{module}.lora_A.weight"] = np.asarray(A)
            tensors[f"{module}.lora_B.weight"] = np.asarray(B)
        return tensors

    return make


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[..., Path]:
    """A tensors file written as others write it: safetensors, a torch file or npz."""

    def write(tensors: Mapping[str, Any], name: str = "adapter.safetensors") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        if path.suffix == ".safetensors":
            save_file(arrays, path)
        elif path.suffix == ".npz":
            np.savez(path, **arrays)
        else:
            import torch

            torch.save({key: torch.from_numpy(value) for key, value in arrays.items()}, path)
        return path

    return write
