"""Intruder dimensions of one matrix, k = 10, epsilon = 0.5: how fast, next to PEFT's two dense decompositions?

PEFT's way (tuners/lora/intruders.py): torch.linalg.svd of W and of W + B A in float32, and the product of their left
vectors. Ours: from r = 8 factors, left side, without the search for the first scale, which PEFT does not have; a row of
its own says what that search costs.
"""

from __future__ import annotations

import one_thread  # noqa: F401 - before NumPy

# isort: split
from collections.abc import Callable

import made
import numpy as np
import torch
from side_by_side import goal, machine, measured, options, table

from subspace.geometry.intruders import exact_intrusion
from subspace.geometry.streamed_intruders import streamed_intrusion

_K, _EPSILON, _R = 10, 0.5, 8


def spiked(d: int, seed: int = 0) -> np.ndarray:
    """A Marchenko-Pastur bulk with 16 spikes."""
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((d, 16)))[0] for _ in range(2))
    return (rng.standard_normal((d, d)) / np.sqrt(d) + U * np.linspace(9, 3, 16) @ V.T).astype(np.float32)


def factors(d: int, size: float) -> tuple[np.ndarray, np.ndarray]:
    """B and A of random directions, whose product has singular values from `size` down to a tenth of it."""
    rng = np.random.default_rng(1)
    B, A = (np.linalg.qr(rng.standard_normal((d, _R)))[0].astype(np.float32) for _ in range(2))
    return B * (size * np.linspace(1, 0.1, _R, dtype=np.float32)), A.T.copy()


def peft(W: torch.Tensor, dW: torch.Tensor) -> np.ndarray:
    """The largest |cos| of the k leading directions, as PEFT computes them."""
    U_base = torch.linalg.svd(W, full_matrices=False)[0]
    U_merged = torch.linalg.svd(W + dW, full_matrices=False)[0]
    return (U_merged.T @ U_base).abs().max(dim=1).values[:_K].numpy()


def one_case(name: str, W: np.ndarray, size: float, rounds: int) -> None:
    """Print the table of one matrix, and check that the answers are one."""
    B, A = factors(len(W), size)
    T, dT = torch.from_numpy(W), torch.from_numpy(B @ A)
    wide = B.astype(np.float64), A.astype(np.float64)
    asked = {"k": _K, "epsilon": _EPSILON, "sides": ["left"]}
    found: dict[str, np.ndarray] = {}

    def keep(what: str, run: Callable[[], np.ndarray]) -> Callable[[], None]:
        def kept() -> None:
            found[what] = run()

        return kept

    fast, scale = "fast route", "fast route, with the first scale"
    contenders = {
        "PEFT's two SVDs": keep("PEFT", lambda: peft(T, dT)),
        fast: keep(fast, lambda: streamed_intrusion(W, *wide, up_to=0, **asked).sides["left"].cosines.most),
        scale: lambda: streamed_intrusion(W, *wide, up_to=64, **asked),
        "exact route": keep(
            "exact", lambda: exact_intrusion(W, *wide, up_to=0, **asked).sides["left"].cosines.most
        ),
    }
    times = measured(contenders, rounds=rounds, warm=False)
    print(f"W {len(W)} x {len(W)}, {name}, r = {_R}")
    table(times, fast)
    counts = {what: int((cos < _EPSILON).sum()) for what, cos in found.items()}
    same = all(((cos < _EPSILON) == (found["PEFT"] < _EPSILON)).all() for cos in found.values())
    print(f"  intruders: {', '.join(f'{what} {n}' for what, n in counts.items())}; the same: {same}")
    goal(
        "ahead of PEFT",
        times["PEFT's two SVDs"].median / times[fast].median,
        ">=",
        5 if len(W) >= 2048 else 1,
    )
    print()


def main() -> None:
    """Compare on two spectra and several sizes."""
    torch.set_num_threads(1)
    parser = options(__doc__ or "", rounds=3)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1024, 2048], help="rows and columns; 4096 takes minutes"
    )
    arguments = parser.parse_args()
    machine()
    for d in arguments.sizes:
        one_case("sigma_n = n ** -0.7", made.power_law(d, power=0.7), 0.6, arguments.rounds)
        one_case("a bulk with 16 spikes", spiked(d), 12.0, arguments.rounds)


if __name__ == "__main__":
    main()
