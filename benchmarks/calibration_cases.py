"""The simulations of `calibration.py`, one function a test; `draws` maps the full number of draws to those to make."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr, bdtrc
from simulated import INPUTS, STARTS, Inputs, Module, frames, largest_cos2

from subspace.geometry import chance
from subspace.geometry.frame import row_frame
from subspace.geometry.input_chance import input_chance
from subspace.geometry.permutation import layers_p, reference_p
from subspace.geometry.row_alignment import combined, row_alignment, start_verdict
from subspace.geometry.second_moment import SecondMoment, leading_pairs

Draws = Callable[[int], int]

_STORED = ("float32", "float16", "bfloat16")
_LEVELS = (0.05, 0.01)
_UNLIKELY = 1e-4  # on one side
_STRONG = Inputs(1, 0.3)


class Row(NamedTuple):
    """One rejection rate; `size` is None where the null of the test does not hold."""

    test: str
    case: str
    shape: str
    inputs: str
    moved: str
    stored: str
    level: float | None
    size: float | None
    rate: float
    draws: int

    @property
    def reading(self) -> str:
        """The rate against the size."""
        if self.size is None:
            return ""
        rejected = round(self.rate * self.draws)
        if self.size > 0 and bdtr(rejected, self.draws, self.size) < _UNLIKELY:
            return "below"
        if rejected and bdtrc(rejected - 1, self.draws, self.size) < _UNLIKELY:
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
    """p-value of the first shared direction: the only call of that test."""
    return chance.largest_root_p(cos2, i, j, d)


@cache
def critical(level: float, i: int, j: int, d: int) -> float:
    """Least squared cosine that the test rejects; p falls with it, so that no draw needs a p-value of its own."""
    low, high = 0.0, 1.0
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (low, middle) if isotropic_p(middle, i, j, d) <= level else (middle, high)
    return high


def random_spans(draws: Draws) -> Iterator[Row]:
    """The shared-dimension test on random spans, by the exact sampler."""
    sizes = [(1, 1, 8), (2, 2, 8), (4, 4, 16), (1, 4, 64), (2, 2, 64), (8, 8, 64), (16, 16, 64), (16, 40, 64)]
    sizes += [(8, 8, 128), (8, 64, 128), (4, 16, 256), (32, 32, 256), (64, 64, 256), (2, 2, 768), (8, 8, 768)]
    sizes += [(8, 64, 768), (16, 16, 1024), (4, 4, 4096), (8, 8, 4096), (8, 64, 4096), (64, 64, 4096)]
    for i, j, d in sizes:
        n = draws(20_000 if i <= 8 else 6000 if i <= 32 else 2000)
        top = chance.sample_cos2(i, j, d, n=n, rng=generator("sampler", i, j, d))[:, 0]
        for level in _LEVELS:
            case = ("shared dimension", "random spans", f"{i} {j} {d}", "", "", "")
            yield Row(*case, level, level, *rate(top >= critical(level, i, j, d)))


def stored_matrices(draws: Draws) -> Iterator[Row]:
    """The same test on untrained A matrices, as files hold them."""
    for r, d, n in ((2, 8, 5000), (4, 64, 5000), (8, 128, 5000), (16, 1024, 400)):
        for kind in STARTS:
            for dtype in _STORED:
                module = Module(d, Inputs(), generator("stored", r, d, kind, dtype))
                pair = (module.adapters(draws(n), r, 0.0, kind=kind, dtype=dtype) for _ in range(2))
                found = rate(largest_cos2(*pair) >= critical(0.05, r, r, d))
                yield Row(
                    "shared dimension", f"{kind} starts", f"{r} {r} {d}", "", "0", dtype, 0.05, 0.05, *found
                )


def shared_inputs(draws: Draws) -> Iterator[Row]:
    """The same test where nothing is shared but the module's inputs: only if these are isotropic does its null hold."""
    cases = [(8, 8, 128, inputs, moved) for inputs in INPUTS for moved in (0.35, 1.2, 1.73)]
    others = ((1, 1, 128), (4, 4, 768), (8, 8, 768), (8, 64, 768), (64, 64, 512), (16, 16, 4096))
    some = (Inputs(), Inputs(1), Inputs(0, 0.3), Inputs(0, 0.7), Inputs(2))
    cases += [(*shape, inputs, 1.2) for shape in others for inputs in some]
    for i, j, d, inputs, moved in cases:
        top: list[float] = []
        # a module of its own for every 40 pairs, so that its mean direction is random too
        for _ in range(0, draws(2000 if d == 128 else 400 if j * d < 5e4 else 120), 40):
            module = Module(d, inputs, generator("inputs", i, j, d, inputs, moved, len(top)))
            top += list(largest_cos2(module.adapters(40, i, moved), module.adapters(40, j, moved)))
        for level in _LEVELS:
            case = (
                "shared dimension",
                "shared inputs alone",
                f"{i} {j} {d}",
                str(inputs),
                f"{moved:g}",
                "float32",
            )
            size = level if inputs == Inputs() else None
            yield Row(*case, level, size, *rate(np.array(top) >= critical(level, i, j, d)))


