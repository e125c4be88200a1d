"""CONTRIBUTING.md is true: what it shows is one file each, found by being there, and gone with its file."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import guide
import numpy as np
import pytest

import subspace

_ROOT = Path(__file__).parents[2]


def _glossary(place):
    """A copy of the glossary where the command looks for it."""
    page = place / "docs/glossary.md"
    page.parent.mkdir()
    page.write_text((_ROOT / "docs/glossary.md").read_text(encoding="utf-8"), encoding="utf-8")
    return page


def test_a_format_is_one_file(drop, run, tmp_path):
    up, down = np.full((3, 2), 2, "f4"), np.ones((2, 4), "f4")
    np.savez(tmp_path / "a.npz", **{"q.toy_up": up, "q.toy_down": down, "bias": np.ones(2, "f4")})
    before = run("-m", "subspace", "inspect", "a.npz")
    assert before.returncode == 1 and "toy" not in before.stderr.replace("toy_", "")
    drop("Add a format")
    done = run("-m", "subspace", "inspect", "--json", "a.npz")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["format"], [each["key"] for each in document["ignored"]]) == ("toy", ["bias"])
    (row,) = document["modules"]
    assert (row["module"], row["r"], row["scale_source"]) == ("q", 2, "no multiplier in toy")
    assert row["norm_delta_W"] == pytest.approx(np.linalg.norm(up @ down))
    # it is named where no format fits, and its errors are those of its file
    np.savez(tmp_path / "none.npz", **{"conv.weight": np.ones(3), "conv.bias": np.ones(3)})
    assert "toy" in run("-m", "subspace", "inspect", "none.npz").stderr
    np.savez(tmp_path / "half.npz", **{"q.toy_up": up})
    assert "toy_down is missing" in run("-m", "subspace", "inspect", "half.npz").stderr


def test_a_format_that_is_written_is_one_file(drop, run, adapters):
    words = ("-m", "subspace", "convert", "a", "a.safetensors", "--to", "toy")
    missing = run(*words)
    assert missing.returncode == 2 and "'toy' is not one of" in missing.stderr
    drop("Add a format")
    drop("Add a format that is written")
    done = run(*words)
    assert done.returncode == 0, done.stderr
    document = json.loads(run("-m", "subspace", "inspect", "--json", "a.safetensors").stdout)
    assert document["format"] == "toy" and [row["scale"] for row in document["modules"]] == [1, 1]
    wanted = [row.norm_delta_W for row in subspace.inspect(adapters / "a")]  # its scale is 2
    assert [row["norm_delta_W"] for row in document["modules"]] == pytest.approx(wanted)


def test_a_question_is_a_result_a_function_and_a_command(drop, run, adapters):
    assert run("-m", "subspace", "lengths", "a").returncode == 2
    drop("Add a question")
    assert re.search(r"\n  lengths +How long the rows of A are\.\n", run("-m", "subspace", "--help").stdout)
    wanted = {
        update.module: np.linalg.norm(update.A, axis=1).max()
        for update in subspace.load_adapter(adapters / "a").values()
    }
    table = run("-m", "subspace", "lengths", "a").stdout.splitlines()
    assert table[0].split() == ["module", "longest", "flags"]
    assert table[-1] == f"The longest row of any A has the length {max(wanted.values()):.3g}."
    document = json.loads(run("-m", "subspace", "lengths", "--json", "a").stdout)
    assert document["schema"] == "subspace.lengths/1"
    assert {row["module"]: row["longest"] for row in document["modules"]} == pytest.approx(wanted)
    text = run("-m", "subspace", "lengths", "--csv", "--sort", "-longest", "a").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["module"] for row in rows] == sorted(wanted, key=wanted.get)
    code = "import subspace; print(subspace.lengths('a')['l.0.q'].longest)"
    assert float(run("-c", code).stdout) == pytest.approx(wanted["l.0.q"])


def test_a_question_takes_notes_and_flags_from_the_declarations(drop, run, tmp_path):
    drop("Add a question")
    np.savez(tmp_path / "pair.npz", A=np.ones((2, 4)), B=np.ones((3, 2)))
    assert "warning: The scale is unknown" in run("-m", "subspace", "lengths", "pair.npz").stderr
    np.save(tmp_path / "delta.npy", np.eye(3))
    assert run("-m", "subspace", "lengths", "--csv", "delta.npy").stdout.splitlines()[1] == ",,dense"


def test_a_new_result_and_a_new_flag_are_in_the_glossary(drop, run, package, tmp_path):
    page = _glossary(tmp_path)
    drop("Add a question")
    assert run("-m", "subspace.results.glossary").returncode == 0
    text = page.read_text(encoding="utf-8")
    assert "## Columns of `lengths`" in text
    assert "| `longest` | table | Length of the longest row of A; None without an A; in [0, inf) |" in text


@pytest.fixture
def with_flag(package):
    """The copy's list of flags with the guide's member."""
    place = package / "flags.py"
    before = place.read_text(encoding="utf-8")
    ((name, member),) = guide.files("Add a flag").items()
    assert name == "subspace/flags.py"
    place.write_text(
        before.replace("\n\n\ndef flag_notes(", f"\n{member}\n\ndef flag_notes("), encoding="utf-8"
    )
    yield
    place.write_text(before, encoding="utf-8")


def test_a_flag_is_one_member(with_flag, run, tmp_path):
    page = _glossary(tmp_path)
    code = "from subspace.flags import Flag, flag_notes; print(*flag_notes({'q': (Flag.TOY,), 'v': ()}))"
    assert (
        run("-c", code).stdout.strip() == "In 1 of 2 modules (q) the adapter is a toy; train one in earnest"
    )
    run("-m", "subspace.results.glossary")
    assert "| `toy` | the adapter is a toy | train one in earnest |" in page.read_text(encoding="utf-8")


def test_a_chart_is_one_file(drop, run, adapters):
    code = (
        "import sys, subspace.plots as plots; print('ranks' in dir(plots), 'matplotlib' in sys.modules)\n"
        "import subspace; print(plots.ranks(subspace.inspect('a')).lines[0].get_ydata().tolist())"
    )
    assert "has no attribute 'ranks'" in run("-c", code).stderr
    drop("Add a plot")
    assert run("-c", code).stdout.splitlines() == ["True False", "[2, 2]"]


def test_a_preset_is_one_file(drop, run, adapters):
    words = ("-m", "subspace", "compare", "a", "b", "--figure", "pages", "-o", "drawn")
    missing = run(*words)
    assert missing.returncode == 2 and "'pages' is not one of" in missing.stderr
    drop("Add a figure preset")
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (adapters / "drawn").glob("*.png")} == {"pages-a-1.png", "pages-a-2.png"}
    text = run("-m", "subspace", "compare", "--help").stdout
    assert "pages" in text and "One page per module." in text


def test_a_method_of_merging_is_one_file(drop, run, adapters):
    words = (
        "-m",
        "subspace",
        "merge",
        "a",
        "b",
        "-o",
        "both",
        "--method",
        "mean",
        "--weights",
        "3,1",
        "--json",
    )
    missing = run(*words)
    assert missing.returncode == 2 and "'mean' is not one of" in missing.stderr
    drop("Add a method of merging")
    done = run(*words)
    assert done.returncode == 0, done.stderr
    one, other, both = (subspace.load_adapter(adapters / name) for name in ("a", "b", "both"))
    for module in both:
        wanted = (3 * one[module].delta_W() + other[module].delta_W()) / 4
        assert np.allclose(both[module].delta_W(), wanted, atol=1e-6 * np.abs(wanted).max())
    assert "the weighted mean of the updates" in " ".join(
        run("-m", "subspace", "merge", "--help").stdout.split()
    )


def test_nothing_is_left_of_what_was_dropped_in(run):
    for words in (
        ("lengths", "a"),
        ("convert", "a", "b", "--to", "toy"),
        ("compare", "a", "b", "--figure", "pages"),
    ):
        assert run("-m", "subspace", *words).returncode == 2
    code = "from subspace.adapters import formats; print('toy' in [known.name for known in formats.every()])"
    assert run("-c", code).stdout.strip() == "False"


def test_every_section_of_the_guide_that_adds_is_tested():
    """Training methods are in tests/training/test_methods.py, where they are trained."""
    here, methods = (Path(__file__), Path(__file__).parents[1] / "training" / "test_methods.py")
    text = here.read_text(encoding="utf-8") + methods.read_text(encoding="utf-8")
    contributing = (_ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    headings = [
        line.removeprefix("## ") for line in contributing.splitlines() if line.startswith("## Add a ")
    ]
    assert len(headings) == 9
    for heading in headings:
        assert f'"{heading}"' in text, heading


_STARTED = """
import torch
from subspace.training import LoRA, inject
model = torch.nn.Sequential(torch.nn.Linear(6, 5))
x, W = torch.ones(1, 6), model[0].weight.detach().clone()
before = model(x)
inject(model, LoRA(r=2, init="olora"), ["0"])
assert torch.allclose(model(x), before, atol=1e-6)
assert torch.allclose(model[0].lora_A, torch.linalg.qr(W)[1][:2])
print(sorted(name for name, _ in model[0].named_buffers()))
"""


def test_a_start_of_lora_is_one_file(drop, run):
    assert "Invalid `init` 'olora': it must be one of" in run("-c", _STARTED).stderr
    drop("Add a start of LoRA")
    done = run("-c", _STARTED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['lora_A_start', 'lora_B_start']"
    assert "olora: the first columns of Q" in " ".join(
        run("-m", "subspace", "train", "--help").stdout.split()
    )
