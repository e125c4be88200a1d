"""Does every test hold its level, and what does it see? Simulated rejection rates over shapes, inputs and stored types.

Writes one row a case to a CSV file. A rate of a test under its own null is read against the nominal level: "nominal" as
far as the draws can tell (three standard errors), "below" (conservative) or "above" (the test claims too much). Other
rates are power, or how often a test rejects where its null does not hold although nothing was learned in common.
"""

from __future__ import annotations

import one_thread  # noqa: F401 - before NumPy

# isort: split
import argparse
import csv
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr, bdtrc
from simulated import INPUTS, STARTS, Inputs, Module, frames, largest_cos2

from subspace.geometry import chance
from subspace.geometry.permutation import layers_p, reference_p
from subspace.geometry.row_alignment import combined, row_alignment, start_verdict

_STORED = ("float32", "float16", "bfloat16")
_LEVELS = (0.05, 0.01)
_UNLIKELY = 0.00135  # beyond three standard errors on one side
_STRONG = Inputs(1, 0.3)


class Row(NamedTuple):
    """One rejection rate; `nominal` is NaN where it is not a size."""

    test: str
    rate_of: str
    shape: str
    inputs: str
    moved: str
    stored: str
    nominal: float
    rate: float
    draws: int

    @property
    def reading(self) -> str:
        """The rate against the nominal level."""
        if math.isnan(self.nominal):
            return ""
        rejected = round(self.rate * self.draws)
        if self.nominal > 0 and bdtr(rejected, self.draws, self.nominal) < _UNLIKELY:
            return "below"
        if rejected and bdtrc(rejected - 1, self.draws, self.nominal) < _UNLIKELY:
            return "above"
        return "nominal"


def rate(rejected: Iterable[object]) -> tuple[float, int]:
    """Share of the draws that reject, and how many they are."""
    found = np.asarray(list(rejected), dtype=bool)
    return float(found.mean()), len(found)


def generator(*label: object) -> np.random.Generator:
    """A generator of the case's own, so that a case gives the same numbers whatever else is run."""
    return np.random.default_rng(zlib.crc32(repr(label).encode()))


def isotropic_p(cos2: float, i: int, j: int, d: int) -> float:
    """p-value of the first shared direction: the only call of the test in this file."""
    return float(chance.shared_dimension_p([cos2] + [0.0] * (min(i, j) - 1), i, j, d)[0])


@cache
def critical(level: float, i: int, j: int, d: int) -> float:
    """Least squared cosine that the test rejects; p falls with it, so that no draw needs a p-value of its own."""
    low, high = 0.0, 1.0
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (low, middle) if isotropic_p(middle, i, j, d) <= level else (middle, high)
    return high


def isotropic_size(draws: Callable[[int], int]) -> Iterator[Row]:
    """The shared-dimension test where both spans are random: by the exact sampler, then by stored matrices."""
    sizes = [
        (1, 1, 8),
        (1, 4, 64),
        (2, 2, 8),
        (2, 2, 64),
        (2, 2, 768),
        (4, 4, 16),
        (4, 4, 4096),
        (4, 16, 256),
    ]
    sizes += [(8, 8, 64), (8, 8, 128), (8, 8, 768), (8, 8, 4096), (8, 64, 128), (8, 64, 768), (8, 64, 4096)]
    sizes += [(16, 16, 64), (16, 40, 64), (16, 16, 1024), (32, 32, 256), (64, 64, 256), (64, 64, 4096)]
    for i, j, d in sizes:
        n = draws(20_000 if i <= 8 else 6000 if i <= 32 else 2000)
        top = chance.sample_cos2(i, j, d, n=n, rng=generator("sampler", i, j, d))[:, 0]
        for level in _LEVELS:
            found = rate(top >= critical(level, i, j, d))
            yield Row("shared dimension", "random spans", f"{i} {j} {d}", "", "", "", level, *found)
    for r, d, n in ((2, 8, 5000), (4, 64, 5000), (8, 128, 5000), (16, 1024, 400)):
        for kind in STARTS:
            for dtype in _STORED:
                module = Module(d, Inputs(), generator("stored", r, d, kind, dtype))
                pair = (module.adapters(draws(n), r, 0.0, kind=kind, dtype=dtype) for _ in range(2))
                found = rate(largest_cos2(*pair) >= critical(0.05, r, r, d))
                yield Row("shared dimension", f"{kind} starts", f"{r} {r} {d}", "", "0", dtype, 0.05, *found)


