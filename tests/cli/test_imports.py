"""What a command does not import: waiting for a library that is not needed is most of the time of a short command."""

import json
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from safetensors.numpy import save_file

_HEAVY = {"torch", "scipy", "matplotlib", "pandas"}
_PRINTED = {"rich", "pathlib", "numpy.testing", "importlib.metadata", "tempfile", "html", "csv"}

_PROBE = """
import json, sys
from subspace.cli import main
sys.argv = ["subspace", *sys.argv[1:]]
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@cache
def _of_numpy():
    """What NumPy imports itself: 1.26 pathlib, later ones nothing that matters here."""
    command = [sys.executable, "-c", "import sys, numpy; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def modules_after(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *arguments], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.fixture
def pair(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for name, r in (("one", 2), ("other", 4)):
        folder = tmp_path / name
        folder.mkdir()
        tensors = {
            "base_model.model.q.lora_A.weight": rng.standard_normal((r, 32)).astype(np.float32),
            "base_model.model.q.lora_B.weight": rng.standard_normal((16, r)).astype(np.float32),
        }
        save_file(tensors, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "r": r, "lora_alpha": 4})
        )
        paths.append(str(folder))
    return paths


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("compare", "--help"), ("inspect", "--help"), ("reproduce", "--help")],
)
def test_help_waits_for_no_heavy_library(arguments):
    assert not modules_after(*arguments) & (_HEAVY | {"rich"})


def test_the_list_of_commands_needs_no_numpy():
    assert "numpy" not in modules_after("--version")


@pytest.mark.parametrize("output", [(), ("--json",), ("--json", "--grid"), ("--side", "all")])
def test_compare_of_safetensors_needs_numpy_alone(pair, output):
    loaded = modules_after("compare", *pair, *output)
    assert "numpy" in loaded
    assert not loaded & (_HEAVY | _PRINTED) - _of_numpy()


def test_inspect_of_safetensors_needs_numpy_alone(pair):
    assert not modules_after("inspect", *pair) & (_HEAVY | _PRINTED) - _of_numpy()


def test_compare_loads_nothing_of_base_weights_or_figures(pair):
    loaded = modules_after("compare", *pair)
    figures = {name for name in loaded if name.startswith("subspace.plots")}
    assert figures <= {
        "subspace.plots",
        "subspace.plots.charts",
        "subspace.plots.presets",
    }  # names of files only
    assert not {name for name in loaded if name.startswith("subspace.training")}
    assert not loaded & {
        "subspace.adapters.base.weights",
        "subspace.geometry.topk",
        "subspace.adapters.formats._unsupported",
    }
