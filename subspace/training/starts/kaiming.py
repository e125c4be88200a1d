"""Kaiming: A is uniform, as loralib and PEFT start it and torch starts a linear layer; B is zero."""

from __future__ import annotations

from subspace.training.start import Factors, Start

__all__ = ["START"]


def _fill(at: Factors) -> None:
    if at.kind == "embedding":  # A is what looks up, and begins at zero, as loralib and PEFT have it
        at.B.normal_(generator=at.generator)
    else:
        bound = at.A[0].numel() ** -0.5  # nn.init.kaiming_uniform_ with a = sqrt(5)
        at.A.uniform_(-bound, bound, generator=at.generator)


START = Start("kaiming", "uniform A and zero B", _fill)
