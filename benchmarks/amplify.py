"""W's own leading directions, 4096 x 4096, r = 8 and 64: how fast and how exact, beside torch.svd_lowrank?"""

from __future__ import annotations

import one_thread  # noqa: F401 - before NumPy

# isort: split
from collections.abc import Callable

import made
import numpy as np
import torch
from side_by_side import goal, machine, measured, options, table

from subspace.checkpoints import StoredMatrix
from subspace.geometry.topk import Leading, leading, project

_D = 4096
_DTYPES = {"fp32": ("float32", torch.float32), "bf16": ("bfloat16", torch.bfloat16)}


def reference(W: np.ndarray, r: int) -> float:
    """F of the top r, converged: ARPACK in float64."""
    from scipy.sparse.linalg import svds

    S = svds(W.astype(np.float64), k=r, return_singular_vectors=False, tol=1e-10, random_state=0)
    return float(np.linalg.norm(S))


def lowrank(W: torch.Tensor, r: int, niter: int) -> float:
    """F by torch's randomised SVD with 8 more columns than asked for; bfloat16 is widened first, as it must be."""
    torch.manual_seed(0)
    return float(torch.linalg.norm(torch.svd_lowrank(W.float(), q=r + 8, niter=niter)[1][:r]))


def one_case(dtype: str, r: int, stored: np.ndarray, power: float, rounds: int) -> None:
    """Print the table of one type and rank."""
    name, kind = _DTYPES[dtype]
    W = StoredMatrix(stored, name)
    T = torch.from_numpy(stored if dtype == "fp32" else stored.view(np.int16)).view(kind)
    truth = reference(W.full(), r)
    found: dict[str, float | Leading] = {}

    def keep(what: str, run: Callable[[], float | Leading]) -> Callable[[], None]:
        def kept() -> None:
            found[what] = run()

        return kept

    U = V = np.linalg.qr(np.random.default_rng(1).standard_normal((_D, r)))[0]
    contenders: dict[str, Callable[[], object]] = {
        "limit: one pass, project(W, U, V)": lambda: project(W, U, V),
        "leading(W, r)": keep("leading(W, r)", lambda: leading(W, r)),
    }
    for niter in (4,) if r == 8 else (4, 10):
        label = f"svd_lowrank q={r + 8} niter={niter}"
        contenders[label] = keep(label, lambda niter=niter: lowrank(T, r, niter))  # type: ignore[misc]
    times = measured(contenders, rounds=rounds)
    print(f"W {_D} x {_D}, sigma_n = n ** -{power}, {dtype}, r = {r}")
    table(times, "leading(W, r)")
    ours = found["leading(W, r)"]
    assert isinstance(ours, Leading)
    errors = {what: abs((F.F if isinstance(F, Leading) else F) / truth - 1) for what, F in found.items()}
    for what, error in errors.items():
        told = (
            f" (estimated {ours.error:.1e}, {ours.passes} passes)"
            if what == "leading(W, r)"
            else " (no estimate)"
        )
        print(f"  relative error of F, {what}: {error:.1e}{told}")
    for what, relation in ((f"svd_lowrank q={r + 8} niter={4 if r == 8 else 10}", 1.5 if r == 8 else 2.5),):
        goal(
            f"{dtype} r = {r}: ahead of {what}",
            times[what].median / times["leading(W, r)"].median,
            ">=",
            relation,
        )
        goal("  its error over ours", errors[what] / max(errors["leading(W, r)"], 1e-8), ">=", 1)
    print()


def main() -> None:
    """Compare on both types and ranks."""
    torch.set_num_threads(1)
    parser = options(__doc__ or "", rounds=5)
    parser.add_argument(
        "--powers", type=float, nargs="+", default=[0.5, 0.7], help="of the falls of the spectrum"
    )
    arguments = parser.parse_args()
    machine()
    for power in arguments.powers:
        W = made.power_law(_D, power=power)
        for dtype in _DTYPES:
            stored = made.narrowed(W, dtype)
            for r in (8, 64):
                one_case(dtype, r, stored, power, arguments.rounds)


if __name__ == "__main__":
    main()
