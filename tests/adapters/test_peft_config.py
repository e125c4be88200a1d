"""``LoraConfig`` as PEFT holds it in memory, and as any version of PEFT, or a person, writes it."""

from __future__ import annotations

import dataclasses
import enum
import json
import pathlib

import numpy as np
import peft
import pytest
import torch
from peft.tuners.lora import config as configs

from subspace.adapters import load_adapter
from subspace.adapters.plain_values import plain
from subspace.errors import FormatError

pytestmark = pytest.mark.filterwarnings(r"ignore:::peft\..*")


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.h = torch.nn.ModuleList(
            torch.nn.ModuleDict({"q": torch.nn.Linear(8, 8), "v": torch.nn.Linear(8, 6)}) for _ in range(2)
        )
        self.emb = torch.nn.Embedding(11, 8)


def adapted(**options):
    torch.manual_seed(0)
    config = peft.LoraConfig(**{"target_modules": ["q", "v"], "r": 2, "lora_alpha": 6, **options})
    model = peft.get_peft_model(Net(), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    return model


class Kind(enum.Enum):
    LORA = "LORA"


# a value of every field in a type that JSON does not have, or another than its default
FIELDS = {
    "task_type": peft.TaskType.CAUSAL_LM,
    "peft_type": peft.PeftType.LORA,
    "auto_mapping": {"parent": pathlib.PurePosixPath("a/b")},
    "peft_version": "0.99.dev0",
    "base_model_name_or_path": pathlib.PurePosixPath("models/gpt2"),
    "revision": "main",
    "inference_mode": np.bool_(True),
    "r": np.int64(2),
    "target_modules": {"q", "v"},
    "exclude_modules": frozenset({"emb"}),
    "lora_alpha": np.float32(6.0),
    "lora_dropout": torch.tensor(0.1),
    "fan_in_fan_out": False,
    "bias": "none",
    "use_rslora": False,
    "modules_to_save": ("emb",),
    "init_lora_weights": "gaussian",
    "layers_to_transform": range(2),
    "layers_pattern": ("h",),
    "rank_pattern": {"nothing": np.int32(3)},
    "alpha_pattern": {"nothing": torch.tensor(3.0)},
    "megatron_config": {"params_dtype": torch.bfloat16},
    "megatron_core": "megatron.core",
    "trainable_token_indices": {"emb": (1, 2)},
    "loftq_config": configs.LoftQConfig(),
    "eva_config": configs.EvaConfig(),
    "corda_config": configs.CordaConfig(),
    "lora_ga_config": configs.LoraGAConfig(),
    "use_dora": None,
    "velora_config": configs.VeloraConfig(),
    "alora_invocation_tokens": (3, 4),
    "use_qalora": False,
    "qalora_group_size": 16,
    "monteclora_config": configs.MontecloraConfig(),
    "layer_replication": [(0, 1), (1, 2)],
    "runtime_config": configs.LoraRuntimeConfig(),
    "lora_bias": False,
    "target_parameters": {"experts.down_proj", "gate_up_proj"},
    "use_bdlora": None,
    "arrow_config": None,
    "kasa_config": None,
    "ensure_weight_tying": False,
}


def test_every_field_has_a_value_here():
    assert {field.name for field in dataclasses.fields(peft.LoraConfig)} <= FIELDS.keys()


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_any_type_in_memory(field):
    model = adapted()
    setattr(model.peft_config["default"], field, FIELDS[field])
    read = load_adapter(model)
    assert read["h.0.q"].scale.value == 3
    json.dumps(read.config, allow_nan=False)
    if field != "runtime_config":
        assert read.config[field] == plain(FIELDS[field])


def test_the_configuration_in_memory_is_that_of_the_file(tmp_path):
    model = adapted(
        rank_pattern={"v": 3},
        eva_config=configs.EvaConfig(),
        init_lora_weights="eva",
        task_type=peft.TaskType.FEATURE_EXTRACTION,
    )
    model.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    config = dict(load_adapter(model).config)
    for value in (written, config):
        value["target_modules"] = sorted(value["target_modules"])
        value.pop("auto_mapping")
        value.pop("inference_mode")  # which saving sets
    assert config == written


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Kind.LORA, "LORA"), (peft.PeftType.LORA, "LORA"), ({"b", "a"}, ["a", "b"]), ((1, (2, 3)), [1, [2, 3]]),
        (torch.float16, "torch.float16"), (pathlib.PurePosixPath("a/b"), "a/b"), (np.float64(2.5), 2.5),
        (torch.tensor(3), 3), ({Kind.LORA: {2, 1}}, {"LORA": [1, 2]}), (None, None), (True, True), (b"x", "b'x'"),
        (configs.LoftQConfig(), {"loftq_bits": 4, "loftq_iter": 1}),
    ],
)  # fmt: skip
def test_plain_values(value, expected):
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)


@pytest.fixture
def saved(tmp_path):
    adapted().save_pretrained(tmp_path)
    return tmp_path


def edited(folder, remove=(), **fields):
    path = folder / "adapter_config.json"
    config = {name: value for name, value in json.loads(path.read_text()).items() if name not in remove}
    path.write_text(json.dumps({**config, **fields}))
    return folder


@pytest.mark.parametrize("field", sorted({field.name for field in dataclasses.fields(peft.LoraConfig)}))
@pytest.mark.parametrize("gone", [True, False], ids=["missing", "null"])
def test_any_field_missing_or_null(field, gone, saved):
    read = load_adapter(edited(saved, remove=[field]) if gone else edited(saved, **{field: None}))
    assert read["h.1.v"].scale.value == (None if field == "lora_alpha" else 3)
    assert read["h.1.v"].r == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"lora_alpha": 6.0},
        {"unheard_of": {"nested": [1, None]}, "alpha": 3, "lora_dropout": "none"},
        {"monteclora_config": None, "velora_config": None, "arrow_config": None, "use_bdlora": None},
        {"use_bdlora": False, "use_qalora": 0, "kasa_config": {}, "arrow_config": {}},
        {"rank_pattern": None, "alpha_pattern": None},
        {"target_modules": "all-linear"},
        {"target_modules": None, "target_parameters": []},
        {"target_parameters": ["experts.gate_up_proj"]},
        {"target_parameters": ["gate_up_proj"]},
        {"peft_version": "9.0", "peft_type": "LORA"},
        {"layer_replication": None, "enable_lora": None, "merge_weights": False},
    ],
)
def test_fields_of_other_versions(fields, saved):
    read = load_adapter(edited(saved, **fields))
    assert {update.scale.value for update in read.values()} == {3}
    assert set(read) == {f"h.{n}.{name}" for n in range(2) for name in "qv"}


def test_the_rank_in_a_pattern_only(tmp_path):
    adapted(rank_pattern={"q": 4}).save_pretrained(tmp_path)
    read = load_adapter(edited(tmp_path, remove=["r"]))
    assert [update.r for update in read.values()] == [4, 2, 4, 2]
    assert [update.scale.value for update in read.values()] == [1.5, 3, 1.5, 3]
    with pytest.raises(FormatError, match=r"different ranks: r = 5 .* and 4 in the factors"):
        load_adapter(edited(tmp_path, rank_pattern={"q": 5}))


def test_a_target_that_is_both_a_module_and_named_by_a_bare_parameter(saved):
    read = load_adapter(edited(saved, target_parameters=["q", "weight"]))
    assert set(read) == {f"h.{n}.{name}" for n in range(2) for name in "qv"}
