"""What do all pairs of N adapters cost, beside SVDs in the pair loop and the bare symmetric product?"""

from __future__ import annotations

import one_thread  # noqa: F401 - before NumPy

# isort: split
import time
import tracemalloc
from collections.abc import Sequence
from functools import partial

import numpy as np
from side_by_side import cpu_time, goal, machine, measured, options, table

from subspace.analysis.all_pairs import all_pairs
from subspace.analysis.collection import Member
from subspace.geometry.all_pairs import module_pairs, phi_between
from subspace.geometry.canonical import Canonical, canonical
from subspace.geometry.stacked_spans import stacked


class Library:
    """Adapters in memory in canonical form, as an index on disk has them."""

    def __init__(self, forms: dict[str, list[Canonical]]) -> None:
        self.found = forms
        self.modules = list(forms)
        self.members = [Member(f"adapter-{n}") for n in range(len(next(iter(forms.values()))))]

    def holders(self, module: str) -> list[int]:
        return list(range(len(self.found[module])))

    def scales(self, module: str) -> np.ndarray:
        return np.ones(len(self.found[module]))

    def forms(self, module: str, numbers: Sequence[int]) -> list[Canonical]:
        return [self.found[module][n] for n in numbers]


def factors(n: int, *, d: int, r: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    shapes = (d, r), (r, d)
    return [tuple(rng.standard_normal(shape, dtype=np.float32) for shape in shapes) for _ in range(n)]


def script(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """What a notebook does: two SVDs and phi for every pair."""
    for one, other in pairs:
        U, V = (np.linalg.svd(A, full_matrices=False)[2] for A in (one, other))
        np.linalg.norm(U @ V.T) ** 2 / len(U)


def cached(bases: Sequence[np.ndarray]) -> None:
    """One SVD for each adapter, done before, and a product for every pair."""
    for n, U in enumerate(bases):
        for V in bases[n + 1 :]:
            np.linalg.norm(U @ V.T) ** 2 / len(U)


def peak(run: partial[object]) -> float:
    """Megabytes that a call allocates at most."""
    tracemalloc.start()
    run()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found / 1e6


def one_module(n: int, arguments: object) -> None:
    d, r = arguments.d, arguments.r
    made = factors(n, d=d, r=r, seed=0)
    began = time.process_time()
    forms = [canonical(B, A) for B, A in made]
    canonical_ms = 1e3 * (time.process_time() - began)
    X = stacked(forms).spans("a").X
    rng = np.random.default_rng(1)
    sample = [tuple(made[m][1] for m in rng.choice(n, 2, replace=False)) for _ in range(arguments.sample)]
    share = n * (n - 1) / 2 / len(sample)
    bases = [np.linalg.svd(A, full_matrices=False)[2] for _, A in made]
    contenders = {
        "bare float32 syrk of one side": lambda: X @ X.T,
        "phi of one side, from canonical forms": lambda: phi_between(stacked(forms).spans("a")),
        "both sides, cosine and row alignment": lambda: module_pairs(stacked(forms)),
        "pair loop with known bases, one side": partial(cached, bases),
        f"script with SVDs, {len(sample)} pairs of one side": partial(script, sample),
    }
    found = measured(contenders, rounds=arguments.rounds)
    bare, phi, whole, loop, svds = found
    table(found, bare)
    print(f"canonical forms, once a member and module: {canonical_ms / n:.2f} ms of {canonical_ms:.0f} ms")
    naive = found[svds].median * share
    print(f"the script on all {n * (n - 1) // 2} pairs, scaled: {naive / 1e3:.1f} s")
    goal("phi of one side over the bare syrk", found[phi].median / found[bare].median, "<=", 1.5)
    goal("script over phi of one side", naive / found[phi].median, ">=", 150)
    goal(
        "script with both sides over canonical forms and all",
        2 * naive / (canonical_ms + found[whole].median),
        ">=",
        150,
    )
    goal("pair loop with known bases over phi of one side", found[loop].median / found[phi].median, ">=", 1.8)


def growth(arguments: object) -> None:
    print(
        "\n| N | phi of one side, ms | over the syrk | us a pair | all, ms | MB beside the stack and the results |"
    )
    print("|---|---|---|---|---|---|")
    for n in arguments.growth:
        forms = [canonical(B, A) for B, A in factors(n, d=arguments.d, r=arguments.r, seed=0)]
        members = stacked(forms)
        spans = members.spans("a")
        contenders = {
            "syrk": lambda X=spans.X: X @ X.T,
            "phi": lambda spans=spans: phi_between(spans),
            "all": lambda members=members: module_pairs(members),
        }
        found = {name: times.median for name, times in measured(contenders, rounds=arguments.rounds).items()}
        extra = peak(partial(phi_between, spans)) - 3 * 8e-6 * n * n
        print(
            f"| {n} | {found['phi']:.1f} | {found['phi'] / found['syrk']:.2f} | {2e3 * found['phi'] / n / (n - 1):.1f} "
            f"| {found['all']:.1f} | {extra:.1f} |"
        )


def library(arguments: object) -> None:
    """`all_pairs` over several modules, without and with controls."""
    modules = [f"layers.{n // 2}.self_attn.{'qv'[n % 2]}_proj" for n in range(arguments.modules)]
    forms = {
        name: [
            canonical(B, A) for B, A in factors(arguments.adapters, d=arguments.d, r=arguments.r, seed=seed)
        ]
        for seed, name in enumerate(modules)
    }
    collection = Library(forms)
    X = stacked(forms[modules[0]]).spans("a").X
    syrk = np.median([cpu_time(lambda: X @ X.T) for _ in range(arguments.rounds)])
    for name, asked in {
        "phi of side a": {"sides": ["a"], "controls": "none", "cosine": False, "z": False},
        "both sides, cosine, z": {"controls": "none"},
        "the same with controls": {},
        "one new adapter of all, with controls": {"new": [0]},
    }.items():
        seconds = cpu_time(lambda asked=asked: all_pairs(collection, **asked))
        ratio = seconds / syrk / arguments.modules
        print(f"{len(modules)} modules, {name}: {seconds:.2f} s, {ratio:.2f} of one syrk a module")


def main() -> None:
    """Measure one module, how it grows with N, and a library of several modules."""
    parser = options(__doc__ or "", rounds=5)
    parser.add_argument("--adapters", type=int, default=200)
    parser.add_argument("--modules", type=int, default=64)
    parser.add_argument("--d", type=int, default=1024)
    parser.add_argument("--r", type=int, default=16)
    parser.add_argument("--sample", type=int, default=100, help="pairs that the script is measured on")
    parser.add_argument("--growth", type=int, nargs="*", default=[50, 100, 200, 400])
    arguments = parser.parse_args()
    machine()
    one_module(arguments.adapters, arguments)
    growth(arguments)
    library(arguments)


if __name__ == "__main__":
    main()
