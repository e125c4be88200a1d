"""README's promises: two commands, and what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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


_PAGES = [*_ROOT.glob("*.md"), *_ROOT.glob("docs/*.md"), *_ROOT.glob("benchmarks/*.md")]


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_links_lead_to_what_is_there(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(
        r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    ):
        if link.startswith(("https:", "http:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, link


def test_a_model_of_ones_own_is_trained_saved_and_compared(tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    from subspace.training import LoRA, load, train

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.fc1, self.fc2 = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)
            self.head = torch.nn.Linear(16, 4)

        def forward(self, x):
            return self.head(torch.tanh(self.fc2(torch.tanh(self.fc1(x)))))

    monkeypatch.chdir(tmp_path)
    x = torch.randn(20, 32, 16, generator=torch.Generator().manual_seed(1))
    batches = [(each, each[:, :4].argmax(1)) for each in x]
    loss = torch.nn.functional.cross_entropy
    train(Net(), batches, loss=loss, method=LoRA(r=2, seed=1), targets=["fc1", "fc2"], out="other")
    text = (_ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n([^`]*inject\(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    model = Net()
    exec(block, {"model": model, "batches": batches})
    assert "The updates have the cosine" in capsys.readouterr().out
    again = Net()
    load(again, "mine")
    assert torch.equal(again(x[0]), model(x[0]))
