"""How A and B start: what each start is, against PEFT's, what is trained from it, and what is saved."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file  # noqa: E402
from test_layers import _PEFT_TELLS, Net, _peft_name, _shake  # noqa: E402
from tiny_models import TEXTS, tiny  # noqa: E402
from torch import nn  # noqa: E402

import subspace  # noqa: E402
from subspace.errors import ValueRangeError  # noqa: E402
from subspace.flags import Flag  # noqa: E402
from subspace.training import DoRA, Job, LoRA, Recipe, inject, merge, train, unmerge  # noqa: E402
from subspace.training.injection import remove, use  # noqa: E402
from subspace.training.loop import Trainer  # noqa: E402
from subspace.training.run_folder import RUN  # noqa: E402
from subspace.training.start import Factors  # noqa: E402
from subspace.training.starts import every  # noqa: E402

ALL = ["table", "c_attn", "conv1", "conv2", "conv3", "fc"]
LINEAR = ["c_attn", "fc"]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def ids():
    return torch.randint(0, 20, (4, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(TEXTS * 30), encoding="utf-8")
    return str(path)


def _steps(model, ids, optimizer=None, n=20):
    """Train what is trainable for some steps."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = optimizer or torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0)
    for step in range(n):
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(ids).square().sum().backward()
        optimizer.step()


def _theirs(net, targets, **config):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        **{"r": 2, "lora_alpha": 6, "fan_in_fan_out": False, "target_modules": targets, **config}
    )
    return get_peft_model(copy.deepcopy(net), config)


def _give(ours, theirs):
    """Let PEFT's model start where ours does."""
    parameters = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, value in ours.named_parameters():
            if value.requires_grad:
                own = f"base_model.model.{name}.default.weight" if "magnitude" in name else _peft_name(name)
                parameters[own].copy_(value.view(parameters[own].shape))


def _filled(name, shape_A, shape_B, *, r, weights=(), scale=1.0, seed=0):
    at = Factors(
        "linear", torch.zeros(shape_A), torch.zeros(shape_B), r, scale, torch.Generator().manual_seed(seed),
        [shape_B[0]], lambda: list(weights),
    )  # fmt: skip
    every()[name].fill(at)
    return at.A, at.B


@pytest.mark.parametrize("targets", [["table"], ["c_attn"], ["conv1"], ["conv2"], ["conv3"], ["fc"], ALL])
@pytest.mark.parametrize("init", list(every()))
def test_no_start_changes_the_output_and_every_one_can_be_trained_merged_and_removed(net, ids, init, targets):
    before = net(ids)
    inject(net, LoRA(r=2, init=init), targets)
    torch.testing.assert_close(net(ids), before, rtol=1e-5, atol=1e-6)
    _shake(net)
    after = net(ids)
    assert float((after - before).detach().abs().max()) > 1e-5
    merge(net)
    torch.testing.assert_close(net(ids), after, rtol=1e-5, atol=1e-5)
    unmerge(net)
    use(net, None)
    assert torch.equal(net(ids), before)
    use(net, "default")
    torch.testing.assert_close(net(ids), after)
    remove(net)
    assert torch.equal(net(ids), before) and not any("lora" in name for name in net.state_dict())


@_PEFT_TELLS
@pytest.mark.parametrize("rslora", [False, True])
def test_pissa_is_that_of_peft_from_its_start_to_step_20(net, ids, rslora):
    theirs = _theirs(net, LINEAR, use_rslora=rslora, init_lora_weights="pissa")
    inject(net, LoRA(r=2, alpha=6, rslora=rslora, init="pissa"), LINEAR)
    own = dict(theirs.named_parameters())
    for name, value in net.named_parameters():
        if value.requires_grad:  # a pair of singular vectors has no sign of its own
            torch.testing.assert_close(value.abs(), own[_peft_name(name)].abs(), rtol=1e-5, atol=1e-6)
    scale = net.fc.scaling
    residual = (net.fc.weight - scale * net.fc.lora_B @ net.fc.lora_A).detach()
    torch.testing.assert_close(theirs.base_model.model.fc.base_layer.weight, residual, rtol=1e-5, atol=1e-6)
    # PiSSA, equations 2 to 4: the best approximation of rank r, with the roots of the singular values on either side
    S = torch.linalg.svdvals(net.fc.weight)
    assert float(torch.linalg.matrix_norm(residual, 2)) == pytest.approx(float(S[2]), rel=1e-4)
    torch.testing.assert_close(net.fc.lora_A.norm(dim=1) ** 2 * scale, S[:2], rtol=1e-4, atol=1e-5)
    _steps(net, ids)
    _steps(theirs, ids)
    torch.testing.assert_close(net(ids), theirs(ids), rtol=1e-4, atol=1e-6)


