"""Collections of adapters made in a test, as any collection is asked for them."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from subspace.analysis.collection import Member
from subspace.geometry.canonical import canonical


class Made:
    """Members from pairs of B and A in memory; ``adapters[n][module]`` is (B, A) or (B, A, scale)."""

    def __init__(self, adapters):
        self.adapters = [dict(each) for each in adapters]
        self.members = [Member(f"adapter-{n}") for n in range(len(self.adapters))]
        self.modules = list(dict.fromkeys(module for each in self.adapters for module in each))
        self.asked = []

    def holders(self, module):
        return [n for n, each in enumerate(self.adapters) if module in each]

    def scales(self, module):
        return np.array([(*self.adapters[n][module], np.nan)[2] for n in self.holders(module)])

    def forms(self, module, numbers):
        self.asked.append((module, tuple(numbers)))
        return [canonical(*self.adapters[n][module][:2]) for n in numbers]


class Slow(Made):
    """A collection that takes a while to read, so that work is under way when something happens."""

    def forms(self, module, numbers):
        time.sleep(0.05)
        return super().forms(module, numbers)


def killed(task):
    """End the process that does this task."""
    os.kill(os.getpid(), signal.SIGKILL)


def random_adapters(n, modules, *, ranks=(4,), d_out=30, d_in=40, seed=0, scale=1.0):
    """Independent adapters; ranks are taken in turn."""
    rng = np.random.default_rng(seed)
    found = []
    for m in range(n):
        r = ranks[m % len(ranks)]
        found.append(
            {
                name: (rng.standard_normal((d_out, r)), rng.standard_normal((r, d_in)), scale)
                for name in modules
            }
        )
    return found
