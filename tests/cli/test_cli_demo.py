"""``subspace demo`` finds exactly what was taught, and README shows exactly what is printed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import contract
import pytest

_README = Path(__file__).parents[2] / "README.md"
TAUGHT = {"q_proj": 3, "v_proj": 1}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder in which ``subspace demo`` was run, and what it said."""
    folder = tmp_path_factory.mktemp("fresh")
    done = subprocess.run(
        [sys.executable, "-m", "subspace", "demo"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def _subspace(folder, *words):
    command = [sys.executable, "-m", "subspace", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_demo_writes_what_it_says(demo):
    folder, done = demo
    for name in ("a_r8", "a_r64", "b_r64"):
        assert (folder / "demo" / name / "adapter_config.json").is_file()
        assert (folder / "demo" / f"{name}-start" / "adapter_model.safetensors").is_file()
    for figure in ("fig3-a", "fig4-a"):
        assert (folder / "demo" / f"{figure}.png").stat().st_size > 10_000
        assert json.loads((folder / "demo" / f"{figure}.json").read_text())["panels"]
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["wrote"] * 4
    assert "Taught: updates of rank 3 in every q_proj, 1 in every v_proj" in done.stdout


@pytest.mark.parametrize("side", ["a", "b", "left", "right"])
def test_the_taught_ranks_are_found_exactly(side, demo):
    folder, _ = demo
    for pair in (("a_r8", "a_r64"), ("a_r64", "b_r64")):
        done = _subspace(folder, "compare", *(f"demo/{name}" for name in pair), "--side", side, "--json")
        for module in contract.document(done.stdout.rstrip("\n"))["modules"]:
            assert module["shared_dim"] == TAUGHT[module["module"].rpartition(".")[2]], (
                module["module"],
                side,
            )


def test_the_commands_that_the_demo_shows_print_what_it_showed(demo):
    folder, done = demo
    shown = re.split(r"^\$ ", done.stdout, flags=re.MULTILINE)[1:]
    assert len(shown) == 2
    for block in shown:
        command, _, printed = block.partition("\n")
        again = _subspace(folder, *shlex.split(command)[1:])
        assert again.stdout.strip() == printed.strip()


def _blocks(language):
    return re.findall(
        rf"^```{language}\n(.*?)^```", _README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def _matches(printed, expected):
    """Whether a text is the expected one, where a line of three dots stands for any lines."""
    pattern = "".join(
        "(?:.*\n)*" if line == "..." else re.escape(line) + "\n" for line in expected.splitlines()
    )
    return re.fullmatch(pattern, printed if printed.endswith("\n") else printed + "\n") is not None


def test_the_console_blocks_of_the_readme_are_what_is_printed(demo):
    folder, _ = demo
    blocks = _blocks("console")
    assert blocks
    for block in blocks:
        for call in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, expected = call.partition("\n")
            words = shlex.split(command)
            assert words[0] == "subspace"
            done = _subspace(folder, *words[1:])
            assert _matches(done.stdout, expected), done.stdout


def test_the_python_blocks_of_the_readme_print_what_it_shows(demo):
    folder, _ = demo
    text = _README.read_text(encoding="utf-8")
    pairs = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    # a model of one's own is in tests/test_readme.py, a Trainer in tests/analysis/test_trainer_callback.py
    others = ("inject(", "Trainer(")
    assert len(pairs) == len([b for b in _blocks("python") if not any(word in b for word in others)]) > 0
    for code, expected in pairs:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.stderr) == (expected, "")


def test_the_start_of_a_demo_adapter_can_be_removed(demo):
    folder, _ = demo
    done = _subspace(
        folder,
        "compare",
        "demo/a_r8",
        "demo/a_r64",
        "--init",
        "demo/a_r8-start",
        "--init",
        "demo/a_r64-start",
        "--json",
    )
    removed = [m for m in json.loads(done.stdout)["modules"] if m["init"] == "removed"]
    # what is left of A is small and noisier than A itself, so that the weakest of three may be missed
    assert all(most - 1 <= m["shared_dim"] <= most for m, most in zip(removed, [3, 1] * 3, strict=True))
    assert any(module["shared_dim"] == 3 for module in removed)


def test_a_folder_that_cannot_be_made_is_one_line(demo):
    folder, _ = demo
    (folder / "file").write_text("")
    done = _subspace(folder, "demo", "-o", "file")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and "file" in done.stderr
