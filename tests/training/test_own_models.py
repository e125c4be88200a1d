"""Models of one's own: save, load, account and train, against PEFT and against loops written by hand."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_models import tiny  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

import subspace  # noqa: E402
from subspace.errors import FileError, FormatError, ShapeError, ValueRangeError  # noqa: E402
from subspace.training import (  # noqa: E402
    IA3,
    Full,
    Job,
    LoRA,
    Recipe,
    account,
    adapted,
    inject,
    load,
    merge,
    remove,
    save,
    train,
    unmerge,
    use,
)
from subspace.training.loop import DivergedError  # noqa: E402


class Net(nn.Module):
    """A model without a configuration: layers of each kind, and one whose name is the end of another's."""

    def __init__(self, *, normed=False):
        super().__init__()
        self.table = nn.Embedding(20, 12)
        self.block = nn.ModuleDict({"fc": nn.Linear(12, 12), "out": nn.Linear(12, 12)})
        self.conv = nn.Conv1d(12, 8, 3, padding=1)
        self.norm = nn.BatchNorm1d(8) if normed else nn.Identity()
        self.fc = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids):
        h = self.block["out"](torch.tanh(self.block["fc"](self.table(ids))))
        h = self.norm(self.conv(h.transpose(1, 2))).mean(2)
        return self.head(torch.tanh(self.fc(h)))


def net(seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(**options)


def batches(n=5, seed=3):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 20, (n, 8, 6), generator=generator)
    return [(each, each[:, 0] % 3) for each in ids]


IDS = batches(1, seed=9)[0][0]


def loop(model, steps=5, lr=0.05):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    for ids, target in batches(steps):
        functional.cross_entropy(model(ids), target).backward()
        optimizer.step()
        optimizer.zero_grad()


def shaken(model):
    """The model with every trained parameter moved from its start."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).to(parameter))
    return model


def config(folder):
    return json.loads((Path(folder) / "adapter_config.json").read_text())


def peft_outputs(model, folder, *inputs):
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = PeftModel.from_pretrained(model, folder).eval()
    with torch.no_grad():
        return theirs(*inputs)


def outputs(model, *inputs):
    with torch.no_grad():
        return model.eval()(*inputs)


# saving


@pytest.mark.parametrize(
    ("method", "targets", "keep"),
    [
        (LoRA(r=2, alpha=6), ["table", "block.fc", "conv", "fc"], ["head", "norm"]),
        (LoRA(r=2, rslora=True), ["block.fc", "out"], []),
        (LoRA(r=2), ["out"], ["head.bias"]),
        (IA3(feedforward=("out",)), ["block.fc", "out"], ["head"]),
    ],
)
def test_peft_gives_the_same_outputs_from_a_model_without_a_configuration(tmp_path, method, targets, keep):
    normed = "norm" in keep
    model = net(normed=normed)
    inject(model, method, targets, keep=keep)
    loop(model)
    save(model, tmp_path / "a")
    assert config(tmp_path / "a")["base_model_name_or_path"] is None
    assert config(tmp_path / "a")["task_type"] is None
    theirs = peft_outputs(net(normed=normed), tmp_path / "a", IDS)
    assert torch.allclose(theirs, outputs(model, IDS), atol=1e-5)


@pytest.mark.parametrize("method", [LoRA(r=2), IA3(), IA3(feedforward=("fc",))])
def test_targets_match_no_other_module_whose_name_ends_alike(tmp_path, method):
    """The layer fc at the top is adapted alone: ``fc`` in PEFT's list would be block.fc too."""
    from subspace.training.module_patterns import Exact

    model = net()
    assert inject(model, method, [Exact("fc")]) == ["fc"]
    shaken(model)
    save(model, tmp_path / "a")
    assert torch.allclose(peft_outputs(net(), tmp_path / "a", IDS), outputs(model, IDS), atol=1e-5)
    assert [row.module for row in subspace.inspect(tmp_path / "a").modules] == ["fc"]


