"""A few kills of ``reproduce`` and ``train`` at random moments; ``killed.py`` does as many as one likes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and finds processes in /proc")
@pytest.mark.parametrize("of", ["reproduce", "train"])
def test_killed_at_random_moments_the_same_command_ends_in_the_same_bytes(of):
    script = Path(__file__).with_name("killed.py")
    ended = subprocess.run(
        [sys.executable, str(script), "--kills", "5", "--of", of], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["kills"] == 5 and found["at work"] >= 1
