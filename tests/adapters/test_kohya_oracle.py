"""delta_W of every layer against LyCORIS' own `get_diff_weight`, on tensors that its LoCon modules wrote."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from subspace.adapters import load_adapter

locon = pytest.importorskip("lycoris.modules.locon")
full = pytest.importorskip("lycoris.modules.full")

LAYERS = {
    "linear": (lambda: torch.nn.Linear(6, 5), {}),
    "scalar": (lambda: torch.nn.Linear(6, 5), {"use_scalar": True}),
    "rsLoRA": (lambda: torch.nn.Linear(6, 5), {"rs_lora": True}),
    "DoRA": (lambda: torch.nn.Linear(6, 5), {"weight_decompose": True}),
    "DoRA of inputs": (lambda: torch.nn.Linear(6, 5), {"weight_decompose": True, "wd_on_out": False}),
    "convolution": (lambda: torch.nn.Conv2d(6, 5, (3, 2)), {}),
    "grouped convolution": (lambda: torch.nn.Conv2d(6, 4, 3, groups=2), {}),
    "Tucker, 1 dimension": (lambda: torch.nn.Conv1d(6, 5, 3), {"use_tucker": True}),
    "Tucker, 2 dimensions": (lambda: torch.nn.Conv2d(6, 5, (3, 2)), {"use_tucker": True}),
    "Tucker, 3 dimensions": (lambda: torch.nn.Conv3d(6, 5, (3, 2, 1)), {"use_tucker": True}),
}


def written(layer, options, *, alpha=2.0):
    """The tensors of a LoCon module with random factors, and the delta that the module adds."""
    torch.manual_seed(0)
    module = locon.LoConModule("lora_unet_x", layer, lora_dim=4, alpha=alpha, **options)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    delta = module.get_diff_weight()[0].detach().reshape(layer.weight.shape[0], -1).double().numpy()
    return {f"lora_unet_x.{key}": value.detach() for key, value in module.custom_state_dict().items()}, delta


@pytest.mark.parametrize("name", LAYERS)
def test_delta_is_the_writers_own(name):
    make, options = LAYERS[name]
    tensors, expected = written(make(), options)
    adapter = load_adapter(tensors)
    found = adapter["lora_unet_x"].delta_W()
    assert (adapter.format, adapter.unknown, adapter.ignored) == ("kohya", (), ())
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


def test_a_whole_change_is_the_writers_own():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 2)
    module = full.FullModule("lora_unet_x", layer)
    module.apply_to()
    torch.nn.init.normal_(module.weight)
    torch.nn.init.normal_(module.bias)
    tensors = {f"lora_unet_x.{key}": value.detach() for key, value in module.custom_state_dict().items()}
    adapter = load_adapter(tensors)
    assert [entry.key for entry in adapter.ignored] == ["lora_unet_x.diff_b"]
    expected = tensors["lora_unet_x.diff"].reshape(4, -1).double().numpy()
    np.testing.assert_array_equal(adapter["lora_unet_x"].delta_W(), expected)
