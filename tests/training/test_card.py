"""The README.md of a run: true, deterministic, and never in the place of somebody's own."""

from tiny_models import TEXTS, tiny

from subspace.training import Job, Recipe, train
from subspace.training.card import _MARK


def _train(folder, out, **given):
    rows = [f"{text}\t{'good' if n % 2 else 'bad'}" for n in range(10) for text in TEXTS]
    (folder / "rows.tsv").write_text("\n".join(["document\tlabel", *rows]))
    recipe = Recipe(steps=2, batch=4, length=16, dtype="float32")
    job = Job(
        model=str(folder / "bert"), data=str(folder / "rows.tsv"), recipe=recipe, threads=1, accounts=False
    )
    return train(job, folder / out, **given)


def test_it_says_what_was_trained_and_how_well(tmp_path):
    tiny("bert", tmp_path / "bert")
    run = _train(tmp_path, "out")
    text = (run.path / "README.md").read_text()
    after = run.record["held_out"]["after"]
    for words in (
        "library_name: peft",
        f"# lora, r = 8, on {tmp_path / 'bert'}",
        f"{run.record['trainable']:,} parameters in 4 modules (query, value), 2 steps, seed 0.",
        "0. bad\n1. good\n",
        f"| accuracy | {run.record['held_out']['before']['accuracy']:.4f} | {after['accuracy']:.4f} |",
    ):
        assert words in text, words
    again = _train(tmp_path, "again")
    assert (again.path / "README.md").read_text() == text


def test_one_of_ones_own_stays(tmp_path):
    tiny("bert", tmp_path / "bert")
    run = _train(tmp_path, "out")
    card = run.path / "README.md"
    card.write_text("mine")
    assert _train(tmp_path, "out").resumed == 2  # it is no part of what has to be there
    _train(tmp_path, "out", overwrite=True)
    assert card.read_text() == "mine"
    card.write_text(f"{_MARK} of another run")
    _train(tmp_path, "out", overwrite=True)
    assert "Classes:" in card.read_text()
