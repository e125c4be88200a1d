"""Twenty steps from one start give PEFT's own adapter, on every architecture, also in groups of a fused layer."""

from __future__ import annotations

import copy
from hashlib import sha256

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytest.importorskip("transformers")
from test_fused_groups import FUSED  # noqa: E402
from tiny_architectures import EVERY, architecture, inputs  # noqa: E402

from subspace.training import LoRA, inject  # noqa: E402
from subspace.training.methods import _group_rows  # noqa: E402
from subspace.training.models import default_targets  # noqa: E402

STEPS, RATE = 20, 1e-2
FUSED_BY_NAME = {kind: last for kind, changes, last, _ in FUSED if not changes}


def _trained(model, kind, parameters, mask=None):
    """Losses of twenty steps; `mask` gives the gradients that are kept, of parameters whose other entries stay zero."""
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    losses = []
    for step in range(STEPS):
        loss = model(**inputs(kind, step)).loss
        loss.backward()
        for parameter, kept in (mask or {}).items():
            parameter.grad *= kept
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def _pairs(ours, theirs, names):
    """Our A and B beside PEFT's, by module."""
    for name in names:
        mine, other = ours.get_submodule(name), theirs.base_model.model.get_submodule(name)
        yield mine, other.lora_A["default"].weight, other.lora_B["default"].weight


def _frozen(model):
    """A digest of every parameter that is not trained."""
    digest = sha256()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


# transformers computes them in single precision alone
SINGLE = ("xglm", "mixtral", "qwen2_moe", "jetmoe")


def _wide(kind):
    return architecture(kind).to(torch.float32 if kind in SINGLE else torch.float64)


def _targets(model, kind):
    return ("kv_proj",) if kind == "jetmoe" else default_targets(model)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to")
@pytest.mark.parametrize("kind", EVERY)
def test_twenty_steps_are_those_of_peft(kind):
    base = _wide(kind)
    ours = copy.deepcopy(base)
    names = inject(ours, LoRA(r=2, alpha=6), _targets(ours, kind))
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=names, init_lora_weights=True)
    theirs = peft.get_peft_model(base, config).to(base.dtype)
    with torch.no_grad():
        for mine, A, B in _pairs(ours, theirs, names):
            A.copy_(mine.lora_A)
            B.copy_(mine.lora_B)
    before = _frozen(ours)
    found = _trained(ours, kind, [p for p in ours.parameters() if p.requires_grad])
    assert _frozen(ours) == before
    expected = _trained(theirs, kind, [p for p in theirs.parameters() if p.requires_grad])
    near = {"rtol": 1e-2, "atol": 1e-3} if kind in SINGLE else {"rtol": 1e-5, "atol": 1e-7}
    assert found == pytest.approx(expected, rel=1e-5 if kind in SINGLE else 1e-8)
    assert found[-1] != found[0]
    for mine, A, B in _pairs(ours, theirs, names):
        torch.testing.assert_close(mine.lora_A, A, **near)
        torch.testing.assert_close(mine.lora_B, B, **near)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to")
@pytest.mark.parametrize("kind", FUSED_BY_NAME)
def test_twenty_steps_of_groups_are_those_of_peft_with_the_other_entries_of_b_held_at_zero(kind):

    base, last = _wide(kind), FUSED_BY_NAME[kind]
    ours = copy.deepcopy(base)
    names = inject(ours, LoRA(r=2, alpha=6, groups=("q", "v")), [last])
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules=names)
    theirs = peft.get_peft_model(base, config).to(base.dtype)

    def joined(layer):
        return _group_rows.joined(layer, layer.methods["default"], layer.lora_B)

    mask = {}
    with torch.no_grad():
        for mine, A, B in _pairs(ours, theirs, names):
            A.copy_(mine.lora_A)
            B.copy_(joined(mine))
            mask[B] = _group_rows.joined(mine, mine.methods["default"], torch.ones_like(mine.lora_B))
    before = _frozen(ours)
    found = _trained(ours, kind, [p for p in ours.parameters() if p.requires_grad])
    assert _frozen(ours) == before
    expected = _trained(theirs, kind, [p for p in theirs.parameters() if p.requires_grad], mask)
    assert found == pytest.approx(expected, rel=1e-8)
    for mine, A, B in _pairs(ours, theirs, names):
        torch.testing.assert_close(mine.lora_A, A, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(joined(mine), B, rtol=1e-5, atol=1e-7)
        assert bool((B[mask[B] > 0] != 0).all())
