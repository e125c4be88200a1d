"""A merged or tuned weight as factors of rank 16: how fast and how exact, beside the dense SVD of the difference?"""

from __future__ import annotations

import one_thread  # noqa: F401 - before NumPy

# isort: split
from collections.abc import Callable

import made
import numpy as np
import torch
from side_by_side import goal, machine, measured, options, table

from subspace.analysis.difference_rows import Difference, survey
from subspace.analysis.leading_change import leading_change
from subspace.checkpoints import StoredMatrix

_RANK = 16
_DTYPES = {"fp32": ("float32", torch.float32), "bf16": ("bfloat16", torch.bfloat16)}
_GOAL = 10  # at 4096


def change(d: int, kind: str) -> np.ndarray:
    """What is added to a weight: a LoRA of rank 16, or a full fine-tune whose spectrum falls as ``n ** -0.7``."""
    if kind == "full":
        return 0.1 * made.power_law(d, power=0.7, seed=3)
    rng = np.random.default_rng(2)
    B, A = (rng.standard_normal(shape).astype(np.float32) for shape in ((d, _RANK), (_RANK, d)))
    return np.asarray(0.3 / d * B @ A)


def ours(tuned: StoredMatrix, base: StoredMatrix) -> float:
    """Relative error of the leading 16 directions, the detection floor and the exact error included."""
    D = Difference(tuned, base)
    found = survey(D)
    leading = leading_change(D, found, most=_RANK, energy=None)
    k = min(_RANK, leading.above)
    return D.distance(leading.U[:, :k] * leading.S[:k], leading.V[:, :k].T) / found.norm


def dense(tuned: torch.Tensor, base: torch.Tensor) -> float:
    """The same by torch.linalg.svd of the dense difference in float32, as mergekit's extract_lora.py does."""
    D = tuned.float() - base.float()
    U, S, Vh = torch.linalg.svd(D, full_matrices=False)
    left = D - (U[:, :_RANK] * S[:_RANK]) @ Vh[:_RANK]
    return float(torch.linalg.norm(left) / torch.linalg.norm(D))


def one_case(d: int, dtype: str, kind: str, rounds: int) -> None:
    """Print the table of one type and one kind of change."""
    name, torch_type = _DTYPES[dtype]
    W = 0.02 * np.random.default_rng(0).standard_normal((d, d), dtype=np.float32)
    stored = [made.narrowed(M, dtype) for M in (W + change(d, kind), W)]
    matrices = [StoredMatrix(M, name) for M in stored]
    tensors = [torch.from_numpy(M if dtype == "fp32" else M.view(np.int16)).view(torch_type) for M in stored]
    errors: dict[str, float] = {}

    def keep(what: str, run: Callable[[], float]) -> Callable[[], None]:
        def kept() -> None:
            errors[what] = run()

        return kept

    contenders: dict[str, Callable[[], object]] = {
        "extract": keep("extract", lambda: ours(matrices[0], matrices[1])),
        "torch.linalg.svd": keep("torch.linalg.svd", lambda: dense(tensors[0], tensors[1])),
    }
    times = measured(contenders, rounds=rounds, warm=rounds > 1)
    print(f"{d} x {d}, {dtype}, {'merged LoRA' if kind == 'lora' else 'full fine-tune'}, rank {_RANK}")
    table(times, "extract")
    for what, error in errors.items():
        print(f"  relative error, {what}: {error:.6g}")
    goal("ahead of torch.linalg.svd", times["torch.linalg.svd"].median / times["extract"].median, ">=", _GOAL)
    goal("  its error over ours", errors["torch.linalg.svd"] / errors["extract"], ">=", 0.9999)
    print()


def main() -> None:
    """Compare on both types and kinds of change."""
    torch.set_num_threads(1)
    parser = options(__doc__ or "", rounds=1)
    parser.add_argument("--side", type=int, default=4096, help="rows and columns (default %(default)s)")
    arguments = parser.parse_args()
    machine()
    for dtype in _DTYPES:
        for kind in ("lora", "full"):
            one_case(arguments.side, dtype, kind, arguments.rounds)


if __name__ == "__main__":
    main()
