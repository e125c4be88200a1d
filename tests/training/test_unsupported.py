"""Offloaded weights, functional calls and sparse gradients: they work, or one line says why not."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.func import functional_call, grad, jvp, vmap  # noqa: E402

from subspace.errors import ValueRangeError  # noqa: E402
from subspace.training import Full, LoRA, Recipe, inject, merge  # noqa: E402
from subspace.training.loop import Trainer  # noqa: E402


def _two():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))


class _Offloading:
    """As accelerate's AlignDevicesHook."""

    offload = True


class _Sequence:
    hooks = (object(), _Offloading())


@pytest.mark.parametrize("hook", [_Offloading(), _Sequence()])
def test_offloaded_weights_are_not_adapted(hook):
    model = _two()
    model[0]._hf_hook = hook
    model[0].to("meta")
    with pytest.raises(
        ValueRangeError, match=r"weights of 0 are offloaded by accelerate .* without offloading"
    ):
        inject(model, LoRA(r=2), ["0"])
    assert inject(model, LoRA(r=2), ["1"]) == ["1"]


def test_an_adapter_that_is_offloaded_is_not_trained_or_merged():
    model = _two()
    inject(model, LoRA(r=2), ["0"])
    model[0]._hf_hook = _Offloading()
    x = torch.randn(3, 6)
    with pytest.raises(
        ValueRangeError, match="adapter cannot be trained: accelerate has offloaded its parameters"
    ):
        model(x)
    with torch.no_grad():
        model(x)
    model.eval()(x)
    with pytest.raises(
        ValueRangeError, match="cannot be merged: accelerate has offloaded its weight, in module 0"
    ):
        merge(model)


def test_accelerate_itself():
    accelerate = pytest.importorskip("accelerate")
    here = torch.device("cpu")
    with pytest.raises(ValueRangeError, match="offloaded by accelerate"):
        inject(accelerate.cpu_offload(_two(), execution_device=here), LoRA(r=2), ["0"])
    model, x = _two(), torch.randn(3, 6)
    inject(model, LoRA(r=2), ["0"])
    with torch.no_grad():
        model[0].lora_B.normal_()
        expected = model(x)
        model = accelerate.cpu_offload(model, execution_device=here)
        torch.testing.assert_close(model(x), expected)
    with pytest.raises(ValueRangeError, match="no gradient reaches them"):
        model(x)


class _Task:
    def loss(self, model, step):
        return model(torch.arange(6)).square().mean()


def test_parameters_without_values_are_not_trained():
    model = _two().to("meta")
    inject(model, LoRA(r=2), ["0"])
    with pytest.raises(ValueRangeError, match="parameters of 0 have no values: they are on the meta device"):
        Trainer(model, _Task(), Recipe(steps=1))


@pytest.mark.parametrize("groups", [None, (True, False, True)])
@pytest.mark.parametrize("dropout", [0.0, 1e-9])
def test_transforms_of_torch_func_give_the_gradients_of_autograd(groups, dropout):
    model = _two()
    inject(model, LoRA(r=2, groups=groups, dropout=dropout), ["0"])
    with torch.no_grad():
        model[0].lora_B.normal_()
    factors = {name: p for name, p in model.named_parameters() if p.requires_grad}
    x = torch.randn(3, 6)

    def loss(factors, x):
        return functional_call(model, factors, (x,)).square().sum()

    loss(factors, x).backward()
    found = grad(loss)(factors, x)
    each = vmap(grad(loss), in_dims=(None, 0), randomness="different")(factors, x)
    for name, parameter in factors.items():
        torch.testing.assert_close(found[name], parameter.grad)
        torch.testing.assert_close(each[name].sum(0), parameter.grad)
    with torch.no_grad():
        moved = jvp(lambda x: functional_call(model, factors, (x,)), (x,), (torch.ones_like(x),))[1]
        direct = model(x + torch.ones_like(x)) - model(x)
    torch.testing.assert_close(moved, direct, rtol=1e-4, atol=1e-5)


class _Table(nn.Module):
    def __init__(self, sparse):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.fc = nn.Embedding(9, 6, sparse=sparse), nn.Linear(6, 6)

    def forward(self, ids):
        return self.fc(self.table(ids))


def test_a_table_with_sparse_gradients_is_adapted_like_any_other():
    gradients = []
    for sparse in (False, True):
        model = _Table(sparse)
        inject(model, LoRA(r=2), ["table"])
        _Task().loss(model, 0).backward()
        gradients.append(model.table.lora_A.grad)
        Trainer(model, _Task(), Recipe(steps=2)).advance()
    assert torch.equal(*gradients)


@pytest.mark.parametrize(("method", "targets", "keep"), [(LoRA(r=2), ["fc"], ["table"]), (Full(), [], [])])
def test_sparse_gradients_are_refused_where_they_would_be_trained(method, targets, keep):
    model = _Table(True)
    inject(model, method, targets, keep=keep)
    with pytest.raises(
        ValueRangeError, match=r"gradient of table is sparse \(nn.Embedding with sparse=True\)"
    ):
        Trainer(model, _Task(), Recipe(steps=1))
