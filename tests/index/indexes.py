"""What an index holds, as values that can be compared: what must be the same whatever happened on the way."""

import numpy as np


def contents(index):
    """By (path, module): the canonical form as an array that no sign of a direction changes, its scale and rank."""
    found = {}
    for module in index.modules:
        holders = index.holders(module)
        for number, scale, form in zip(
            holders, index.scales(module), index.forms(module, holders), strict=True
        ):
            delta = form.left[: form.k].T @ (form.S[:, None] * form.right[: form.k])
            found[index.members[number].path, module] = (delta.round(6).tobytes(), float(scale), form.k)
    return found


def assert_same(one, other):
    first, second = contents(one), contents(other)
    assert first.keys() == second.keys()
    for key, (delta, scale, k) in first.items():
        assert (scale, k) == second[key][1:]
        np.testing.assert_allclose(np.frombuffer(delta), np.frombuffer(second[key][0]), atol=3e-6)
