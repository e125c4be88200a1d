"""What measuring inputs costs: every linear module of the embedded base, next to plain forward passes.

Both read the same tokens in the same batches; reading and splitting the data are in neither. The sums alone are also
timed in float64 throughout, to show what float32 products of what is left after a shift save.
"""

from __future__ import annotations

import one_thread  # noqa: F401 - before NumPy

# isort: split
import torch
from side_by_side import goal, machine, measured, options, peak_of, table
from torch import Tensor

from subspace.training import embedded
from subspace.training.input_passes import own_passes
from subspace.training.input_reading import InputReading
from subspace.training.input_sums import FullSum
from subspace.training.module_patterns import targets_in

_BATCHES, _BATCH, _LENGTH = 4, 16, 128


def reading(model: torch.nn.Module, batches: list[Tensor], *, gradients: bool = False) -> InputReading:
    """One reading of all batches, whose sites are known already, as they are after the first of many batches."""
    names = [name for name in targets_in(model, ["all-linear"]) if ".layers." in f".{name}"]
    found = InputReading(model, names, 64, 4096, gradients)
    found.look(next(own_passes(batches[:1], None)))
    return found


class Double(FullSum):
    """The same sums with products in float64."""

    def add(self, x: Tensor) -> None:
        """Take in inputs (tokens, d)."""
        y = x.double() - self._shift
        self._sum += y.sum(0)
        for start, stop in self._bounds:
            self._products[start:stop, start:] += y[:, start:stop].T @ y[:, start:]
        self.tokens += len(y)


def main() -> None:
    """Time both, and print the goal."""
    torch.set_num_threads(1)
    rounds = options(__doc__ or "", rounds=5).parse_args().rounds
    machine()
    model = embedded.load()
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(0, 256, (_BATCH, _LENGTH), generator=generator) for _ in range(_BATCHES)]
    plan = reading(model, batches)

    def plain() -> None:
        with torch.no_grad():
            for batch in batches:
                model(batch)

    def ours(kind: type[FullSum] | None = None) -> None:
        plan.done, plan.sums = 0, {}
        plan.begin()
        if kind is not None:
            plan.sums = {
                name: kind(len(total.mean()), torch.device("cpu")) for name, total in plan.sums.items()
            }
        plan.read(own_passes(batches, None), tokens=10**9)

    contenders = {
        "forward passes": plain,
        "inputs": ours,
        "inputs, products in float64": lambda: ours(Double),
    }
    times = measured(contenders, rounds=rounds)
    print(
        f"embedded base, {len(plan.targets)} modules, {len(plan.sites)} inputs, {_BATCHES} x {_BATCH} x {_LENGTH} "
        "tokens"
    )
    table(times, "forward passes")
    goal("inputs over forward passes", times["inputs"].median / times["forward passes"].median, "<=", 1.3)
    peak = peak_of(ours)
    if peak is not None:
        print(f"        the sums take {plan.bytes / 1e6:.0f} MB; peak above before: {peak:.0f} MB")


if __name__ == "__main__":
    main()
