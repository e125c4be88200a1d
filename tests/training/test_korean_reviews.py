"""The way from README to a comparison: ELECTRA with q, k and v adapted and the classifier kept, on Korean reviews."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")

_GOOD = ("재미있다", "최고의 영화", "감동적이다", "또 보고 싶다", "연기가 훌륭하다")
_BAD = ("지루하다", "최악의 영화", "돈이 아깝다", "실망했다", "연기가 어색하다")
_ABOUT = (
    "배우가",
    "음악이",
    "결말이",
    "처음부터 끝까지",
    "친구와 봤는데",
    '감독의 "새" 작품',
    "솔직히",
    "이 영화는",
)
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def _reviews(path: Path, n: int) -> Path:
    """A table as the Naver corpus has it, with quotes that are no quotes, and a review without a text."""
    draws, rows = random.Random(0), ["id\tdocument\tlabel"]
    for number in range(n):
        label = int(number % 5 < 3)
        words = [draws.choice(_ABOUT), draws.choice(_GOOD if label else _BAD), draws.choice(_ABOUT)]
        rows.append(f"{9_000_000 + number}\t{' '.join(words)}\t{label}")
    path.write_text("\n".join([*rows, "9999999\t\t1"]) + "\n", encoding="utf-8")
    return path


def _electra(folder: Path, words: str) -> Path:
    """ELECTRA of two layers with a vocabulary of WordPiece: the words, and each syllable as a beginning and inside."""
    import torch
    import transformers

    syllables = sorted(set(words) - {" ", "\t", "\n"})
    whole = sorted({word for word in words.split() if word.isalpha() and len(word) > 1})
    vocabulary = [*_SPECIAL, *syllables, *(f"##{each}" for each in syllables), *whole]
    config = transformers.ElectraConfig(
        vocab_size=len(vocabulary), embedding_size=32, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.ElectraForPreTraining(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    stated = {"tokenizer_class": "ElectraTokenizer", "do_lower_case": False, "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    return folder


def _subspace(*words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-m", "subspace", *map(str, words)],
        check=False, capture_output=True, text=True, env=environment, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_two_seeds_on_korean_reviews_from_the_command_line_to_their_comparison(tmp_path):
    table = _reviews(tmp_path / "ratings.tsv", 400)
    model = _electra(tmp_path / "electra", table.read_text(encoding="utf-8"))
    adapted = ("--targets", "query", "--targets", "key", "--targets", "value", "--keep", "classifier")
    how = (
        "--rank", 4, "--epochs", 10, "--lr", 0.005, "--length", 32, "--held-out", 0.1, "--dtype", "float32",
        "--evaluate-every", 50,
    )  # fmt: skip
    for seed in (0, 1):
        seeds = ("--seed", seed, "--data-seed", seed)
        words = ("--model", model, "--data", table, *adapted, *how, *seeds, "-o", tmp_path / f"seed{seed}")
        done = _subspace("train", *words)
        assert "400 examples, 2 classes (0 160, 1 240)" in done.stdout
        assert "held out: macro f1 " in done.stdout and "held out: balanced accuracy " in done.stdout
        assert "1 row without a text was left out: line 402" in done.stderr
        assert "note: step 150, held out: loss " in done.stderr
        _learned(tmp_path / f"seed{seed}")
    starts = [word for seed in (0, 1) for word in ("--init", tmp_path / f"seed{seed}/start")]
    compared = _subspace("compare", tmp_path / "seed0", tmp_path / "seed1", *starts, "--json")
    modules = json.loads(compared.stdout)["modules"]
    names = {row["module"].removeprefix("electra.encoder.layer.") for row in modules}
    assert names == {f"{n}.attention.self.{part}" for n in (0, 1) for part in ("query", "key", "value")}
    assert {row["init"] for row in modules} == {"kept", "removed"}
    table_of_modules = _subspace("compare", tmp_path / "seed0", tmp_path / "seed1", *starts)
    assert "attention.self.key" in table_of_modules.stdout


def _learned(out: Path) -> None:
    """The record of a run says what was learned; the adapter has the three parts of attention and the classifier."""
    from safetensors.torch import load_file

    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    after = record["held_out"]["after"]
    assert after["accuracy"] > 0.8 > after["majority"] and after["macro_f1"] > 0.8
    assert after["balanced_accuracy"] > 0.8
    assert record["label_names"] == ["0", "1"] and record["cut"]["texts"] == 0
    assert record["classes"] == {
        "0": {"trained": 144, "held_out": 16}, "1": {"trained": 216, "held_out": 24},
    }  # fmt: skip
    assert record["computed"]["steps"] == 225 and len(record["targets"]) == 6
    assert record["kept"] == [
        f"classifier.{part}.{p}" for part in ("dense", "out_proj") for p in ("weight", "bias")
    ]
    keys = load_file(out / "adapter_model.safetensors")
    assert sum("lora_A" in key for key in keys) == 6 and sum("classifier" in key for key in keys) == 4
