"""What one call costs: operations, memory and time, and the memory that there is."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["available_bytes", "flops", "flops_by_module", "milliseconds", "peak_bytes", "safetensors_bytes"]

_CONTAINER = Path("/sys/fs/cgroup")
_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}


def flops(call: Callable[[], object]) -> int:
    """Return the floating-point operations of the matrix products, convolutions and attentions of one call.

    Notes
    -----
    Backward passes count too. A product of (n, k) and (k, m) is 2 n k m. Attention counts every pair of positions, also
    under a causal mask. torch's counter leaves out products in place and attention on a processor; they are counted
    here.
    """
    with FlopCounterMode(display=False, custom_mapping=_uncounted()) as counter:
        call()
    return int(counter.get_total_flops())


def flops_by_module(model: nn.Module, call: Callable[[], object]) -> dict[str, int]:
    """Return what `flops` counts by the name of each module that was called, with what is in it; "" for all.

    Parameters
    ----------
    model : whose modules are named
    call : which calls the model
    """
    with FlopCounterMode(display=False, custom_mapping=_uncounted()) as counter:
        call()
    # the counter's names begin with the class of the model that is called
    root = type(model).__name__
    counts = {name: sum(found.values()) for name, found in counter.get_flop_counts().items()}
    named = {name.removeprefix(f"{root}."): n for name, n in counts.items() if name not in ("Global", root)}
    return {**named, "": int(counts.get("Global", 0))}


def _uncounted() -> dict[Any, Callable[..., int]]:
    aten = torch.ops.aten
    return {
        aten.addmm_: _product,
        aten.baddbmm_: _product,
        aten._grouped_mm: _grouped,
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }


def _product(into: Any, first: Any, second: Any, **_: Any) -> int:
    batch = first[0] if len(first) == 3 else 1
    return int(2 * batch * first[-2] * first[-1] * second[-1])


def _grouped(first: Any, second: Any, *_: Any, **__: Any) -> int:
    """Products of the experts of a mixture: each row of the two-dimensional operand has a part in one of them."""
    experts = first[0] if len(first) == len(second) == 3 else 1
    return int(2 * experts * first[-2] * first[-1] * second[-1])


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """The products q k^T and p v."""
    return _pairs(query, key) * int(query[-1] + value[-1])


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Q k^T once more, and the gradients of p, v, q and k."""
    return _pairs(query, key) * int(3 * query[-1] + 2 * value[-1])


def _pairs(query: Any, key: Any) -> int:
    return int(2 * query[0] * query[1] * query[2] * key[2])


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes that tensors made during one call take at one time, without those from before.

    Notes
    -----
    On a processor the running sum of what torch's allocator gave and took back, as its profiler records it, which has
    what kernels use inside too; on CUDA the allocator's own peak.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return int(torch.cuda.max_memory_allocated(device) - before)
    with _quiet_profiler(), profile(use_cpu=True, profile_memory=True) as recorded:
        call()
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    changes = sorted(((event.start_ns(), event.nbytes()) for event in events), key=lambda change: change[0])
    return int(max(accumulate((nbytes for _, nbytes in changes), initial=0)))


@contextmanager
def _quiet_profiler() -> Iterator[None]:
    """The profiler's library writes two lines to stderr for each use, unless its level is above them at the first."""
    name = "KINETO_LOG_LEVEL"
    silent = name not in os.environ
    os.environ.setdefault(name, "6")
    try:
        yield
    finally:
        if silent:
            del os.environ[name]


def milliseconds(call: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of one call in milliseconds, with all that it started on the device."""
    _wait(device)
    began = time.perf_counter()
    call()
    _wait(device)
    return 1e3 * (time.perf_counter() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def safetensors_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the size of a safetensors file of these tensors, which is not written.

    References
    ----------
    github.com/huggingface/safetensors, README, "Format": 8 bytes, a header of JSON padded to 8 bytes, the data.
    """
    header, offset = {}, 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        code = _CODES.get(tensor.dtype, "F32")
        header[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-length // 8) * 8 + offset


def available_bytes(device: torch.device) -> int | None:
    """Return the bytes of memory that are free on a device, None where that is not known.

    Notes
    -----
    On a processor what Linux says, within the limit of a container (control groups, version 2).
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    known = [found for found in (_of_machine(), _of_container()) if found is not None]
    return min(known, default=None)


def _of_machine() -> int | None:
    try:
        return 1024 * _fields(Path("/proc/meminfo"))["MemAvailable:"]
    except (OSError, LookupError, ValueError):
        return None


def _of_container(folder: Path = _CONTAINER) -> int | None:
    try:
        limit, used = (int((folder / f"memory.{name}").read_text("ascii")) for name in ("max", "current"))
        return limit - used + _fields(folder / "memory.stat")["inactive_file"]
    except (OSError, LookupError, ValueError):  # no limit is the word "max"
        return None


def _fields(path: Path) -> dict[str, int]:
    rows = (line.split() for line in path.read_text("ascii").splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1}