def known_inputs(draws: Draws) -> Iterator[Row]:
    """The tests that know the inputs: nothing shared but those, or one direction planted in both adapters."""
    i, d, moved, level = 8, 128, 1.2, 0.05
    for inputs in (
        Inputs(),
        Inputs(0.5),
        Inputs(1),
        Inputs(0, 0.3),
        Inputs(1, 0.3),
        Inputs(1, 0.7),
        Inputs(2),
    ):
        for k in (128, 32):
            for planted in (0.0, 2.0) if k == d else (0.0,):
                found: list[tuple[float, float]] = []
                for _ in range(0, draws(160), 20):
                    rng = generator("known inputs", inputs, k, planted, len(found))
                    found += _input_p(Module(d, inputs, rng), i, k, moved, planted)
                for n, test in enumerate(("sign flips", "whitened shared dimension")):
                    what = "one direction planted" if planted else "shared inputs alone"
                    shape = f"{i} {i} {d}, {k} eigenpairs"
                    # with a mean the coordinates of an input are not independent; whitening is an approximation
                    exact = not planted and (inputs == Inputs() or (n == 0 and not inputs.mean))
                    size = level if exact else None
                    rejected = (p[n] <= level + 1e-12 for p in found)
                    yield Row(
                        test, what, shape, str(inputs), f"{moved:g}", "float32", level, size, *rate(rejected)
                    )


def _input_p(module: Module, r: int, k: int, moved: float, planted: float) -> list[tuple[float, float]]:
    """p-values of 20 pairs of adapters of one module, by sign flips and after whitening."""
    C = np.diag(module.sd**2) + np.outer(module.mean, module.mean)
    moment = SecondMoment(1, module.mean, *leading_pairs(C, k), float(np.trace(C)))
    first, second = (module.adapters(20, r, moved) for _ in range(2))
    if planted:
        direction = planted * module.rng.standard_normal(module.d) / np.sqrt(module.d)
        first, second = (A + module.rng.standard_normal((20, r, 1)) * direction for A in (first, second))
    found = []
    for n, pair in enumerate(zip(first, second, strict=True)):
        known = input_chance(row_frame(pair[0]), row_frame(pair[1]), moment, seed=n)
        found.append((known.signs_p, float(known.shared_p[0])))
    return found


def starts(draws: Draws) -> Iterator[Row]:
    """Row alignment of different starts and of a start in common, by module and by file of 12 modules."""
    shapes = [(2, 2, 64), (4, 4, 8), (4, 4, 64), (4, 4, 4096), (8, 8, 64), (8, 8, 768), (8, 8, 4096)]
    shapes += [(16, 16, 256), (64, 64, 64), (64, 64, 768), (64, 64, 4096), (4, 8, 768), (8, 64, 768)]
    for shape in shapes:
        for inputs in (Inputs(), Inputs(1, 0.7), Inputs(2)):
            for moved in (0.35, 1.73):
                yield from _alignments(draws, shape, inputs, moved, "uniform", "float32")
    for kind in STARTS:
        for dtype in _STORED:
            yield from _alignments(draws, (8, 8, 768), _STRONG, 1.04, kind, dtype)