def isotropic_inputs(draws: Callable[[int], int]) -> Iterator[Row]:
    """The same test where nothing is shared but the module's inputs: its null does not hold, nor is it a finding."""
    cases = [(8, 8, 128, inputs, moved) for inputs in INPUTS for moved in (0.35, 1.2, 1.73)]
    cases += [
        (i, j, d, inputs, 1.2)
        for i, j, d in ((1, 1, 128), (4, 4, 768), (8, 8, 768), (8, 64, 768), (64, 64, 512), (16, 16, 4096))
        for inputs in (Inputs(), Inputs(1), Inputs(0, 0.3), Inputs(0, 0.7), Inputs(2))
    ]
    for i, j, d, inputs, moved in cases:
        n = draws(2000 if d == 128 else 400 if j * d < 5e4 else 120)
        top: list[float] = []
        for _ in range(
            0, n, 40
        ):  # a module of its own for every 40 pairs, so that its mean direction is random too
            module = Module(d, inputs, generator("inputs", i, j, d, inputs, moved, len(top)))
            top += list(largest_cos2(module.adapters(40, i, moved), module.adapters(40, j, moved)))
        for level in _LEVELS:
            found = rate(np.array(top) >= critical(level, i, j, d))
            shape = f"{i} {j} {d}"
            row = Row(
                "shared dimension",
                "shared inputs alone",
                shape,
                str(inputs),
                f"{moved:g}",
                "float32",
                level,
                *found,
            )
            # only without learning, or with isotropic inputs, is it a size
            yield (
                row
                if inputs == Inputs()
                else row._replace(rate_of=f"{row.rate_of}, at {level}", nominal=math.nan)
            )


def start_in_common(draws: Callable[[int], int]) -> Iterator[Row]:
    """Row alignment: different starts (size), and a start in common (power), by module and by file of 12 modules."""
    shapes = [
        (2, 2, 64),
        (4, 4, 8),
        (4, 4, 64),
        (4, 4, 4096),
        (8, 8, 64),
        (8, 8, 768),
        (8, 8, 4096),
        (16, 16, 256),
    ]
    shapes += [(64, 64, 64), (64, 64, 768), (64, 64, 4096), (4, 8, 768), (8, 64, 768)]
    for shape in shapes:
        for inputs in (Inputs(), Inputs(1, 0.7), Inputs(2)):
            for moved in (0.35, 1.73):
                yield from _alignments(draws, shape, inputs, moved, "uniform", "float32")
    for kind in STARTS:
        for dtype in _STORED:
            yield from _alignments(draws, (8, 8, 768), _STRONG, 1.04, kind, dtype)