def test_feedforward_modules_match_no_other_target_whose_name_ends_in_the_same_letters(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.fc, self.pre_fc = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(self.pre_fc(x))

    model, x = Two(), torch.randn(3, 4)
    inject(model, IA3(feedforward=("fc",)), ["fc", "pre_fc"])
    shaken(model)
    save(model, tmp_path / "a")
    assert torch.allclose(peft_outputs(Two(), tmp_path / "a", x), outputs(model, x), atol=1e-6)
    again = Two()
    load(again, tmp_path / "a")
    assert torch.equal(outputs(again, x), outputs(model, x))


def test_peft_finds_the_whole_of_a_module_of_which_one_parameter_was_kept(tmp_path):
    model = net()
    inject(model, LoRA(r=2), ["out"], keep=["head.bias"])
    loop(model)
    save(model, tmp_path / "a")
    assert "base_model.model.head.weight" in load_file(tmp_path / "a" / "adapter_model.safetensors")
    again = net()
    load(again, tmp_path / "a")
    assert torch.equal(outputs(again, IDS), outputs(model, IDS))


def test_the_start_is_saved_as_inject_put_it_in(tmp_path):
    model = net()
    inject(model, LoRA(r=2, seed=7), ["fc", "table"])
    begun = {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}
    loop(model)
    save(model, tmp_path / "a")
    start = load_file(tmp_path / "a" / "start" / "adapter_model.safetensors")
    assert torch.equal(start["base_model.model.fc.lora_A.weight"], begun["fc.lora_A"])
    assert torch.equal(start["base_model.model.table.lora_embedding_B"], begun["table.lora_B"])
    assert not start["base_model.model.fc.lora_B.weight"].any()
    assert not torch.equal(model.fc.lora_A, begun["fc.lora_A"])  # and the model still has what it learned


def test_what_is_saved_merged_is_what_is_saved_unmerged_and_the_model_stays_merged(tmp_path):
    model = net()
    inject(model, LoRA(r=2), ["fc", "block.fc"], keep=["head"])
    loop(model)
    save(model, tmp_path / "unmerged")
    merge(model)
    before = outputs(model, IDS)
    save(model, tmp_path / "merged")
    for name in ("adapter_model.safetensors", "adapter_config.json", "start/adapter_model.safetensors"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "unmerged" / name).read_bytes()
    assert all(layer.merged for _, layer in adapted(model))
    assert torch.equal(outputs(model, IDS), before)
    unmerge(model)


def test_an_adapter_that_is_not_active_is_not_saved(tmp_path):
    model = net()
    inject(model, LoRA(r=2), ["fc"], name="first")
    use(model, None)
    with pytest.raises(ValueRangeError, match=r"No adapter is active.*first.*use\(model, name\)"):
        save(model, tmp_path / "a")
    remove(model)
    with pytest.raises(ValueRangeError, match="no adapter to save; inject one first"):
        save(model, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_of_several_adapters_the_active_one_is_saved(tmp_path):
    model = net()
    inject(model, LoRA(r=2), ["fc"], name="first")
    inject(model, LoRA(r=3), ["out"], name="second")
    save(model, tmp_path / "second")
    use(model, "first")
    save(model, tmp_path / "first")
    assert (config(tmp_path / "first")["r"], config(tmp_path / "second")["r"]) == (2, 3)


def test_a_directory_that_holds_something_is_replaced_only_on_request(tmp_path):
    model = net()
    inject(model, LoRA(r=2), ["fc"])
    save(model, tmp_path / "a", labels=["x", "y", "z"])
    (tmp_path / "a" / "README.md").write_text("mine")
    with pytest.raises(FileError, match=r"exists already; .*`overwrite`"):
        save(model, tmp_path / "a")
    remove(model)
    inject(model, IA3(), ["fc"])
    save(model, tmp_path / "a", overwrite=True)
    # what is no part of the new adapter is gone, and what somebody else put there is not
    assert sorted(p.relative_to(tmp_path / "a").as_posix() for p in (tmp_path / "a").rglob("*")) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(FileError, match="something other than an adapter"):
        save(model, tmp_path / "other", overwrite=True)


def test_names_of_classes_are_saved_and_given_to_a_model_that_has_a_place_for_them(tmp_path):
    import transformers

    folder = tiny("bert", tmp_path / "base")
    kind = transformers.AutoModelForSequenceClassification
    model = kind.from_pretrained(folder, num_labels=2)
    inject(model, LoRA(r=2), ["query"], keep=["classifier"])
    with pytest.raises(ValueRangeError, match="3 labels for a classifier of 2 classes"):
        save(model, tmp_path / "a", labels=["ham", "spam", "eggs"])
    with pytest.raises(ValueRangeError, match="one text"):
        save(model, tmp_path / "a", labels="ham")
    save(model, tmp_path / "plain")
    assert not (tmp_path / "plain" / "labels.json").exists()  # LABEL_0 and LABEL_1 say nothing
    save(model, tmp_path / "a", labels=["ham", "spam"])
    assert config(tmp_path / "a")["base_model_name_or_path"] == str(folder)
    assert config(tmp_path / "a")["task_type"] == "SEQ_CLS"
    other = kind.from_pretrained(folder, num_labels=2)
    load(other, tmp_path / "a")
    assert other.config.id2label == {0: "ham", 1: "spam"}
    save(other, tmp_path / "b")
    assert (tmp_path / "b" / "labels.json").read_text() == (tmp_path / "a" / "labels.json").read_text()


# names


# torch's compiler warns of what it does itself
_COMPILES = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*:UserWarning:torch")


def _wrapped(kind, model):
    if kind == "compiled":
        return torch.compile(model, backend="eager")
    if kind == "parallel":
        return nn.DataParallel(model)
    if kind == "both":
        return nn.DataParallel(torch.compile(model, backend="eager"))
    model.block["fc"] = torch.compile(model.block["fc"], backend="eager")
    return model


@_COMPILES
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("kind", ["compiled", "parallel", "both", "inside"])
def test_wrappers_leave_no_words_in_names_nor_another_start(tmp_path, kind, before):
    plain, model = net(), net()
    wrapped = _wrapped(kind, model) if before else model
    for each in (plain, wrapped):
        assert inject(each, LoRA(r=2), ["block.fc", "conv"], keep=["head"]) == ["block.fc", "conv"]
    wrapped = wrapped if before else _wrapped(kind, model)
    loop(plain)
    loop(wrapped)
    save(plain, tmp_path / "plain")
    save(wrapped, tmp_path / "wrapped")
    assert config(tmp_path / "wrapped") == config(tmp_path / "plain")
    for name in ("adapter_model.safetensors", "start/adapter_model.safetensors"):
        found, expected = load_file(tmp_path / "wrapped" / name), load_file(tmp_path / "plain" / name)
        assert set(found) == set(expected)
        assert all(torch.allclose(found[key], expected[key], atol=1e-6) for key in expected)
    again = _wrapped(kind, net())
    assert load(again, tmp_path / "plain") == ["block.fc", "conv"]
    assert torch.allclose(outputs(again, IDS), outputs(plain, IDS), atol=1e-6)


def test_distributed_data_parallel_leaves_no_word_in_names(tmp_path):
    store = f"file://{tmp_path}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        model = net()
        inject(model, LoRA(r=2), ["fc", "conv"], keep=["head"])
        wrapped = nn.parallel.DistributedDataParallel(model)
        loop(wrapped)
        save(wrapped, tmp_path / "a")
    finally:
        torch.distributed.destroy_process_group()
    again = net()
    load(again, tmp_path / "a")
    assert torch.equal(outputs(again, IDS), outputs(model, IDS))
    assert not any("module" in key for key in load_file(tmp_path / "a" / "adapter_model.safetensors"))


class Shared(nn.Module):
    """One layer under two names, a block that two lists hold, and an output that is tied to the table."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(20, 6)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(6, 6), nn.Tanh())] * 2)
        self.first = nn.Linear(6, 6)
        self.second = self.first
        self.head = nn.Linear(6, 20, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        h = self.table(ids)
        for block in self.blocks:
            h = block(h)
        return self.head(self.second(torch.tanh(self.first(h))))


def test_a_shared_block_is_saved_once_and_peft_computes_the_same(tmp_path):
    model = Shared()
    assert inject(model, LoRA(r=2), ["blocks.0.0", "table"]) == ["table", "blocks.0.0"]
    shaken(model)
    save(model, tmp_path / "a")
    assert torch.allclose(peft_outputs(Shared(), tmp_path / "a", IDS), outputs(model, IDS), atol=1e-5)


def test_a_layer_under_two_names_and_a_tied_weight_come_back(tmp_path):
    model = Shared()
    assert inject(model, LoRA(r=2), ["first"], keep=["head"]) == ["first"]
    shaken(model)
    save(model, tmp_path / "a")
    assert config(tmp_path / "a")["modules_to_save"] == ["table", "head"]
    again = Shared()
    load(again, tmp_path / "a")
    assert torch.equal(outputs(again, IDS), outputs(model, IDS))
    assert again.head.weight is again.table.weight


def test_a_model_in_bfloat16_is_saved_and_loaded_as_peft_has_it(tmp_path):
    model = net().bfloat16()
    inject(model, LoRA(r=2), ["fc", "block.fc"], keep=["head"])
    shaken(model)
    save(model, tmp_path / "a")
    stored = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert stored["base_model.model.fc.lora_A.weight"].dtype == torch.float32
    assert stored["base_model.model.head.weight"].dtype == torch.bfloat16
    again = net().bfloat16()
    load(again, tmp_path / "a")
    assert torch.equal(outputs(again, IDS), outputs(model, IDS))
    theirs = peft_outputs(net().bfloat16(), tmp_path / "a", IDS)
    assert torch.allclose(theirs.float(), outputs(model, IDS).float(), atol=0.05)


# loading


@pytest.mark.parametrize("name", ["default", "other"])
def test_what_was_saved_comes_back_with_its_kept_modules_and_its_start(tmp_path, name):
    model = net(normed=True)
    inject(
        model,
        LoRA(r=2, dropout=0.1, init="gaussian", seed=4),
        ["out", "conv", "table"],
        keep=["head", "norm"],
    )
    loop(model)
    save(model, tmp_path / "a")
    again = net(normed=True)
    assert load(again, tmp_path / "a", name=name) == ["table", "block.out", "conv"]
    assert torch.equal(outputs(again, IDS), outputs(model, IDS))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n, p in again.named_parameters() if p.requires_grad} == trained
    save(again, tmp_path / "b")
    for file in ("adapter_model.safetensors", "adapter_config.json", "start/adapter_model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_start_of_a_loaded_adapter_without_one_is_not_made_up(tmp_path):
    model = net()
    inject(model, LoRA(r=2), ["fc"])
    save(model, tmp_path / "a")
    for path in (tmp_path / "a" / "start").iterdir():
        path.unlink()
    again = net()
    load(again, tmp_path / "a")
    save(again, tmp_path / "b")
    assert not (tmp_path / "b" / "start").exists()


def test_training_goes_on_from_a_loaded_adapter(tmp_path):
    model = net()
    inject(model, LoRA(r=2), ["fc"])
    loop(model)
    save(model, tmp_path / "a")
    again = net()
    load(again, tmp_path / "a")
    for each in (model, again):
        loop(each)
    assert torch.equal(model.fc.lora_B, again.fc.lora_B)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"block.fc": 4}, "alpha_pattern": {".*fc": 3}},
        {"modules_to_save": ["head"], "init_lora_weights": "gaussian"},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_peft_gives_the_outputs_that_it_gives_there(tmp_path, settings, suffix):
    from peft import LoraConfig, get_peft_model

    targets = ["table", "block.fc", "conv", "out"]
    theirs = get_peft_model(net(), LoraConfig(r=2, lora_alpha=6, target_modules=targets, **settings))
    shaken(theirs)
    theirs.save_pretrained(tmp_path / "a", safe_serialization=suffix == "safetensors")
    model = net()
    load(model, tmp_path / "a")
    assert torch.allclose(outputs(model, IDS), outputs(theirs, IDS), atol=1e-5)
    save(model, tmp_path / "b")  # and goes back
    assert torch.allclose(peft_outputs(net(), tmp_path / "b", IDS), outputs(theirs, IDS), atol=1e-5)


def test_groups_of_a_fused_layer_come_back_as_one_pair(tmp_path):
    model = nn.Sequential(nn.Linear(6, 12))
    base = copy.deepcopy(model)
    inject(model, LoRA(r=2, groups=(True, False, True)), ["0"])
    shaken(model)
    save(model, tmp_path / "a")
    load(base, tmp_path / "a")
    x = torch.randn(3, 6)
    assert torch.allclose(base(x), model(x), atol=1e-6)
    assert base[0].methods["default"].r == 4


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, "relative to a changed base"),
        ({"bias": "all"}, "trains biases"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_adapters_of_peft_that_compute_something_else_are_refused(tmp_path, settings, match):
    from peft import LoraConfig, get_peft_model

    get_peft_model(net(), LoraConfig(r=2, target_modules=["fc"], **settings)).save_pretrained(tmp_path / "a")
    model = net()
    with pytest.raises(FormatError, match=match):
        load(model, tmp_path / "a")
    assert not adapted(model)


@pytest.fixture
def saved(tmp_path):
    model = net()
    inject(model, LoRA(r=2), ["out", "conv"], keep=["head"])
    return save(model, tmp_path / "a")


def _edit(folder, **changes):
    (folder / "adapter_config.json").write_text(json.dumps({**config(folder), **changes}))


def _edit_tensors(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_another_type_of_adapter_is_named(saved):
    _edit(saved, peft_type="VERA")
    with pytest.raises(FormatError, match=r"type VERA cannot be loaded.*IA3, LORA can"):
        load(net(), saved)


@pytest.mark.parametrize("pattern", ["(a*)*b", "(.*.*)*", "fc" * 2000])
def test_an_expression_that_could_take_for_ever_is_refused(saved, pattern):
    _edit(saved, alpha_pattern={pattern: 3})
    with pytest.raises(FormatError, match="alpha_pattern"):
        load(net(), saved)


@pytest.mark.parametrize("alpha", [None, "16", True, {}])
def test_an_alpha_that_is_no_number_is_refused(saved, alpha):
    _edit(saved, lora_alpha=alpha)
    with pytest.raises(FormatError, match="Invalid lora_alpha"):
        load(net(), saved)


def test_an_adapter_that_is_not_whole_is_refused(saved):
    _edit_tensors(saved, lambda tensors: tensors.pop("base_model.model.conv.lora_B.weight"))
    with pytest.raises(FormatError, match="not whole: conv has no lora_B"):
        load(net(), saved)
    _edit_tensors(saved, lambda tensors: [tensors.pop(key) for key in list(tensors) if "lora" in key])
    with pytest.raises(FormatError, match="no tensors of the type lora"):
        load(net(), saved)
    (saved / "adapter_model.safetensors").unlink()
    with pytest.raises(FileError, match=r"No weights in .*adapter_model.safetensors"):
        load(net(), saved)


def test_a_directory_without_an_adapter_is_refused(tmp_path):
    with pytest.raises(FileError, match=r"No adapter in .*nowhere: there is no adapter_config.json"):
        load(net(), tmp_path / "nowhere")


def test_modules_that_the_model_lacks_are_named_and_nothing_is_changed(saved):
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ShapeError, match=r"another model: it adapts block.out, conv, which.*the model has 0"):
        load(model, saved)
    assert type(model[0]) is nn.Linear


def test_other_shapes_are_named_and_nothing_is_changed(saved):
    model = net()
    model.block["out"] = nn.Linear(12, 5)
    with pytest.raises(ShapeError, match=r"lora_B of block.out has the shape \(12, 2\).*needs \(5, 2\)"):
        load(model, saved)
    model = net()
    model.head = nn.Linear(8, 4)
    with pytest.raises(ShapeError, match=r"head.bias has the shape \(3,\) .*\(4,\) in the model"):
        load(model, saved)
    model = net()
    model.conv = nn.ReLU()
    with pytest.raises(ValueRangeError, match=r"conv \(ReLU\) cannot be adapted"):
        load(model, saved)
    model = net()
    del model.head
    with pytest.raises(ShapeError, match=r"2 tensors of no module of this model: head.bias, head.weight"):
        load(model, saved)
    assert not adapted(model)


def test_an_adapter_of_the_same_name_stays(saved):
    model = net()
    inject(model, LoRA(r=2), ["block.fc"])
    with pytest.raises(ValueRangeError, match="already has an adapter called 'default'"):
        load(model, saved)
    assert load(model, saved, name="second") == ["block.out", "conv"]
    use(model, "default")
    assert [name for name, layer in adapted(model) if layer.active] == ["block.fc"]


# costs


def test_costs_of_a_model_of_ones_own_are_those_of_the_parts(saved):
    model = net()
    inject(model, LoRA(r=2), ["out"], keep=["head"])
    before = {name: p.clone() for name, p in model.named_parameters()}
    found = account(model, batches(1)[0], loss=functional.cross_entropy, dtype="float32", rounds=1)
    assert found.total == sum(p.numel() for p in net().parameters())
    assert found.run.trainable == 2 * 12 * 2 + 8 * 3 + 3
    assert found.full is not None
    assert found.full.trainable == found.total
    assert 0 < found.run.flops < found.full.flops
    assert found.merged_difference < 1e-5
    assert found.lines()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert (
        account(nn.DataParallel(model), batches(1)[0], loss=functional.cross_entropy, rounds=1).total
        == found.total
    )


# training


class WithLoss(nn.Module):
    """Gives its loss as a dict of transformers does."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, ids, target):
        return {"logits": None, "loss": functional.cross_entropy(self.net(ids), target)}


class Scalar(WithLoss):
    """Gives nothing but its loss."""

    def forward(self, ids, target):
        return super().forward(ids, target)["loss"]


def run(model, data=None, **options):
    options = {"loss": functional.cross_entropy, "method": LoRA(r=2), "targets": ["fc", "conv"], **options}
    options = {"steps": 6, "lr": 0.02, "dtype": "float32", "keep": ["head"], **options}
    return train(model, batches() if data is None else data, **options)


def trained(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def same(first, second):
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("kind", "as_batch", "options"),
    [
        (Net, lambda ids, target: (ids, target), {}),
        (Net, lambda ids, target: [ids, target], {}),
        (Net, lambda ids, target: {"ids": ids, "labels": target}, {}),
        (WithLoss, lambda ids, target: (ids, target), {"loss": None}),
        (WithLoss, lambda ids, target: {"target": target, "ids": ids}, {"loss": None}),
        (Scalar, lambda ids, target: (ids, target), {"loss": None}),
    ],
)
def test_batches_and_losses_of_any_kind_train_the_same(kind, as_batch, options):
    torch.manual_seed(0)
    model = kind()
    state = {key.removeprefix("net."): value for key, value in model.state_dict().items()}
    reference = net()
    reference.load_state_dict(state)
    expected = run(reference, seed=3, method=None, targets=["fc"], keep=[])
    found = run(
        model,
        [as_batch(*each) for each in batches()],
        seed=3,
        method=None,
        targets=["fc"],
        keep=[],
        **options,
    )
    losses = [[row["loss"] for row in each.log] for each in (found, expected)]
    # the start depends on the name of a module
    assert losses[0][0] == losses[1][0]
    assert losses[0][-1] < losses[0][0]
    assert (losses[0] == losses[1]) == (kind is Net)
    assert found.path is None
    assert found.files == ()


def test_a_tensor_is_input_and_target():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4))
    x = torch.randn(16, 4)
    done = train(model, [x], loss=functional.mse_loss, method=LoRA(r=4), targets=["0"], steps=40, lr=0.02)
    assert done.log[-1]["loss"] < 0.5 * done.log[0]["loss"]