def _alignments(
    draws: Draws, shape: tuple[int, int, int], inputs: Inputs, moved: float, kind: str, dtype: str
) -> Iterator[Row]:
    i, j, d = shape
    n = 12 * max(2, draws(240 if j * d < 2e4 else 48 if j * d < 5e4 else 24) // 12)
    module = Module(d, inputs, generator("start", shape, inputs, moved, kind, dtype))
    different, common = [], []
    for _ in range(n):
        pair = (module.adapters(1, r, moved, kind=kind, dtype=dtype)[0] for r in (i, j))
        different.append(row_alignment(*pair))
        pair = (A[0] for A in module.common(1, (i, j), moved, kind=kind, dtype=dtype))
        common.append(row_alignment(*pair))

    def row(case: str, rejected: Iterable[object], level: float | None = None) -> Row:
        where = (f"{i} {j} {d}", str(inputs), f"{moved:g}", dtype, level, level)
        return Row("row alignment", f"{kind} starts, {case}", *where, *rate(rejected))

    if i > 2:  # of two rows z is a sign
        yield row("different: |z| > 1.96", (abs(one.z) > 1.96 for one in different), 0.05)
    for name, found in (("different", different), ("common", common)):
        files = [combined(found[k : k + 12]) for k in range(0, n, 12)]
        for what, ones in (("module", found), ("file", files)):
            for verdict in ("common", "different"):
                yield row(f"{name}: {what} called {verdict}", (start_verdict(one) == verdict for one in ones))


def layers(draws: Draws) -> Iterator[Row]:
    """The permutation of layers: all with the same inputs, or each with its own and nothing else shared."""
    r, d = 4, 64
    for L in (3, 4, 5, 7, 12, 32):
        floor = layers_p(np.eye(L))[1]
        for own in (False, True):
            p = []
            for k in range(draws(500 if own else 2000)):
                rng = generator("layers", L, own, k)
                modules = (
                    [Module(d, _STRONG, rng) for _ in range(L)] if own else [Module(d, _STRONG, rng)] * L
                )
                first, second = (np.concatenate([m.adapters(1, r, 1.04) for m in modules]) for _ in range(2))
                p.append(layers_p(similarities(first, second), seed=k)[0])
            name = (
                "unrelated learning, inputs of each layer's own" if own else "unrelated learning, same inputs"
            )
            for level in _LEVELS:
                case = ("layers", name, f"{r} {r} {d}, {L} layers", str(_STRONG), "1.04", "float32")
                yield Row(
                    *case, level, None if own else reached(level, floor), *rate(np.array(p) <= level + 1e-12)
                )


def reached(level: float, floor: float) -> float:
    """The greatest p-value, of those that come in steps of `floor`, that is within the level."""
    return math.floor(level / floor + 1e-9) * floor


def similarities(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Phi of the whole spans, every A of the first with every one of the second, shape (n, m)."""
    (n, r, d), m = first.shape, len(second)
    G = frames(first).reshape(-1, d) @ frames(second).reshape(-1, d).T
    return (G.reshape(n, r, m, r) ** 2).sum(axis=(1, 3)) / r


_MOVES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "1.04": lambda rng, N: np.full(N, 1.04),
    "each its own": lambda rng, N: 1.04 * rng.lognormal(0, 0.7, N),
    "pair 1.73, others 0.35": lambda rng, N: np.r_[1.73, 1.73, np.full(N - 2, 0.35)],
    "pair 0.35, others 1.73": lambda rng, N: np.r_[0.35, 0.35, np.full(N - 2, 1.73)],
}


def references(draws: Draws) -> Iterator[Row]:
    """A pair among reference adapters, all of unrelated tasks: exchangeable, or trained longer, or shorter."""
    r, d, modules, level = 4, 64, 4, 0.05
    for n in (4, 19, 39):
        for name, moved in _MOVES.items():
            found = []
            for k in range(draws(2000)):
                rng = generator("references", n, name, k)
                ratio, S = moved(rng, n + 2)[:, None, None], np.zeros((n + 2, n + 2))
                for _ in range(modules):
                    module = Module(d, _STRONG, rng)
                    A = module.learned(module.start(n + 2, r), ratio)
                    S += similarities(A, A) / modules
                found.append(reference_p(S))
            for field, floor in (("second", "floor"), ("first", "floor"), ("pairs", "floor_pairs")):
                size = None if name.startswith("pair") else reached(level, getattr(found[0], floor))
                case = (
                    "reference adapters",
                    f"p of {field}",
                    f"{r} {r} {d}, {n} references",
                    str(_STRONG),
                    name,
                )
                rejected = (getattr(one, field) <= level + 1e-12 for one in found)
                yield Row(*case, "float64", level, size, *rate(rejected))


def families(draws: Draws) -> Iterator[Row]:
    """Holm over the modules of a file: some direction claimed, with independent, correlated and shared matrices."""
    r, d = 4, 64
    for m in (12, 24, 96):
        for name in ("independent", "correlated", "three modules share an A"):
            rng, tops = generator("families", m, name), []
            for _ in range(0, draws(4000), 100):
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
                case = ("Holm over modules", f"{m} modules, {name}", f"{r} {r} {d}", "", "", "float64")
                yield Row(*case, level, level, *found)