def _alignments(
    draws: Callable[[int], int],
    shape: tuple[int, int, int],
    inputs: Inputs,
    moved: float,
    kind: str,
    dtype: str,
) -> Iterator[Row]:
    i, j, d = shape
    n = 12 * max(2, draws(240 if j * d < 2e4 else 48 if j * d < 5e4 else 24) // 12)
    module = Module(d, inputs, generator("start", shape, inputs, moved, kind, dtype))
    null, alike = [], []
    for _ in range(n):
        pair = (module.adapters(1, r, moved, kind=kind, dtype=dtype)[0] for r in (i, j))
        null.append(row_alignment(*pair))
        pair = (A[0] for A in module.common(1, (i, j), moved, kind=kind, dtype=dtype))
        alike.append(row_alignment(*pair))
    case = (f"{i} {j} {d}", str(inputs), f"{moved:g}", dtype)

    def row(rate_of: str, rejected: Iterable[object], nominal: float = math.nan) -> Row:
        return Row("row alignment", f"{rate_of}, {kind} starts", *case, nominal, *rate(rejected))

    if i > 2:  # of two rows z is a sign
        yield row("different: |z| > 1.96", (abs(one.z) > 1.96 for one in null), 0.05)
    for name, found in (("different", null), ("common", alike)):
        files = [combined(found[k : k + 12]) for k in range(0, n, 12)]
        for what, ones in (("module", found), ("file of 12", files)):
            for verdict in ("common", "different"):
                yield row(f"{name}: {what} called {verdict}", (start_verdict(one) == verdict for one in ones))


def layers(draws: Callable[[int], int]) -> Iterator[Row]:
    """The permutation of layers: all with the same inputs (size), or each with its own (nothing else is shared)."""
    r, d, n = 4, 64, draws(2000)
    for L in (3, 4, 5, 7, 12, 32):
        floor = layers_p(np.eye(L))[1]
        for own in (False, True):
            p = []
            for k in range(n if not own else n // 4):
                rng = generator("layers", L, own, k)
                modules = [Module(d, _STRONG, rng) for _ in range(L if own else 1)] * (1 if own else L)
                first, second = (np.concatenate([m.adapters(1, r, 1.04) for m in modules]) for _ in range(2))
                p.append(layers_p(similarities(first, second), seed=k)[0])
            for level in _LEVELS:
                # the greatest level that p can reach
                reached = math.floor(level / floor + 1e-9) * floor
                what = "inputs of each layer's own" if own else f"layers alike, at {level:g}, reachable"
                row = Row(
                    "layers",
                    what if not own else f"{what}, at {level:g}",
                    f"{r} {r} {d}, {L} layers",
                    str(_STRONG),
                    "1.04",
                    "float32",
                    math.nan if own else reached,
                    *rate(np.array(p) <= level + 1e-12),
                )
                yield row


def similarities(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Phi of the whole spans, every A of the first with every one of the second, shape (n, m)."""
    (n, r, d), m = first.shape, len(second)
    G = frames(first).reshape(-1, d) @ frames(second).reshape(-1, d).T
    return (G.reshape(n, r, m, r) ** 2).sum(axis=(1, 3)) / r


def references(draws: Callable[[int], int]) -> Iterator[Row]:
    """A pair among reference adapters, all of unrelated tasks: exchangeable (size), or trained longer, or shorter."""
    r, d, modules = 4, 64, 4
    moves = {
        "all moved alike": lambda rng, N: np.full(N, 1.04),
        "each moved by its own": lambda rng, N: 1.04 * rng.lognormal(0, 0.7, N),
        "pair 1.73, references 0.35": lambda rng, N: np.r_[1.73, 1.73, np.full(N - 2, 0.35)],
        "pair 0.35, references 1.73": lambda rng, N: np.r_[0.35, 0.35, np.full(N - 2, 1.73)],
    }
    for n_references in (4, 19, 39):
        N = n_references + 2
        for name, moved in moves.items():
            found = []
            for k in range(draws(2000)):
                rng = generator("references", N, name, k)
                ratio, S = moved(rng, N)[:, None, None], np.zeros((N, N))
                for _ in range(modules):
                    module = Module(d, _STRONG, rng)
                    A = module.learned(module.start(N, r), ratio)
                    S += similarities(A, A) / modules
                found.append(reference_p(S))
            for field, least in (
                ("second", found[0].floor),
                ("first", found[0].floor),
                ("pairs", found[0].floor_pairs),
            ):
                level = 0.05
                exchangeable = not name.startswith("pair")
                reached = math.floor(level / least + 1e-9) * least
                yield Row(
                    "reference adapters",
                    f"p of {field}, at {level:g}" + ", reachable" * exchangeable,
                    f"{r} {r} {d}, {n_references} references",
                    str(_STRONG),
                    name,
                    "float64",
                    reached if exchangeable else math.nan,
                    *rate(getattr(one, field) <= level + 1e-12 for one in found),
                )


def families(draws: Callable[[int], int]) -> Iterator[Row]:
    """Holm over the modules of a file: some direction claimed, with independent, correlated and shared matrices."""
    r, d, n = 4, 64, draws(4000)
    for m in (12, 24, 96):
        for name in ("independent", "correlated", "three modules share an A"):
            rng, tops = generator("families", m, name), []
            for _ in range(0, n, 100):
                pair = []
                for _ in range(2):
                    A = rng.standard_normal((100, m, r, d))
                    if name == "correlated":  # cosine 0.8 of the rows of any two modules of one adapter
                        A = 2 * rng.standard_normal((100, 1, r, d)) + A
                    pair.append(A[:, [k - k % 3 for k in range(m)]] if name.startswith("three") else A)
                tops.append(largest_cos2(*pair))
            most = np.concatenate(tops).max(axis=1)
            for level in _LEVELS:
                # the first step of Holm: some module is rejected if the least p is at most the level over m
                found = rate(most >= critical(level / m, r, r, d))
                yield Row(
                    "Holm over modules",
                    f"{m} modules, {name}",
                    f"{r} {r} {d}",
                    "",
                    "",
                    "float64",
                    level,
                    *found,
                )


_PARTS = (isotropic_size, isotropic_inputs, start_in_common, layers, references, families)


def main() -> None:
    """Simulate, print what does not hold its level, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the draws, under a minute")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_suffix(".csv"), help="default %(default)s"
    )
    arguments = parser.parse_args()
    shrink = 50 if arguments.quick else 1
    rows: list[Row] = []
    for part in _PARTS:
        began = time.process_time()
        rows += part(lambda n: max(24, n // shrink))
        print(f"{part.__name__}: {len(rows)} rows so far, {time.process_time() - began:.0f} s", flush=True)
    with arguments.out.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*Row._fields, "reading"])
        for row in rows:
            nominal = "" if math.isnan(row.nominal) else f"{row.nominal:.4g}"
            writer.writerow([*row[:6], nominal, f"{row.rate:.4f}", row.draws, row.reading])
    for row in rows:
        if row.reading == "above":
            print("above:", *row[:6], f"nominal {row.nominal:.4g}, measured {row.rate:.4f}", sep="  ")


if __name__ == "__main__":
    main()