def test_a_run_is_the_loop_that_one_would_write():
    model, expected = net(), net()
    run(model, schedule="constant", warm_up=0.0, clip=0.0, steps=5, lr=0.05)
    inject(expected, LoRA(r=2), ["fc", "conv"], keep=["head"])
    optimizer = torch.optim.AdamW(
        [p for p in expected.parameters() if p.requires_grad], lr=0.05, weight_decay=0.0, fused=True
    )
    for ids, target in batches(5):
        functional.cross_entropy(expected(ids), target).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert same(trained(model), trained(expected))


def test_the_same_call_gives_the_same_bits_and_leaves_the_random_state_and_the_mode_alone():
    model, again = net().eval(), net()
    data = TensorDataset(torch.cat([ids for ids, _ in batches()]), torch.cat([y for _, y in batches()]))
    before = torch.get_rng_state()
    for each in (model, again):
        torch.rand(3)
        state = torch.get_rng_state()
        run(each, DataLoader(data, batch_size=8, shuffle=True), method=LoRA(r=2, dropout=0.3), steps=12)
        assert torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(before)
    assert same(trained(model), trained(again))
    assert not any(module.training for module in model.modules())
    other = net()
    run(other, DataLoader(data, batch_size=8, shuffle=True), method=LoRA(r=2, dropout=0.3), steps=12, seed=1)
    assert not same(trained(model), trained(other))


