"""What becomes of an output when the disk is full, may not be written, or the command is interrupted."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

import pytest

posix = pytest.mark.skipif(os.name != "posix", reason="needs limits, signals and permissions of Unix")
_INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored in a process that runs in the background
from subspace.checkpoints import atomic_writing, folder_swap
original = getattr(atomic_writing if sys.argv[1] == "_write" else folder_swap, sys.argv[1])
def interrupted(*arguments):
    done = original(*arguments)
    signal.raise_signal(signal.SIGINT)
    return done
setattr(atomic_writing if sys.argv[1] == "_write" else folder_swap, sys.argv[1], interrupted)
from subspace.cli import main
sys.argv = ["subspace", *sys.argv[2:]]
main()
"""


@pytest.fixture
def place(made, tmp_path):
    """Adapters first and second; second/ is to be replaced, and holds notes of the user."""
    for name in ("first", "second"):
        shutil.copytree(made / name, tmp_path / name)
    (tmp_path / "second/README.md").write_text("mine")
    return tmp_path


def _files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _small_files():
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def _no_override():
    """Let root heed permissions as anybody does."""
    import ctypes

    for capability in (1, 2, 3):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
        if os.geteuid() == 0 and ctypes.CDLL(None).prctl(24, capability):
            os._exit(77)


def _one_line(done, *words):
    assert done.code == 1 and done.out == "" and done.err.count("\n") == 1, done
    assert done.err.startswith("error: ") and all(word in done.err for word in words), done.err


_COMMANDS = {
    "convert": ("convert", "first", "second", "--to", "peft", "--overwrite"),
    "truncate": ("truncate", "first", "second", "--rank", "2", "--overwrite"),
    "new": ("convert", "first", "deep/new", "--to", "peft"),
    "new file": ("convert", "first", "deep/new.pt", "--to", "loralib"),
    "figures": ("compare", "first", "second", "--figure", "fig3", "-o", "figures"),
    "demo": ("demo", "-o", "demo"),
    "train": ("train", "-o", "deep/run", "--steps", "1", "--no-accounts", "--length", "16", "--batch", "1"),
}


@posix
@pytest.mark.parametrize(
    "command",
    # the slow ones in checkpoints/test_every_writer.py and test_fault_points.py too, at each of their operations
    [pytest.param(each, marks=[pytest.mark.slow] if each in ("demo", "train") else []) for each in _COMMANDS],
)
def test_a_full_disk_leaves_what_was_there_and_nothing_else(command, place, run_apart):
    before = _files(place)
    done = run_apart(*_COMMANDS[command], preexec_fn=_small_files)
    lines = [line for line in done.err.splitlines() if not line.startswith("note: ")]
    assert done.code == 1 and len(lines) == 1 and lines[0].startswith("error: Cannot write "), done
    assert "File too large" in lines[0]
    assert _files(place) == before
    assert sorted(os.listdir(place)) == ["first", "second"], "a directory was made"


@posix
@pytest.mark.skipif(sys.platform != "linux", reason="root needs its capabilities taken away")
@pytest.mark.parametrize("command", ["convert", "truncate", "new"])
def test_a_directory_that_may_not_be_written(command, place, run_apart):
    before, locked = _files(place), place if command == "new" else place / "second"
    locked.chmod(0o555)
    try:
        done = run_apart(*_COMMANDS[command], preexec_fn=_no_override)
    finally:
        locked.chmod(0o755)
    if done.code == 77:
        pytest.skip("root's capabilities cannot be taken away here")
    _one_line(done, "Cannot write ", "Permission denied")
    assert _files(place) == before and sorted(os.listdir(place)) == ["first", "second"]


@posix
@pytest.mark.skipif(sys.platform != "linux", reason="root needs its capabilities taken away")
def test_a_directory_in_one_that_may_not_be_written(place, run_apart):
    place.chmod(0o555)
    try:
        done = run_apart(*_COMMANDS["convert"], preexec_fn=_no_override)
    finally:
        place.chmod(0o755)
    if done.code == 77:
        pytest.skip("root's capabilities cannot be taken away here")
    assert done.code == 0, done.err
    files = sorted(os.listdir(place / "second"))
    assert files == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert (place / "second/README.md").read_text() == "mine"


@posix
@pytest.mark.parametrize("command", ["convert", "new", "new file"])
@pytest.mark.parametrize("at", ["_write", "put"])
def test_an_interrupt_is_one_line(command, at, place):
    before = _files(place)
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, at, *_COMMANDS[command]],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    if at == "put" and command == "new file":  # which is renamed
        assert done.returncode == 0
        return
    assert done.returncode == 130 and done.stdout == ""
    said = done.stderr.strip()
    if at == "_write":
        assert said.startswith("error: interrupted: nothing was written to ") and "\n" not in said
        assert _files(place) == before and sorted(os.listdir(place)) == ["first", "second"]
    else:
        assert said == "error: interrupted"
        assert not list(place.rglob(".*"))


@posix
@pytest.mark.skipif(shutil.which("head") is None, reason="no head here")
def test_a_pipe_to_head_is_no_error(place):
    me = shlex.join([sys.executable, "-m", "subspace", *_COMMANDS["convert"]])
    script = f"set -o pipefail; {me} | head -c 5"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, cwd=place)
    assert done.returncode == 0 and all(line.startswith("wrote ") for line in done.stderr.splitlines())
    assert (place / "second/README.md").exists() and not list(place.rglob(".*"))


def test_offline_asks_nobody(run, place, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # and unset afterwards, whatever the option sets
    monkeypatch.setenv("HF_HOME", str(place / "cache"))
    monkeypatch.chdir(place)
    monkeypatch.setattr("huggingface_hub.HfApi", None)
    done = run("--offline", "inspect", "org/nothing")
    _one_line(done, "No such file or directory: org/nothing", "not asked: HF_HUB_OFFLINE is set")


def test_a_mistyped_path_below_a_folder_that_is_here_is_a_path(run, place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr("huggingface_hub.HfApi", None, raising=False)
    _one_line(run("inspect", "first/adaptr"), "No such file or directory: first/adaptr", "hf://first/adaptr")
