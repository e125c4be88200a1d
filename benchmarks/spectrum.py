"""Singular values of delta_W = B A, r = 64, 4096 x 4096, from its factors: how fast, how exact, in how much memory?"""

from __future__ import annotations

import one_thread  # noqa: F401 - before NumPy

# isort: split
import numpy as np
import torch
from side_by_side import cpu_time, goal, machine, measured, options, peak_of, table

from subspace.geometry import factored

_D, _R = 4096, 64


def qr_numpy(B: np.ndarray, A: np.ndarray) -> np.ndarray:
    """Float64 QR of both factors and the SVD of the core, NumPy."""
    R_B = np.linalg.qr(B.astype(np.float64), mode="r")
    R_A = np.linalg.qr(A.T.astype(np.float64), mode="r")
    return np.linalg.svd(R_B @ R_A.T, compute_uv=False)


def qr_torch(B: torch.Tensor, A: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """U, S, V by QR of both factors and the SVD of the core, as resize_lora does."""
    Q_B, R_B = torch.linalg.qr(B.to(dtype))
    Q_A, R_A = torch.linalg.qr(A.T.to(dtype))
    U, S, Vh = torch.linalg.svd(R_B @ R_A.T)
    _ = Q_B @ U, Vh @ Q_A.T
    return S


def main() -> None:
    """Compare; the dense SVD is run once, being slow."""
    torch.set_num_threads(1)
    parser = options(__doc__ or "", rounds=15)
    parser.add_argument("--no-dense", action="store_true", help="leave out the dense SVD of delta_W, ~20 s")
    arguments = parser.parse_args()
    machine()
    rng = np.random.default_rng(0)
    A = 0.02 * rng.standard_normal((_R, _D), dtype=np.float32)
    B = 0.02 * rng.standard_normal((_D, _R), dtype=np.float32)
    tA, tB = torch.from_numpy(A), torch.from_numpy(B)
    rows = np.ascontiguousarray(B.T)
    times = measured(
        {
            "limit: 2 float32 syrk": lambda: (A @ A.T, rows @ rows.T),
            "factored.singular_values": lambda: factored.singular_values(B, A),
            "factored.svd (U, S, Vh)": lambda: factored.svd(B, A),
            "QR float64, numpy (S)": lambda: qr_numpy(B, A),
            "QR float64, torch (U, S, Vh)": lambda: qr_torch(tB, tA, torch.float64),
            "QR float32, torch (U, S, Vh)": lambda: qr_torch(tB, tA, torch.float32),
        },
        rounds=arguments.rounds,
    )
    print(f"delta_W {_D} x {_D}, r = {_R}")
    table(times, "factored.svd (U, S, Vh)")
    ours, S = times["factored.svd (U, S, Vh)"].median, factored.singular_values(B, A)
    goal("U, S, Vh ahead of torch QR float64", times["QR float64, torch (U, S, Vh)"].median / ours, ">=", 1.8)
    goal(
        "S ahead of numpy QR float64",
        times["QR float64, numpy (S)"].median / times["factored.singular_values"].median,
        ">=",
        3.5,
    )
    goal(
        "S over two float32 syrk",
        times["factored.singular_values"].median / times["limit: 2 float32 syrk"].median,
        "<=",
        3,
    )
    exact = qr_numpy(B, A)
    for name, found in (("ours", S), ("torch QR float32", qr_torch(tB, tA, torch.float32).numpy())):
        print(
            f"  largest relative error of a singular value, {name}: {np.max(np.abs(found / exact - 1)):.1e}"
        )
    peak = peak_of(lambda: factored.svd(B, A))
    if peak is not None:
        print(f"  peak memory of factored.svd: {peak:.1f} MB; delta_W would be {_D * _D * 8 / 2**20:.0f} MB")
    if not arguments.no_dense:
        dense = 1e3 * cpu_time(lambda: torch.linalg.svd(tB @ tA, full_matrices=False))
        print(f"  dense float32 SVD of delta_W, once: {dense:.0f} ms, {dense / ours:.0f} times ours")


if __name__ == "__main__":
    main()