def test_a_run_leaves_the_directory_that_the_command_leaves(tmp_path):
    model = net()
    done = run(model, out=tmp_path / "a", steps=4)
    assert done.path == tmp_path / "a"
    assert {path.name for path in done.files} == {"adapter_model.safetensors", "adapter_config.json"}
    assert done.record["targets"] == ["block.fc", "conv", "fc"]
    assert done.record["kept"] == ["head.weight", "head.bias"]
    assert [json.loads(row) for row in (tmp_path / "a" / "log.jsonl").read_text().splitlines()] == list(
        done.log
    )
    assert (tmp_path / "a" / "start" / "adapter_model.safetensors").is_file()
    rows = subspace.compare(tmp_path / "a", tmp_path / "a").modules
    assert {row.module for row in rows} == {"block.fc", "conv", "fc"}
    assert torch.allclose(peft_outputs(net(), tmp_path / "a", IDS), outputs(model, IDS), atol=1e-5)
    with pytest.raises(FileError, match="directory of a training run"):
        save(model, tmp_path / "a", overwrite=True)


def _stopped(model, out, after, **options):
    calls = []

    def stopping():
        calls.append(1)
        return len(calls) == after

    with pytest.raises(KeyboardInterrupt):
        run(model, out=out, stopping=stopping, **options)


