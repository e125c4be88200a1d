"""Gaussian: A is normal with deviation 1 / r, as PEFT has what the LoRA paper calls a random Gaussian; B is zero."""

from __future__ import annotations

from subspace.training.start import Factors, Start

__all__ = ["START"]


def _fill(at: Factors) -> None:
    if at.kind == "embedding":  # A is what looks up, and begins at zero, as loralib and PEFT have it
        at.B.normal_(generator=at.generator)
    else:
        at.A.normal_(0.0, 1.0 / at.r, generator=at.generator)


START = Start("gaussian", "normal A and zero B", _fill)
