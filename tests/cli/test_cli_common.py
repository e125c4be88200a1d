"""What holds for every command: exit codes, one-line errors, streams, help."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import subspace
from subspace.cli import app
from subspace.cli.found_commands import command_names

COMMANDS = tuple(command_names())


def test_version_and_help(run):
    assert run("--version").out == f"subspace, version {subspace.__version__}\n"
    told = run("--help")
    assert told.code == 0 and told.err == ""
    for command in COMMANDS:
        assert f"\n  {command} " in told.out
    assert "Exit codes: 0 done, 1 the input is wrong, 2 usage, 3 inconclusive" in " ".join(told.out.split())


def test_no_command_is_usage(run):
    told = run()
    assert told.code == 2 and told.out == "" and "Usage: subspace" in told.err


def test_the_command_line_is_a_click_application():
    told = CliRunner().invoke(app, ["compare", "--help"])
    assert told.exit_code == 0 and "FIRST SECOND" in told.output


@pytest.mark.parametrize("name", COMMANDS)
def test_help_mentions_every_option_and_has_an_example(name, run):
    command = app.get_command(click.Context(app), name)
    told = run(name, "--help").out
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            if parameter.hidden:
                continue
            assert parameter.help, f"{name} {parameter.name} has no help"
            assert all(option in told for option in parameter.opts)
        else:
            assert parameter.make_metavar(click.Context(command)).strip("[].") in told
    assert f"\n    subspace {name}" in told


@pytest.mark.parametrize(
    "words",
    [
        ("bogus",),
        ("inspect",),
        ("compare", "one"),
        ("compare", "a", "b", "c"),
        ("compare", "a", "b", "--side", "c"),
        ("compare", "a", "b", "--level", "1"),
        ("compare", "a", "b", "--level", "0"),
        ("compare", "a", "b", "--directions", "0"),
        ("compare", "a", "b", "--figure", "fig5"),
        ("compare", "a", "b", "--image", "gif"),
        ("compare", "a", "b", "--layer", "2"),
        ("compare", "a", "b", "--layer", "x"),
        ("compare", "a", "b", "--grid"),
        ("compare", "a", "b", "--grid", "--csv"),
        ("compare", "a", "b", "--scale", "nan"),
        ("compare", "a", "b", "--init", "x", "--init", "y", "--init", "z"),
        ("align", "--base", "a"),
        ("align", "--base", "a", "--delta", "b", "--k", "0"),
        ("align", "--base", "a", "--delta", "b", "--mask-share", "1"),
        ("amplify", "--base", "a"),
        ("amplify", "--delta", "a"),
        ("amplify", "--base", "a", "--delta", "b", "--ranks", "0"),
        ("amplify", "--base", "a", "--delta", "b", "--ranks", "4,x"),
        ("amplify", "--base", "a", "--delta", "b", "--ranks", ""),
        ("amplify", "--base", "a", "--delta", "b", "--tol", "2"),
        ("amplify", "--base", "a", "--delta", "b", "--scale", "inf"),
        ("inspect", "a", "--enable-lora", "2,0"),
        ("inspect", "a", "--bogus"),
        ("demo", "extra"),
        ("--threads", "0", "inspect", "a"),
    ],
)
def test_bad_usage_is_exit_2_with_nothing_on_standard_output(words, run):
    told = run(*words)
    assert told.code == 2 and told.out == ""
    assert told.err.startswith("Usage: subspace") and "\nError: " in told.err


def _one_line(told, *names):
    assert told.out == ""
    assert told.err.count("\n") == 1 and told.err.startswith("error: "), told.err
    assert all(str(name) in told.err for name in names), told.err


@pytest.mark.parametrize(
    "words", [("inspect",), ("compare", "@first"), ("amplify", "--base", "@base.safetensors", "--delta")]
)
def test_a_missing_file_is_one_line_that_names_it(words, run, made):
    told = run(*(str(made / word[1:]) if word.startswith("@") else word for word in words), "no/such/file")
    assert told.code == 1
    _one_line(told, "no/such/file", "check the path")


def test_a_file_that_is_no_adapter_is_one_line(run, made, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    told = run("inspect", text)
    assert told.code == 1
    _one_line(told, "notes.txt")
    told = run("inspect", made / "base.safetensors")
    assert told.code == 1
    _one_line(told, "base.safetensors", "no LoRA keys", "--base")


def test_inconclusive_is_exit_3(run, made):
    told = run("compare", made / "start", made / "second")
    assert told.code == 3
    _one_line(told, "made0/start", "untrained")
    told = run("amplify", "--base", made / "base.safetensors", "--delta", made / "start")
    assert told.code == 3
    _one_line(told, "untrained", "made0/start")


def test_control_characters_of_a_path_do_not_reach_the_terminal(run):
    told = run("inspect", "evil\x1b[31m\nerror: fine")
    assert told.code == 1
    _one_line(told, "\\x1b[31m\\n")


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "first"],
        ["compare", "first", "second"],
        ["amplify", "--base", "base.safetensors", "--delta", "first"],
    ],
)
def test_a_command_of_its_own_process(words, made):
    command = [sys.executable, "-m", "subspace", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=made)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("module")
    assert done.stdout.count("self_attn.q_proj") == 3


def test_the_installed_script_runs(tmp_path):
    script = os.path.join(os.path.dirname(sys.executable), "subspace")  # noqa: PTH118, PTH120
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout == f"subspace, version {subspace.__version__}\n" and done.returncode == 0


def test_an_error_of_a_process_of_its_own(run_apart):
    told = run_apart("compare", "a", "b")
    assert told.code == 1
    _one_line(told, "No such file or directory: a;")


def test_a_reader_that_stops_is_no_traceback(made):
    command = [sys.executable, "-m", "subspace", "inspect", "--json", *[str(made / "first")] * 80]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110
@pytest.mark.parametrize("words", [["inspect", "first"], ["compare", "first", "second", "--json"]])
def test_a_full_disk_is_one_line(words, made):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "subspace", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=made)
    assert done.returncode == 1
    assert done.stderr == "error: Cannot write the output: No space left on device\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    "words",
    [
        "convert first {out} --to peft",
        pytest.param("demo -o {out}", marks=pytest.mark.slow),
        pytest.param("compare first second --figure fig3 -o {out}", marks=pytest.mark.slow),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_streams_that_the_caller_closed_are_no_error(closed, words, made, tmp_path):
    """What is written there is lost, and no file that is opened takes their place."""
    command = words.format(out=shlex.quote(str(tmp_path / "out")))
    command = f"{shlex.quote(sys.executable)} -m subspace {command} {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, cwd=made)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert any((tmp_path / "out").iterdir())