def _loader():
    data = TensorDataset(torch.cat([ids for ids, _ in batches()]), torch.cat([y for _, y in batches()]))
    return DataLoader(data, batch_size=8, shuffle=True)


def _seeded():
    return DataLoader(
        _loader().dataset, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(2)
    )


@pytest.mark.parametrize("data", [batches, _loader, _seeded, lambda: iter(batches(30))])
@pytest.mark.parametrize("after", [1, 7])
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path, data, after):
    options = {"steps": 12, "accumulate": 2, "method": LoRA(r=2, dropout=0.3)}
    options["keep"] = ["head", "norm"]
    whole, model = net(normed=True), net(normed=True)
    run(whole, data(), **options)
    _stopped(model, tmp_path / "a", after, data=data(), **options)
    model, notes = net(normed=True), []
    done = run(model, data(), out=tmp_path / "a", tell=notes.append, **options)
    assert done.resumed == after
    assert notes == [f"resuming from step {after} of 12"]
    assert same(trained(model), trained(whole))
    assert torch.equal(model.norm.running_mean, whole.norm.running_mean)


def test_a_run_does_not_go_on_with_other_batches(tmp_path):
    _stopped(net(), tmp_path / "a", 3)
    with pytest.raises(ValueRangeError, match="data_sha256"):
        run(net(), batches(seed=4), out=tmp_path / "a")
    later = [*batches(2), *batches(3, seed=4)]
    with pytest.raises(ValueRangeError, match="cannot go on: the first 3 batches are not those"):
        run(net(), later, out=tmp_path / "a")
    with pytest.raises(ValueRangeError, match=r"begun with other settings: lr 0.02, now 0.1"):
        run(net(), out=tmp_path / "a", lr=0.1)
    with pytest.raises(ValueRangeError, match="weights of the model have changed"):
        run(net(seed=1), out=tmp_path / "a")
    assert run(net(seed=1), out=tmp_path / "a", overwrite=True).resumed == 0