def test_pissa_of_a_large_weight_is_its_best_approximation():
    """Whose leading triplets are found without a whole decomposition."""
    torch.manual_seed(0)
    layer = nn.Linear(700, 600, bias=False)
    with torch.no_grad():
        U, S, Vh = torch.linalg.svd(layer.weight.double(), full_matrices=False)
        S = torch.arange(1, len(S) + 1, dtype=torch.float64) ** -0.5
        layer.weight.copy_(U * S @ Vh)
    model = nn.Sequential(layer)
    inject(model, LoRA(r=8, init="pissa"), ["0"])
    found = (layer.scaling * layer.lora_B @ layer.lora_A).detach().double()
    best = U[:, :8] * S[:8] @ Vh[:8]
    assert float((found - best).norm() / best.norm()) < 1e-3
    left = float((layer.weight.detach().double() - found).norm())
    assert left == pytest.approx(float(S[8:].norm()), rel=1e-6)


def test_pissa_of_groups_starts_from_the_weight_of_each():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 24))
    x, W = torch.randn(5, 10), model[0].weight.detach().clone()
    before = model(x)
    inject(model, LoRA(r=3, alpha=6, groups=(True, False, True), init="pissa"), ["0"])
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-6)
    layer = model[0]
    for k, rows in enumerate((slice(0, 8), slice(16, 24))):
        part = layer.lora_B[8 * k : 8 * k + 8] @ layer.lora_A[3 * k : 3 * k + 3] * layer.scaling
        U, S, Vh = torch.linalg.svd(W[rows])
        torch.testing.assert_close(part, U[:, :3] * S[:3] @ Vh[:3], rtol=1e-4, atol=1e-6)
    _shake(model)
    found = model(x)
    delta_W = layer.delta_weight("default")
    torch.testing.assert_close(x @ (W + delta_W).t() + layer.bias, found, rtol=1e-4, atol=1e-5)
    assert not delta_W[8:16].any() and delta_W[:8].any()
    held = subspace.load_adapter(model)
    assert {name: update.r for name, update in held.items()} == {"0[q]": 6, "0[v]": 6}
    for update, rows in zip(held.values(), (slice(0, 8), slice(16, 24)), strict=True):
        np.testing.assert_allclose(update.scale.value * update.B @ update.A, delta_W[rows], atol=1e-5)


def test_a_small_step_from_pissa_is_not_lost_in_bfloat16():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(32, 32, bias=False)), torch.randn(4, 32)
    W = model[0].weight.detach().clone()
    inject(model, LoRA(r=4, init="pissa"), ["0"])
    with torch.no_grad():
        model[0].lora_A.mul_(1 + 1e-4)  # a fortieth of what bfloat16 tells apart
    held = subspace.load_adapter(model)["0"]
    A, B = (torch.from_numpy(np.array(f)).bfloat16().double() for f in (held.A, held.B))
    wanted = (1e-4 * model[0].scaling * model[0].lora_B @ model[0].lora_A).detach()
    found = held.scale.value * B @ A
    assert float((found - wanted).norm() / wanted.norm()) < 0.01
    torch.testing.assert_close(model(x), x @ (W + wanted).t(), rtol=1e-5, atol=1e-5)


