"""Ten adapters merged into one: how fast and how exact, beside PEFT, which forms every delta_W?"""

from __future__ import annotations

import one_thread  # noqa: F401 - before NumPy

# isort: split
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import peft
import torch
from side_by_side import goal, machine, measured, options, table

from subspace.adapters.update import Factor, LowRankUpdate, Scale
from subspace.analysis.merged_module import merged_module
from subspace.geometry import factored, mergers
from subspace.geometry.merger import Settings

_ADAPTERS, _R, _ALPHA = 10, 16, 32.0
_WEIGHTS = [1 / _ADAPTERS] * _ADAPTERS
_GOAL = 20  # at d = 4096, r = 16


class _One(torch.nn.Module):
    """A model of one linear layer."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(d, d, bias=False)


def model(d: int) -> Any:
    """A PEFT model of ten adapters of one layer, with random factors."""
    torch.manual_seed(0)
    config = peft.LoraConfig(r=_R, lora_alpha=_ALPHA, target_modules=["lin"])
    found = peft.get_peft_model(_One(d), config, adapter_name="a0")
    for n in range(1, _ADAPTERS):
        found.add_adapter(f"a{n}", config)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    return found


def updates(found: Any) -> list[tuple[int, LowRankUpdate]]:
    """The same factors as subspace reads them from a file."""
    layer = found.base_model.model.lin
    pairs = [
        tuple(side[f"a{n}"].weight.detach().numpy() for side in (layer.lora_A, layer.lora_B))
        for n in range(_ADAPTERS)
    ]
    scale = Scale(_ALPHA / _R, "config")
    return [(n, LowRankUpdate("lin", Factor.of(A), Factor.of(B), scale)) for n, (A, B) in enumerate(pairs)]


def by_peft(found: Any, kind: str, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """B and A of PEFT's merge."""
    if "merged" in found.peft_config:
        found.delete_adapter("merged")
    names = [f"a{n}" for n in range(_ADAPTERS)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found.add_weighted_adapter(names, _WEIGHTS, "merged", combination_type=kind, **settings)
    layer = found.base_model.model.lin
    return layer.lora_B["merged"].weight.detach().numpy(), layer.lora_A["merged"].weight.detach().numpy()


def one_case(d: int, rounds: int, theirs: dict[str, dict[str, Any]]) -> None:
    """Print the table of one side."""
    found = model(d)
    own = updates(found)
    kept: dict[str, Any] = {}

    def ours(method: str) -> Callable[[], None]:
        def run() -> None:
            kept[method] = merged_module("lin", own, _WEIGHTS, mergers.named(method), Settings(), "float32")

        return run

    def peft_of(kind: str, settings: dict[str, Any]) -> Callable[[], None]:
        def run() -> None:
            kept[f"{kind}_of_peft"] = by_peft(found, kind, **settings)

        return run

    contenders: dict[str, Callable[[], object]] = {
        f"subspace {name}": ours(name) for name in ("svd", "sum", "knots", "iso", "tsv", "ties")
    }
    contenders |= {f"PEFT {kind}": peft_of(kind, settings) for kind, settings in theirs.items()}
    times = measured(contenders, rounds=rounds, warm=rounds > 1)
    print(
        f"{_ADAPTERS} adapters, one module of {d} x {d}, r = {_R}; ours with the exact error of what is stored"
    )
    table(times, "subspace svd")
    row = kept["svd"].row
    print(f"  relative error of rank {row.rank}, subspace svd, stated: {row.error:.9g}")
    print(f"  the same of PEFT svd, measured from the factors:  {_error(own, *kept['svd_of_peft']):.9g}")
    for kind in theirs:
        ratio = times[f"PEFT {kind}"].median / times["subspace svd"].median
        goal(f"ahead of PEFT {kind}", ratio, ">=", _GOAL)
    print()


def _error(own: list[tuple[int, LowRankUpdate]], B: np.ndarray, A: np.ndarray) -> float:
    """``||D - B A|| / ||D||``, D the weighted sum."""
    whole_B = np.hstack([w * _ALPHA / _R * u.B for w, (_, u) in zip(_WEIGHTS, own, strict=True)])
    whole_A = np.vstack([u.A for _, u in own])
    rest = factored.norm(np.hstack([whole_B, -B.astype(np.float64)]), np.vstack([whole_A, A]))
    return rest / factored.norm(whole_B, whole_A)


def main() -> None:
    """Compare at one side."""
    torch.set_num_threads(1)
    parser = options((__doc__ or "").partition("\n")[0], rounds=1)
    parser.add_argument("--side", type=int, default=4096, help="rows and columns (default %(default)s)")
    arguments = parser.parse_args()
    machine()
    one_case(arguments.side, arguments.rounds, {"svd": {}})


if __name__ == "__main__":
    main()
