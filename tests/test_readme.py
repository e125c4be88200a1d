"""README's promises: two commands, and what they say."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).parents[1]


def _commands(mark: str) -> list[str]:
    lines = (_ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.endswith(f"# {mark}")]


def test_two_commands_do_all_the_set_up():
    assert len(_commands("main job")) == 1
    assert len(_commands("tests")) == 1


def test_ci_calls_the_test_command_of_the_readme():
    assert "# tests" in (_ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_pictures_exist():
    text = (_ROOT / "README.md").read_text(encoding="utf-8")
    pictures = [part.split(")")[0] for part in text.split("](figures/")[1:]]
    assert pictures
    for picture in pictures:
        assert (_ROOT / "figures" / picture).is_file(), picture
