"""Contenders side by side: one BLAS thread, the CPU clock, rounds interleaved, medians, ratios.

On a shared machine wall times of one call swing tenfold while the ratio of two interleaved
medians of CPU time stays; so ratios are what the tables are about, and the milliseconds only say of what order.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import NamedTuple

_STATUS = Path("/proc/self/status")


class Times(NamedTuple):
    """Median, least and most CPU milliseconds of one contender."""

    median: float
    least: float
    most: float


def options(about: str, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser that knows --rounds."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--rounds", type=int, default=rounds, help="interleaved rounds (default %(default)s)")
    return parser


def measured(
    contenders: dict[str, Callable[[], object]],
    *,
    rounds: int,
    clock: Callable[[Callable[[], object]], float] | None = None,
    warm: bool = True,
) -> dict[str, Times]:
    """CPU times of every contender; each round runs all of them once, in an order that turns."""
    clock = clock or cpu_time
    if warm:
        for run in contenders.values():
            run()
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for n in range(rounds):
        for name in names[n % len(names) :] + names[: n % len(names)]:
            gc.collect()
            taken[name].append(1e3 * clock(contenders[name]))
    return {name: Times(statistics.median(t), min(t), max(t)) for name, t in taken.items()}


def cpu_time(run: Callable[[], object]) -> float:
    """Seconds of CPU that this process spends in one call."""
    began = time.process_time()
    run()
    return time.process_time() - began


def child_cpu(command: Sequence[str], **environment: str) -> float:
    """Seconds of CPU, user and system, of a command."""
    with TemporaryFile("w+", encoding="utf-8") as told:
        child = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=told
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            told.seek(0)
            sys.exit(f"{' '.join(command)} ended with {child.returncode}:\n{told.read()[-2000:]}")
    return used.ru_utime + used.ru_stime


def table(times: dict[str, Times], over: str, *, scaled: dict[str, float] | None = None) -> None:
    """Print milliseconds and the ratio of every contender over one of them."""
    scaled = scaled or {}
    base = times[over].median * scaled.get(over, 1.0)
    width = max(map(len, times))
    print(f"{'':{width}}  {'median':>9}  {'least':>9}  {'most':>9}  ratio")
    for name, row in times.items():
        median, least, most = (value * scaled.get(name, 1.0) for value in row)
        note = f"  (scaled x{scaled[name]:.3g})" if name in scaled else ""
        print(f"{name:{width}}  {median:9.1f}  {least:9.1f}  {most:9.1f}  {median / base:5.2f}{note}")


def goal(what: str, got: float, relation: str, wanted: float) -> None:
    """Print one goal and whether it is met."""
    met = got >= wanted if relation == ">=" else got <= wanted
    print(f"  {'met ' if met else 'MISS'}  {what}: {got:.2f} (goal {relation} {wanted:g})")


def machine() -> None:
    """Print processor, load and versions."""
    names = ("numpy", "scipy", "torch", "click", "lora-subspace")
    versions = ", ".join(f"{name} {_version(name)}" for name in names)
    print(
        f"{_processor()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; one BLAS thread, CPU time, ms"
    )
    print(f"Python {platform.python_version()}, {versions}\n")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


@contextmanager
def folder() -> Iterator[Path]:
    """Give a temporary directory that is gone afterwards."""
    with TemporaryDirectory(prefix="subspace-bench-") as name:
        yield Path(name)


def peak_of(run: Callable[[], object]) -> float | None:
    """Peak resident megabytes of this process during a call, above those before it; None where not Linux.

    From VmHWM after a reset, since `ru_maxrss` survives `exec` and never falls.
    """
    if not _STATUS.exists():
        return None
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _resident("VmRSS")
    run()
    return _resident("VmHWM") - before


def _resident(field: str) -> float:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return float("nan")
