"""A file in loralib's format is loaded by loralib's own layers, which compute the same."""

from __future__ import annotations

import io

import pytest

torch = pytest.importorskip("torch")
loralib = pytest.importorskip("loralib")
from torch import nn  # noqa: E402

from subspace.errors import ValueRangeError  # noqa: E402
from subspace.training import LoRA, inject  # noqa: E402
from subspace.training.export import loralib_files  # noqa: E402


def _saved(layer, method):
    model = nn.ModuleDict({"layer": layer})
    inject(model, method, ["layer"])
    with torch.no_grad():
        for parameter in (model["layer"].lora_A, model["layer"].lora_B):
            parameter.normal_()
    return model, torch.load(io.BytesIO(loralib_files(model)["adapter.pt"]), weights_only=True)


def _loaded(theirs, state, base):
    """Give loralib's layer what was saved and the weights of the base; nothing may be left over."""
    theirs = nn.ModuleDict({"layer": theirs})
    prefix = "layer.conv" if hasattr(theirs["layer"], "conv") else "layer"
    state = {**state, **{f"{prefix}.{name}": value for name, value in base.items()}}
    theirs.load_state_dict(state, strict=True)
    return theirs["layer"]


@pytest.mark.parametrize(
    "more", [{}, {"stride": 2, "padding": 1}, {"bias": False}, {"padding_mode": "circular", "padding": 1}]
)
@pytest.mark.parametrize(
    ("ours", "theirs", "kernel"),
    [(nn.Conv2d, loralib.Conv2d, 3), (nn.Conv2d, loralib.Conv2d, 1), (nn.Conv1d, loralib.Conv1d, 1)],
)  # fmt: skip
def test_convolutions_are_those_of_loralib(ours, theirs, kernel, more):
    torch.manual_seed(0)
    layer = ours(4, 6, kernel, **more)
    base = {name: value.clone() for name, value in layer.state_dict().items()}
    model, state = _saved(layer, LoRA(r=2, alpha=6))
    assert state["layer.lora_A"].shape == (2 * kernel, 4 * kernel)
    assert state["layer.lora_B"].shape == (6 * kernel, 2 * kernel)
    other = _loaded(theirs(4, 6, kernel, r=2, lora_alpha=6, **more), state, base)
    x = torch.randn(2, 4, *(7 for _ in layer.kernel_size))
    expected = model["layer"](x)
    assert not torch.allclose(expected, layer.plain(x), atol=0.1)
    torch.testing.assert_close(other(x), expected, rtol=1e-4, atol=1e-4)
    other.eval()  # merges, and returns nothing
    torch.testing.assert_close(other(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "size"),
    [(nn.Conv1d(4, 6, 3), "3"), (nn.Conv2d(4, 6, (3, 2)), "3 x 2"), (nn.Conv3d(4, 6, 2), "2 x 2 x 2")],
)
def test_convolutions_that_it_cannot_compute_are_refused(layer, size):
    with pytest.raises(
        ValueRangeError, match=f"no layer for the convolution layer: its kernel is {size}, .* peft"
    ):
        _saved(layer, LoRA(r=2))


@pytest.mark.parametrize(
    ("layer", "theirs", "groups", "x"),
    [
        (nn.Linear(5, 6), loralib.Linear(5, 6, r=2, lora_alpha=6), None, torch.randn(3, 5)),
        (nn.Embedding(9, 6), loralib.Embedding(9, 6, r=2, lora_alpha=6), None, torch.arange(9)),
        (
            nn.Linear(5, 12),
            loralib.MergedLinear(5, 12, r=2, lora_alpha=6, enable_lora=[True, False, True]),
            (True, False, True),
            torch.randn(3, 5),
        ),
    ],
)
def test_other_layers_are_those_of_loralib(layer, theirs, groups, x):
    base = {name: value.clone() for name, value in layer.state_dict().items()}
    model, state = _saved(layer, LoRA(r=2, alpha=6, groups=groups))
    other = _loaded(theirs, state, base)
    torch.testing.assert_close(other(x), model["layer"](x), rtol=1e-4, atol=1e-5)