def test_a_negative_scale_is_no_obstacle_to_pissa(net, ids):
    before = net(ids)
    inject(net, LoRA(r=2, alpha=-6, init="pissa"), LINEAR)
    torch.testing.assert_close(net(ids), before, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        net.fc.weight[0, 0] = math.nan
    with pytest.raises(ValueRangeError, match=r"pissa needs a weight of finite numbers.*module fc"):
        inject(net, LoRA(r=2, init="pissa"), ["fc"], name="second")


def test_orthogonal_is_that_of_peft_for_the_same_random_numbers():
    from peft.tuners.lora.layer import LoraLayer

    theirs = LoraLayer(nn.Linear(10, 14))
    theirs.r["x"] = 4
    for name, shape in (("lora_A", (10, 4)), ("lora_B", (4, 14))):
        getattr(theirs, name)["x"] = nn.Linear(*shape, bias=False)
    torch.manual_seed(3)
    theirs.orthogonal_init("x")
    A, B = _filled("orthogonal", (4, 10), (14, 4), r=4, seed=3)
    torch.testing.assert_close(A, theirs.lora_A["x"].weight.detach())
    torch.testing.assert_close(B, theirs.lora_B["x"].weight.detach())
    assert float((B @ A).abs().max()) < 1e-7 < 0.1 < float(A.norm())
    # rank r / 2 each, in row and column spaces that are orthogonal
    assert torch.linalg.matrix_rank(A, rtol=1e-4) == torch.linalg.matrix_rank(B, rtol=1e-4) == 2
    with pytest.raises(
        ValueRangeError, match=r"orthogonal needs an even rank, and `r` is 3, in module fc; give another"
    ):
        inject(Net(), LoRA(r=3, init="orthogonal"), ["fc"])


def test_zero_a_is_the_usual_start_with_its_sides_exchanged():
    A, B = _filled("zero-a", (4, 300), (200, 4), r=4)
    assert not A.any()
    assert 0.48 < float(B.abs().max()) <= 0.5
    assert float(B.std()) == pytest.approx(0.5 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("init", list(every()))
def test_a_start_depends_on_seed_module_and_rank_alone(init):
    def start(seed, r=2):
        torch.manual_seed(0)
        model = Net()
        torch.manual_seed(seed)  # which is nothing to it
        inject(model, LoRA(r=r, init=init, seed=seed), LINEAR)
        return model.fc.lora_A.detach(), model.fc.lora_B.detach()

    torch.set_default_dtype(torch.float64)
    try:
        first = start(0)
    finally:
        torch.set_default_dtype(torch.float32)
    again, other = start(0), start(1)
    if init != "pissa":  # of which the weight is the only source, and Net() another one in float64
        assert all(map(torch.equal, map(torch.Tensor.float, first), again))
        assert not all(map(torch.equal, again, other))
    assert all(map(torch.equal, start(0), again))


@pytest.mark.parametrize("method", [LoRA, DoRA])
@pytest.mark.parametrize(
    ("freeze", "init"), [("a", "kaiming"), ("a", "pissa"), ("b", "zero-a"), ("b", "orthogonal")]
)
def test_a_frozen_factor_stays_at_its_start(net, ids, method, freeze, init):
    inject(net, method(r=2, freeze=freeze, init=init), LINEAR)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    out = net(ids)
    _steps(net, ids, n=3)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    other = {"a": "lora_B", "b": "lora_A"}[freeze]
    parts = (other, "lora_magnitude_vector") if method is DoRA else (other,)
    assert changed == {f"{module}.{part}" for module in LINEAR for part in parts}
    assert not torch.allclose(net(ids), out, atol=1e-4)
    assert {name for name, p in net.named_parameters() if p.requires_grad} == changed
    moved = copy.deepcopy(net).to(torch.float64)
    assert moved.fc.factors("default")[f"lora_{freeze.upper()}"].dtype == torch.float64
    torch.testing.assert_close(moved(ids).float(), net(ids), rtol=1e-4, atol=1e-5)


@_PEFT_TELLS
def test_only_b_is_trained_as_with_peft_whose_a_is_frozen(net, ids):
    theirs = _theirs(net, LINEAR)
    trained = LoRA(r=2, alpha=6, freeze="a")
    inject(net, trained, LINEAR)
    _give(net, theirs)
    with torch.no_grad():
        for name in LINEAR:
            layer = theirs.base_model.model.get_submodule(name)
            layer.lora_A["default"].weight.copy_(net.get_submodule(name).factors("default")["lora_A"])
            layer.lora_A["default"].weight.requires_grad_(False)
    _steps(net, ids)
    _steps(theirs, ids)
    torch.testing.assert_close(net(ids), theirs(ids), rtol=1e-5, atol=1e-6)


class _Squares:
    """A task whose loss needs no data."""

    def __init__(self, ids):
        self.ids = ids

    def loss(self, model, step):
        return model(self.ids).square().sum()


@_PEFT_TELLS
@pytest.mark.parametrize(
    ("method", "config"),
    [
        (LoRA(r=2, alpha=6, lr_ratio=16), {}),
        (LoRA(r=2, alpha=6, lr_ratio=4.0, rslora=True), {"use_rslora": True}),
        (LoRA(r=2, alpha=6, lr_ratio=4.0, init="pissa"), {"init_lora_weights": "pissa"}),
        (LoRA(r=2, alpha=6, rslora=True), {"use_rslora": True}),
    ],
)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_20_steps_of_the_trainer_are_those_of_pefts_loraplus(net, ids, method, config, weight_decay):
    from peft.optimizers import create_loraplus_optimizer

    theirs = _theirs(net, LINEAR, **config)
    inject(net, method, LINEAR)
    _give(net, theirs)
    recipe = Recipe(
        steps=20, lr=1e-2, schedule="constant", warm_up=0, clip=0, dtype="float32", weight_decay=weight_decay
    )
    trainer = Trainer(net, _Squares(ids), recipe)
    for _ in range(20):
        assert trainer.advance()["lr"] == 1e-2
    optimizer = create_loraplus_optimizer(
        theirs, torch.optim.AdamW, lr=1e-2, loraplus_lr_ratio=method.lr_ratio or 1, loraplus_weight_decay=weight_decay
    )  # fmt: skip
    _steps(theirs, ids, optimizer)
    own = dict(theirs.named_parameters())
    for name, value in trainer.parameters.items():
        torch.testing.assert_close(value, own[_peft_name(name)], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net(ids), theirs(ids), rtol=1e-4, atol=1e-6)


@_PEFT_TELLS
@pytest.mark.parametrize(
    ("targets", "dropout", "init", "config"),
    [
        (ALL, 0.0, "kaiming", {}),
        (ALL, 0.3, "kaiming", {}),
        (LINEAR, 0.0, "pissa", {"init_lora_weights": "pissa"}),
    ],
)
def test_dora_is_that_of_peft_from_its_start_to_step_20(net, ids, targets, dropout, init, config):
    theirs = _theirs(net, targets, use_dora=True, lora_dropout=dropout, **config)
    before = net(ids)
    inject(net, DoRA(r=2, alpha=6, dropout=dropout, init=init), targets)
    own = dict(theirs.named_parameters())
    for name, value in net.named_parameters():
        if "magnitude" in name:
            expected = own[f"base_model.model.{name}.default.weight"].flatten()
            torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(net.eval()(ids), before, rtol=1e-6, atol=1e-6)
    net.train()
    _give(net, theirs)
    _steps(net, ids)
    _steps(theirs, ids)
    found = net.eval()(ids)
    torch.testing.assert_close(found, theirs.eval()(ids), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found, before, atol=1e-2)
    merge(net)
    torch.testing.assert_close(net(ids), found, rtol=1e-4, atol=1e-6)
    # what it says of the weight while it is merged is relative to the unmerged one
    torch.testing.assert_close(
        net.fc.original[0] + net.fc.delta_weight("default"), net.fc.weight, rtol=1e-5, atol=1e-6
    )


def test_dora_refuses_rows_without_a_direction(net):
    with torch.no_grad():
        net.fc.weight[2] = 0
    with pytest.raises(
        ValueRangeError, match="rows of zeros, which have no direction: 1 of 7, in module fc; leave"
    ):
        inject(net, DoRA(r=2), LINEAR)
    assert not any("lora" in name for name in net.state_dict())


def test_dora_in_memory_is_read_as_such(net):
    inject(net, DoRA(r=2), LINEAR)
    _shake(net)
    held = subspace.load_adapter(net)
    assert {name: update.flags for name, update in held.items()} == dict.fromkeys(LINEAR, (Flag.DORA,))
    assert not held.unknown


def test_dora_and_pissa_under_autocast_are_near_float32(net, ids):
    for method in (DoRA(r=2), LoRA(r=2, init="pissa"), DoRA(r=2, init="pissa")):
        model = copy.deepcopy(net)
        inject(model, method, LINEAR)
        wide = model(ids)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model(ids).float(), wide, rtol=0.05, atol=0.01)


def test_a_run_that_was_begun_before_there_were_these_settings_goes_on(tmp_path):
    settings = Job().settings()
    begun = copy.deepcopy(settings)
    for name in ("freeze", "lr_ratio"):
        del begun["method"][name]
    RUN.require_same(tmp_path, begun, settings)


def test_dora_turns_rows_and_rescales_them():
    """Equation 5 by hand: a row (3, 4) that is turned to (5, 0) and whose magnitude is 10 becomes (10, 0)."""
    layer = nn.Sequential(nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        layer[0].weight.copy_(torch.tensor([[3.0, 4.0]]))
    inject(layer, DoRA(r=1, alpha=1), ["0"])
    assert layer[0].lora_magnitude_vector.tolist() == [5.0]
    with torch.no_grad():
        layer[0].lora_A.copy_(torch.tensor([[2.0, -4.0]]))
        layer[0].lora_B.fill_(1.0)
        layer[0].lora_magnitude_vector.fill_(10.0)
    assert layer(torch.tensor([[1.0, 7.0]])).tolist() == [[10.0]]
    assert layer[0].delta_weight("default").tolist() == [[7.0, -4.0]]


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        (LoRA, {"init": "pissa", "dropout": 0.1}, "With `init` pissa, dropout would drop parts of the weight"),
        (LoRA, {"freeze": "a", "lr_ratio": 4.0}, "`lr_ratio` compares the rates of A and B, and `freeze` a trains"),
        (LoRA, {"lr_ratio": 0}, "With `lr_ratio` 0 B is never trained.* give `freeze` b"),
        (LoRA, {"lr_ratio": -1.0}, "Invalid `lr_ratio` -1.0: it must be finite and at least 0"),
        (LoRA, {"lr_ratio": math.inf}, "Invalid `lr_ratio` inf: it must be finite and at least 0"),
        (LoRA, {"freeze": "A"}, "Invalid `freeze` 'A': it must be one of a, b"),
        (DoRA, {"init": "eva"}, "Invalid `init` 'eva': it must be one of gaussian, kaiming, orthogonal, pissa, zero-a"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_in_one_line(method, given, message):
    with pytest.raises(ValueRangeError, match=message) as refused:
        method(**given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("freeze", "init", "target"), [("b", "kaiming", "fc"), ("a", "zero-a", "fc"), ("a", "kaiming", "table")]
)
def test_a_factor_that_is_frozen_at_zero_is_refused_and_nothing_is_changed(net, freeze, init, target):
    with pytest.raises(
        ValueRangeError, match=f"{freeze.upper()} is zero at the start {init}.*in module {target}"
    ):
        inject(net, LoRA(r=2, freeze=freeze, init=init), [target])
    assert not any("lora" in name for name in net.state_dict())


def test_loralibs_format_is_refused_where_it_could_not_say_what_the_file_holds():
    Job(method=LoRA(init="orthogonal"), format="loralib")
    with pytest.raises(
        ValueRangeError, match="loralib cannot hold an adapter that starts from a part of the weight"
    ):
        Job(method=LoRA(init="pissa"), format="loralib")
    with pytest.raises(ValueRangeError, match="loralib cannot hold what the method dora trains"):
        Job(method=DoRA(), format="loralib")


_VARIANTS = {
    "pissa": LoRA(r=2, init="pissa"),
    "rslora pissa": LoRA(r=2, init="pissa", rslora=True, freeze="a"),
    "orthogonal": LoRA(r=2, init="orthogonal", lr_ratio=4.0),
    "zero-a": LoRA(r=2, init="zero-a", freeze="b"),
    "dora": DoRA(r=2, lr_ratio=4.0),
    "dora pissa": DoRA(r=2, init="pissa"),
}


@pytest.mark.parametrize("method", _VARIANTS.values(), ids=list(_VARIANTS))
@pytest.mark.parametrize(("kind", "targets"), [("llama", ("q_proj", "embed_tokens")), ("gpt2", ("c_attn",))])
def test_it_resumes_to_the_same_bits_and_peft_loads_it_onto_the_plain_base(
    kind, targets, method, tmp_path, text, monkeypatch
):
    import peft
    import transformers

    from subspace.training import run

    folder = tiny(kind, tmp_path / "model")
    recipe = Recipe(steps=4, batch=4, length=16, lr=1e-2, dtype="float32")
    job = Job(
        model=str(folder), data=text, method=method, targets=targets, recipe=recipe, threads=1, save_every=0
    )
    seen, notes = {}, []
    monkeypatch.setattr(run._Training, "_account", lambda self, *_: seen.update(model=self.model))
    train(job, tmp_path / "out", tell=notes.append)
    stops = iter([False, False, True])
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path / "again", stopping=lambda: next(stops))
    state = load_file(tmp_path / "again/checkpoint-3/optimizer.safetensors")
    fixed = {
        part
        for part in method.fixed
        if part in seen["model"].get_submodule(_first(seen["model"])).factors("default")
    }
    assert {key.rpartition(".")[2] for key in state if key.startswith("buffer/") and "lora" in key} == fixed
    assert train(job, tmp_path / "again").resumed == 3
    for name in ("adapter_model.safetensors", "start/adapter_model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()

    ids = torch.arange(20).view(2, 10)
    ours, base = seen["model"].eval(), transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        before, found = base(input_ids=ids).logits, ours(input_ids=ids).logits
        for name, expected in (("out", found), ("out/start", before)):
            base = transformers.AutoModelForCausalLM.from_pretrained(folder)
            theirs = peft.PeftModel.from_pretrained(base, tmp_path / name).eval()
            torch.testing.assert_close(theirs(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, found, atol=1e-3)

    module = _first(ours)
    rank = 4 if method.of_weight else 2
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["r"] == rank
    assert any(f"saved with rank {rank}, twice the r = 2 that is trained" in note for note in notes) == (
        rank == 4
    )
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record.get("notes", []) == list(method.notes)
    update = subspace.load_adapter(tmp_path / "out")[module]
    if isinstance(method, LoRA):
        delta_W = ours.get_submodule(module).delta_weight("default")
        written = update.scale.value * update.B.astype("f8") @ update.A.astype("f8")
        np.testing.assert_allclose(
            written if kind == "llama" and "embed" not in module else written.T, delta_W, atol=1e-6
        )
        held = subspace.load_adapter(ours)[module]
        np.testing.assert_allclose(held.scale.value * held.B @ held.A, written, atol=1e-6)
    compared = subspace.compare(tmp_path / "out", tmp_path / "out", init=tmp_path / "out/start")
    assert compared.modules
    amplified = {row.module: row for row in subspace.amplify(folder, tmp_path / "out")}[module]
    norm = amplified.norm_delta_W if isinstance(method, LoRA) else amplified.norm_whole
    assert norm == pytest.approx(float(ours.get_submodule(module).delta_weight("default").norm()), rel=1e-4)


def _first(model):
    return next(name for name, layer in model.named_modules() if getattr(layer, "active", None))