def test_an_iterator_that_is_used_up_is_no_way_to_go_on(tmp_path):
    data = iter(batches(30))
    _stopped(net(), tmp_path / "a", 3, data=data)
    with pytest.raises(ValueRangeError, match="data_sha256"):
        run(net(), data, out=tmp_path / "a")


@pytest.mark.parametrize(
    "options", [{}, {"method": Full(), "targets": []}, {"method": Full(everything=False), "targets": ["fc"]}]
)
def test_a_run_that_is_done_gives_the_model_what_it_had_learned(tmp_path, options):
    model, again = net(), net()
    run(model, out=tmp_path / "a", **options)
    done = run(again, out=tmp_path / "a", **options)
    assert (done.resumed, done.files, done.log) == (6, (), ())
    assert same(trained(model), trained(again))
    assert torch.equal(outputs(model, IDS), outputs(again, IDS)) or "method" not in options


def test_an_adapter_that_is_there_is_trained_and_goes_on(tmp_path):
    def injected():
        model = net()
        inject(model, LoRA(r=2), ["fc", "conv"], keep=["head"], name="mine")
        return model

    options = {"method": None, "targets": [], "keep": []}
    whole, model = injected(), injected()
    run(whole, **options)
    _stopped(model, tmp_path / "a", 2, **options)
    model = injected()
    assert run(model, out=tmp_path / "a", **options).resumed == 2
    assert same(trained(model), trained(whole))
    again = injected()
    run(again, out=tmp_path / "a", **options)
    assert same(trained(again), trained(whole))
    assert {layer.active for _, layer in adapted(again)} == {"mine"}


