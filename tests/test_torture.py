"""Hostile files through the command line: no traceback, no code run, one line that names the file."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

_TORTURE = Path(os.environ.get("SUBSPACE_TEST_DATA", Path(__file__).parents[2] / "shared")) / "torture"
_CATEGORIES = ("control", "lora_structure", "names", "config", "base")
# The corpus wants an error where there is none to give
_ARGUED = {
    "root_is_tensor": "a tensor alone in a file is read as a dense delta_W, by design",
    "base_bnb_int8": "weights of bitsandbytes int8 are read with their scales, not as they are",
    "base_index_key_not_in_shard": "the shard of this case does hold the key that its index promises",
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not _TORTURE.is_dir(), reason=f"no torture corpus at {_TORTURE}; set SUBSPACE_TEST_DATA")
def test_every_case_passes_or_its_disagreement_is_argued(tmp_path):
    corpus, report = tmp_path / "corpus", tmp_path / "report.json"
    subprocess.run([sys.executable, _TORTURE / "make_torture.py", corpus], check=True, capture_output=True)
    me = f"{shlex.quote(sys.executable)} -m subspace"
    command = [
        *(sys.executable, _TORTURE / "run_torture.py", corpus, "--jobs", "1", "--json", report),
        *("--only", f"^({'|'.join(_CATEGORIES)})$|^({'|'.join(_ARGUED)})$"),
        *(
            "--pair",
            f"{me} compare {{good}} {{file}}",
            "--base",
            f"{me} amplify --base {{file}} --delta {{good}}",
        ),
        *("--", *shlex.split(me), "inspect", "{file}"),
    ]
    subprocess.run(command, check=False, capture_output=True, cwd=tmp_path)
    results = json.loads(report.read_text(encoding="utf-8"))
    assert len(results) > 150 and not any(result["status"] == "SKIP" for result in results)
    failing = {result["id"]: result["fails"] for result in results if result["status"] == "FAIL"}
    assert set(failing) <= set(_ARGUED), failing
    assert not any(result["traceback"] or result["canary"] for result in results)