@_COMPILES
def test_a_wrapped_model_is_trained_through_its_wrapper(tmp_path):
    plain, calls = net(), []
    run(plain)
    model = net()
    wrapped = torch.compile(model, backend="eager")
    wrapped.register_forward_pre_hook(lambda *_: calls.append(1))
    run(wrapped, out=tmp_path / "a")
    assert len(calls) == 6
    assert all(torch.allclose(p, trained(plain)[name], atol=1e-6) for name, p in trained(model).items())


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_last_checkpoint(tmp_path):
    data = [*batches(3), (torch.full((8, 6), 0), torch.zeros(8, dtype=torch.int64))]

    def loss(output, target):
        return functional.cross_entropy(output, target) / (0.0 if not target.any() else 1.0)

    with pytest.raises(DivergedError, match=r"diverged at step 4: the loss is inf.*checkpoint-2"):
        run(net(), data, loss=loss, out=tmp_path / "a", save_every=2)
    assert not (tmp_path / "a" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    ("data", "options", "match"),
    [
        ([], {}, "There are no batches"),
        (iter(batches(3)), {}, "The batches ended after 3"),
        (3, {}, "Not batches: int cannot be iterated over"),
        ([{"ids": IDS}], {}, "No target in a batch with ids"),
        (batches(), {"loss": None}, "forward"),
        (
            [IDS],
            {"loss": None},
            r"The model gives no loss: its output is a tensor of shape \(8, 3\); give `loss`",
        ),
        (
            batches(),
            {"loss": lambda out, y: functional.cross_entropy(out, y, reduction="none")},
            r"shape \(8,\)",
        ),
        (batches(), {"loss": lambda out, y: 1.0}, "not a single number but a float"),
        (batches(), {"method": None, "targets": [], "keep": []}, "no adapter to train: give `targets`"),
        (batches(), {"length": 4}, "`length` is for the texts of a Job"),
        (batches(), {"targets": []}, "`targets`"),
        (batches(), {"targets": ["nothing"]}, "No layer matches the target 'nothing'"),
        (batches(), {"steps": 0}, "`steps` 0"),
        (batches(), {"save_every": -1}, "`save_every` is negative"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(data, options, match):
    with pytest.raises((ValueRangeError, TypeError), match=match):
        run(net(), data, **options)


def test_a_second_adapter_is_not_put_over_the_first():
    model = net()
    inject(model, LoRA(r=2), ["fc"])
    with pytest.raises(ValueRangeError, match=r"has an adapter already.*remove\(model\)"):
        run(model)
    with pytest.raises(ValueRangeError, match="`keep` is for a new adapter"):
        run(model, method=None, targets=[])


def test_running_statistics_that_are_not_saved_are_named():
    notes = []
    run(net(normed=True), tell=notes.append)
    assert any("running statistics of norm" in note and "`keep`" in note for note in notes)
    notes.clear()
    run(net(normed=True), keep=["norm"], tell=notes.append)
    assert not notes


def test_layers_that_no_gradient_reaches_are_named():
    model = net()
    model.unused = nn.Linear(4, 4)
    notes = []
    done = run(model, targets=["fc", "unused"], tell=notes.append)
    assert done.record["never_reached"] == ["unused"]
    assert any("1 of 3 targets had no gradient" in note for note in notes)


def test_train_takes_a_job_or_a_model_and_nothing_else(tmp_path):
    with pytest.raises(ValueRangeError, match="Neither a Job nor a model: 'model'"):
        train("model", batches())
    job = Job(recipe=Recipe(steps=1, batch=1, length=8, held_out=0.0), accounts=False)
    assert train(job, tmp_path / "a").record["done"]
    with pytest.raises(ValueRangeError, match="begun with other settings: model embedded, now Net"):
        run(net(), out=tmp_path / "a")


def test_models_of_transformers_give_their_own_loss(tmp_path):
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(tiny("llama", tmp_path / "base"))
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 300, (4, 16)))
    data = [{"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}]
    done = train(model, data, method=LoRA(r=4), steps=8, lr=0.02, out=tmp_path / "a")
    assert done.record["targets"][0].endswith("q_proj")
    assert done.log[-1]["loss"] < done.log[0]["loss"]
    assert config(tmp_path / "a")["task_type"] == "CAUSAL_LM"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_on_a_device_is_trained_saved_and_loaded_there(tmp_path):
    model = net().cuda()
    run(model, out=tmp_path / "a")
    assert model.fc.lora_A.is_cuda
    again = net().cuda()
    load(again, tmp_path / "a")
    assert torch.equal(again.fc.lora_A, model.fc.lora_A)
    onto_cpu = net()
    load(onto_cpu, tmp_path / "a")
    assert torch.allclose(outputs(onto_cpu, IDS), outputs(model, IDS.cuda()).cpu(), atol=1e-4)
