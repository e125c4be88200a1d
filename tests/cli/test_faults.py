"""Errors as a stranger meets them: each is one line of English that says what happened, where, and what to do."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from subspace.training import save_base, save_peft

D = 32
MODULES = [f"model.layers.{n}.self_attn.{p}_proj" for n in range(3) for p in "qv"]
_CLASSES = re.compile(
    r"NoneType|<class|Traceback|\w+Error\b|\bdict\b|\bndarray\b|\btuple\b|\bTrue\b|\bFalse\b|\bNone\b"
)


@pytest.fixture(scope="module")
def place(made, tmp_path_factory) -> Path:
    """Good inputs under short names, and broken ones next to them."""
    folder = tmp_path_factory.mktemp("faults")
    rng = np.random.default_rng(1)
    for name in ("first", "second", "start"):
        shutil.copytree(made / name, folder / name)
    for name in ("base.safetensors", "pair.npz", "W.npy", "dW.npy"):
        shutil.copy(made / name, folder)
    save_base(folder / "small.safetensors", {f"{m}.weight": rng.standard_normal((16, D)) for m in MODULES})
    save_base(
        folder / "other.safetensors", {f"h.{n}.attn.weight": rng.standard_normal((D, D)) for n in range(3)}
    )
    save_base(folder / "tuned.safetensors", {f"{m}.weight": rng.standard_normal((D, D)) for m in MODULES})
    save_peft(folder / "names", {f"x.{n}": (np.ones((2, D)), np.ones((D, 2))) for n in range(2)}, alpha=8)
    np.save(folder / "nan.npy", np.full((D, D), np.nan))
    np.save(folder / "vector.npy", np.ones(4))
    np.savez(folder / "only_A.npz", **{"q.lora_A": np.ones((2, D))})
    np.savez(folder / "ia3.npz", **{f"{MODULES[0]}.ia3_l": np.ones((D, 1))})
    np.savez(folder / "oft.npz", **{f"{MODULES[0]}.oft_R.weight": rng.standard_normal((D // 4, 6))})
    boft = {"boft_R": np.zeros((1, D // 4, 4, 4)), "boft_s": np.full((D, 1), 2.0)}
    np.savez(folder / "boft.npz", **{f"{MODULES[0]}.{name}": numbers for name, numbers in boft.items()})
    np.savez(folder / "fused.npz", **{"attn.lora_A": np.ones((8, D)), "attn.lora_B": np.ones((2 * D, 4))})
    (folder / "notes.txt").write_text("hello")
    (folder / "empty.safetensors").touch()
    (folder / "cut.safetensors").write_bytes((folder / "first/adapter_model.safetensors").read_bytes()[:2000])
    (folder / "emptydir").mkdir()
    (folder / "occupied").mkdir()
    (folder / "occupied/letter").write_text("dear")
    configs = {
        "json": "{no",
        "list": "[]",
        "null": "null",
        "rank": '{"r": 0}',
        "ranks": '{"r": 9, "lora_alpha": 8, "peft_type": "LORA"}',
        "alpha": '{"r": 4, "lora_alpha": "x"}',
        "digits": '{"r": %s}' % ("9" * 5000),
        "prompt": '{"peft_type": "PROMPT_TUNING"}',
        "pattern": '{"r": 4, "lora_alpha": 8, "rank_pattern": {"(q": 2}}',
        "bare": "{}",
    }
    for name, text in configs.items():
        shutil.copytree(made / "first", folder / f"config_{name}")
        (folder / f"config_{name}" / "adapter_config.json").write_text(text)
    (folder / "config_bare/adapter_model.safetensors").unlink()
    for n, text in enumerate(('{"q_proj": 0}', '{"q_proj": "a"}', '{"(": 2}', "[1]", "{")):
        (folder / f"ranks{n}.json").write_text(text)
    (folder / "many").mkdir()
    for name in ("a.npz", "b.npz"):
        shutil.copy(folder / "pair.npz", folder / "many" / name)
    for name in ("de", "fr"):
        shutil.copytree(made / "first", folder / "two" / name)
    (folder / "reviews.csv").write_text("text,label\ngood,1\nbad,0\n")
    (folder / "columns.jsonl").write_text('{"x": "abc"}\n')
    (folder / "broken.jsonl").write_text('{"x": 1\n')
    (folder / "tiny.txt").write_text("a\n")
    return folder


@pytest.fixture
def here(place, monkeypatch):
    """The folder of inputs as the current one, so that a command line is what a user would type."""
    monkeypatch.chdir(place)
    return place


# command line -> exit code, words of the message
ERRORS = {
    # missing
    "inspect nothing": (1, "No such file or directory: nothing; check the path"),
    "inspect ''": (1, "The path is empty; give the path"),
    "inspect https://huggingface.co/org/name": (1, "Cannot read from an address: .* as hf://org/name"),
    "inspect first/adaptr": (
        1,
        "No such file or directory: first/adaptr; first is here, .* or give hf://first/adaptr",
    ),
    "inspect hf://org/a/b": (
        1,
        "Not the name of a repository of the Hugging Face hub: hf://org/a/b; give hf://org/name",
    ),
    "inspect first/adapter_model.safetensors/x": (1, "leads through another file: first/"),
    "compare first nothing.pt": (1, r"No such file or directory: nothing\.pt;"),
    "compare first second --init nothing.pt": (1, r"No such file or directory: nothing\.pt;"),
    "amplify --base gpt2 --delta first": (
        1,
        "No such file or directory: gpt2; .*such as openai-community/gpt2",
    ),
    "inspect tuned.safetensors --base gpt2": (1, "No such file or directory: gpt2; .*openai-community/gpt2"),
    "truncate first new --rank-pattern no.json": (1, r"No such file or directory: no\.json;"),
    "train -o new --data no.txt": (1, r"No such file or directory: no\.txt;"),
    # not what it should be
    "inspect notes.txt": (1, r"Not a safetensors.*: notes\.txt is only 5 bytes long; download it again"),
    "inspect ranks0.json": (1, "is JSON text.*; give the weights file"),
    "inspect emptydir": (1, "No adapter in the directory emptydir: it holds no file of weights; give"),
    "inspect config_bare": (1, "No adapter in the directory config_bare: it holds no file of weights; give"),
    "inspect base.safetensors": (1, r"Not an adapter of a known format: .*base\.safetensors; .* as --base"),
    "inspect vector.npy": (1, r"no LoRA keys among 1 tensor \(without a name\), in vector\.npy"),
    "inspect config_prompt": (
        1,
        "type PROMPT_TUNING, which trains prompts and changes no weight, in config_prompt/",
    ),
    "inspect only_A.npz": (1, r"lora_B is missing for module q of only_A\.npz"),
    "inspect many": (
        1,
        "Cannot tell which file is the adapter: many holds 2 files .*: many/a.npz, many/b.npz",
    ),
    "inspect two": (1, "There are 2 adapters in two: de, fr; choose one with --adapter-name"),
    "inspect two --adapter-name en": (1, "No adapter 'en' in two, which holds de, fr; .* --adapter-name"),
    "compare base.safetensors tuned.safetensors": (1, "both hold plain weights; .* as --base"),
    "amplify --base first --delta first": (1, "There is no weight matrix in the base, first/adapter_model"),
    "amplify --base emptydir --delta first": (1, "No weights of a model in the directory emptydir: .*; give"),
    "amplify --base many --delta first": (
        1,
        r"Cannot tell which file holds the weights .* many holds a\.npz, b\.npz",
    ),
    "amplify --base W.npy --delta first": (1, r"a single matrix .* 6 modules: .* in W\.npy; give the model"),
    "train -o new --model first": (1, "this is an adapter: give the model that it was trained on"),
    "train -o new --data base.safetensors": (1, r"looks binary: .*, in base\.safetensors line 1; give"),
    "train -o new --data columns.jsonl": (
        1,
        r"No column with texts .*columns\.jsonl: .* x, .*; rename it to text, or .* --text-column",
    ),
    # damaged
    "inspect empty.safetensors": (1, r"empty\.safetensors is an empty file; download it again"),
    "inspect cut.safetensors": (
        1,
        r"Damaged safetensors file: .* is cut short, in cut\.safetensors; download",
    ),
    "inspect config_json": (
        1,
        "Invalid JSON file: .* at character 1, in config_json/adapter_config.json; save",
    ),
    "inspect config_list": (1, "the top level is a list, not an object, in config_list/"),
    "inspect config_null": (1, "the top level is null, not an object, in config_null/"),
    "inspect config_digits": (1, "a whole number of 5000 digits is out of range, in config_digits/"),
    "inspect config_rank": (1, "Invalid r: 0 is not a positive whole number, in config_rank/"),
    "inspect config_alpha": (1, "Invalid lora_alpha: 'x' is not a positive number, in config_alpha/"),
    "inspect config_pattern": (1, r"The pattern \(q is not a valid regular expression: missing \)"),
    "compare nan.npy dW.npy": (3, r"No common module has a score.*numbers in nan\.npy are not all finite"),
    "compare dW.npy nan.npy": (3, r"No common module has a score.*numbers in nan\.npy are not all finite"),
    "align --base W.npy --delta nan.npy": (
        3,
        r"No module can be aligned.*numbers in nan\.npy are not all finite \(NaN or Inf\)",
    ),
    "align --base base.safetensors --delta start": (3, "Every delta_W is exactly zero .*, in start/"),
    "explain start": (3, r"No module has a direction: .*\(untrained\).*, in start/"),
    "explain nan.npy": (3, r"No module has a direction: .*numbers in nan\.npy are not all finite"),
    "explain first --inputs base.safetensors": (1, r"Not a file of inputs: base\.safetensors; give one"),
    "explain first --heads 1,2,3": (1, "Invalid heads .*give --heads one number, or two"),
    "amplify --base W.npy --delta nan.npy": (
        3,
        r"No module has an amplification factor.*numbers in nan\.npy are not all finite \(NaN or Inf\)",
    ),
    "truncate nan.npy new --rank 2": (1, r"Not a finite number: nan .*, in nan\.npy;"),
    "train -o new --data broken.jsonl": (
        1,
        r"Invalid JSON: .*, in broken\.jsonl line 1; write one object per line",
    ),
    # contradictory
    "inspect config_ranks": (1, "different ranks: r = 9 in config_ranks/.* and 4 in the factors of module"),
    "inspect fused.npz --enable-lora 1,1,1": (
        1,
        "in --enable-lora than in the factors: 3 and 2, in module attn",
    ),
    "inspect fused.npz --enable-lora 0,0": (1, "Invalid --enable-lora 0,0: .*; give it such as 1,0,1"),
    "inspect first --scale 0": (1, "Invalid scale: 0.0 is not a finite number other than 0"),
    "inspect first --map a=b": (1, "No module to rename: none is called 'a' .* its modules are model"),
    "inspect first --map '*.q_proj=x'": (1, "Two modules would have the name 'x': .* with --map"),
    "inspect first --map '*.q_proj=*.*'": (1, r"Too many \*: '\*\.\*' has more .*'\*\.q_proj', in --map"),
    "inspect first --modules nope": (1, "No module matches nope; there are model"),
    "inspect first --sort nope": (1, "No column 'nope' to sort by; there are path, module, kind, r"),
    "inspect tuned.safetensors --base other.safetensors": (1, "No matrices in common between tuned"),
    "compare first names": (3, "No module in common between first/.*: the first has .* map them with --map"),
    "compare first start": (
        3,
        r"No common module has a score, in first/.*; in all 6 modules .*\(untrained\)",
    ),
    "compare first ia3.npz": (
        3,
        r"No base weights: delta_W of IA3 needs the base weight of module model.* of ia3\.npz; .* as --base",
    ),
    "compare ia3.npz ia3.npz --side left": (
        3,
        "No base weights: delta_W of IA3 needs the base weight of .* as --base",
    ),
    "compare oft.npz first --side all": (
        3,
        "No base weights: delta_W of OFT needs the base weight of .* as --base",
    ),
    "compare boft.npz boft.npz": (
        3,
        "No base weights: delta_W of BOFT needs the base weight of .* as --base",
    ),
    "compare first oft.npz --base other.safetensors": (
        3,
        r"The base has no such module: delta_W of OFT needs .*, which other\.safetensors lacks; give the",
    ),
    "amplify --base other.safetensors --delta ia3.npz": (
        3,
        r"No module of the adapter is in the base: ia3\.npz has model.*, and other\.safetensors has",
    ),
    "amplify --base other.safetensors --delta boft.npz --scale 2": (
        3,
        "No module of the adapter is in the base: .*",
    ),
    "truncate ia3.npz new --rank 2": (
        3,
        "No base weights: delta_W of IA3 needs the base weight of .* as --base",
    ),
    "truncate oft.npz new --energy 0.9 --scale 2": (3, "No base weights: delta_W of OFT needs .* as --base"),
    "truncate boft.npz new --rank 2 --base other.safetensors": (
        3,
        "The base has no such module: delta_W of BOFT needs",
    ),
    "convert ia3.npz new --to peft": (
        1,
        r"Cannot write module model.* of ia3\.npz, whose delta_W needs the base weight; .* truncate with --base",
    ),
    "convert oft.npz new.safetensors --to kohya --scale 2": (
        1,
        "delta_W needs the base weight; .* with --base",
    ),
    "convert boft.npz new.pt --to loralib --base other.safetensors": (
        1,
        "delta_W needs the base weight; cut it to",
    ),
    "compare first second --init pair.npz": (1, r"of neither adapter: pair\.npz is no start of .* as --init"),
    "compare first second --init start --init start": (
        1,
        "other shapes .* r = 4 and 6, in module .* as --init",
    ),
    "compare small.safetensors first": (1, r"does not have the shape .* \[16, 32\] .* \[32, 32\], in small"),
    "compare first second --figure fig8": (
        1,
        "Figure 8 needs base weights on one side, and both are adapters; give",
    ),
    "compare first second --figure fig3 --layer 9": (
        1,
        "There is no layer 9 in this comparison; it has layers 0, 1",
    ),
    "amplify --base other.safetensors --delta first": (
        3,
        "No module of the adapter is in the base: .* --map",
    ),
    "amplify --base base.safetensors --delta start": (3, "Every delta_W is exactly zero .*, in start/"),
    "amplify --base small.safetensors --delta first": (1, r"\[16, 32\] and delta_W .* \[32, 32\], in small"),
    # outputs
    "convert first out.xyz --to kohya": (1, r"Cannot write out\.xyz: it does not end in \.safetensors"),
    "convert first foo.pt --to peft": (
        1,
        r"Cannot write foo\.pt: it is named like a file of weights, .* directory",
    ),
    "convert first first --to peft": (1, "Cannot write first: it is the input"),
    "convert first second --to peft": (1, "Cannot write second: it exists already; .* --overwrite"),
    "convert first occupied --to peft": (1, "Cannot write occupied: .* something other than an adapter"),
    "convert first notes.txt/x --to peft": (1, r"Cannot write notes\.txt/x: a part of the path is a file"),
    "convert first '' --to peft": (1, "The name of the output is empty; give"),
    "convert first new.safetensors --to kohya --module x": (
        1,
        "Cannot name 6 modules: --module .*; leave it out",
    ),
    "convert pair.npz new --to peft": (
        3,
        r"needs the scale of delta_W, which is unknown, in pair\.npz; give --scale",
    ),
    "convert pair.npz new --to peft --scale 2": (1, r"a module without a name, in pair\.npz; .* --module"),
    "amplify --base other.safetensors --delta dW.npy": (
        3,
        r"in the base: dW\.npy has a matrix without a name, and other\.safetensors has h",
    ),
    "convert dW.npy new --to peft": (
        1,
        r"Cannot write a dense delta_W, in dW\.npy; cut it .* subspace truncate",
    ),
    "truncate first new --rank-pattern ranks0.json": (1, "Invalid rank 0 for 'q_proj' in --rank-pattern;"),
    "truncate first new --rank-pattern ranks1.json": (1, "Invalid rank 'a' for 'q_proj' in --rank-pattern;"),
    "truncate first new --rank-pattern ranks2.json": (1, r"The pattern \( is not .*, in --rank-pattern"),
    "truncate first new --rank-pattern ranks3.json": (1, r"the top level is a list.*, in ranks3\.json"),
    "truncate dW.npy new --energy 0.9": (
        1,
        r"a module without a name, in dW\.npy; give it a name with --module",
    ),
    "compare first second -o notes.txt": (1, "Cannot write notes.txt/grid.*: a part of the path is a file"),
    "demo -o occupied": (1, "The folder occupied is not empty: it holds letter; give another folder"),
    "demo -o notes.txt": (1, "notes.txt"),
    "reproduce -o occupied": (1, r"Not the directory of a study: occupied holds letter, but no study\.json"),
    "train -o occupied": (1, r"Not the directory of a run: occupied holds letter, but no run\.json"),
    "train -o notes.txt": (1, r"Not a directory: notes\.txt is a file, where a run needs a directory"),
    # training
    "train -o new --targets nope": (1, "No layer matches the target 'nope'; the model has .*q_proj"),
    "train -o new --keep nope": (1, "No module matches 'nope', which is to be kept .* has .*q_proj"),
    "train -o new --rank 9999": (1, "Rank 9999 is too large .* 256 x 256: .* lower --rank"),
    "train -o new --lr nan": (1, "Invalid --lr nan: it must be finite and not negative"),
    "train -o new --alpha nan": (1, "Invalid --alpha nan: it must be finite"),
    "train -o new --alpha 0": (1, r"Invalid --alpha 0\.0: .* other than 0"),
    "train -o new --text-column x": (
        1,
        "There are no data with a column 'x'; give --data, or leave --text-column out",
    ),
    "train -o new --groups 1,0,1": (
        1,
        "q_proj is not a fused layer, of which --groups are parts; leave --groups out",
    ),
    "train -o new --method full --format loralib": (
        1,
        "cannot hold what the method full trains; give --format",
    ),
    "train -o new --data reviews.csv": (
        1,
        "cannot classify, and the data have 2 labels; .* give --no-labels",
    ),
    "reproduce -o new --data columns.jsonl": (
        1,
        r"No column with texts .*columns\.jsonl: .*; rename it to text$",
    ),
    "train -o new --data tiny.txt": (1, "too short to hold out .*; give more text, or give --held-out as 0"),
    "train -o new --no-labels --label-column label --data reviews.csv": (
        1,
        "labels are turned off; leave --label-column out",
    ),
}


@pytest.mark.parametrize("line", ERRORS)
def test_an_error_is_one_line_that_a_stranger_understands(line, run, here):
    code, words = ERRORS[line]
    done = run(*shlex.split(line))
    assert done.code == code and done.out == "", done
    assert done.err.count("\n") == 1 and re.match(r"error: [A-Z]\S* ", done.err), done.err
    assert re.search(words, done.err), done.err
    assert "`" not in done.err and "got " not in done.err and not _CLASSES.search(done.err), done.err
    assert "in in " not in done.err and "module  " not in done.err and not done.err.endswith(".\n"), done.err
    assert not (here / "new").exists()


USAGE = {
    "compair first second": "No such command 'compair'. Did you mean 'compare'?",
    "inspct first": "Did you mean 'inspect'?",
    "xyz": "No such command 'xyz'.",
    "--threads x inspect first": "'x' is not a valid integer",
    "inspect first --top x": "'x' is not a valid integer",
    "inspect first --top 0": "0 is not in the range x>=1",
    "inspect first --scale x": "'x' is not a valid number",
    "inspect first --json --csv": "--json, --csv and --table exclude each other",
    "inspect first --csv --table": "--json, --csv and --table exclude each other",
    "compare first second --scale 2": "compare takes no --scale: phi, angles and shared dimensions do not depend on it",
    "compare first second --grid": "--grid needs --json",
    "compare first second --layer 1": "--layer needs --figure or --out",
    "compare first second --relative": "--relative needs --figure or --out",
    "compare first second --init a --init b --init c": "Give --init once for both adapters, or twice",
    "compare first second --adapter-name a --adapter-name b --adapter-name c": "give it once for both adapters",
    "compare first second --level x": "'x' is not a valid number",
    "truncate first new": "Give --rank, --rank-pattern or both, or --energy alone",
    "truncate first new --rank 2 --energy 0.5": "Give --rank, --rank-pattern or both, or --energy alone",
    "train -o new --method full --rank 4": "--rank needs --method lora",
}  # fmt: skip


@pytest.mark.parametrize("line", USAGE)
def test_a_wrong_use_says_what_is_right(line, run, here):
    done = run(*shlex.split(line))
    assert done.code == 2 and done.out == "" and USAGE[line] in " ".join(done.err.split())
    assert "`" not in done.err and "range.\n" not in done.err.replace("in the range", "")


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), OSError(errno.EIO, "Bad disk", "x.pt")]
)
def test_an_error_of_the_system_is_not_blamed_on_the_output(error, run, here, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("subspace.cli.commands.inspect.inspect", fail)
    done = run("inspect", "first")
    expected = (
        "Bad disk: x.pt" if error.filename else "The operating system reports an error: Input/output error"
    )
    assert (done.code, done.err) == (1, f"error: {expected}\n")


def test_out_of_memory_is_one_line(run, here, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("subspace.cli.commands.inspect.inspect", fail)
    done = run("inspect", "first")
    assert (done.code, done.err) == (1, "error: Out of memory: one module of the input does not fit\n")


@pytest.mark.parametrize(
    ("words", "expected"), [((), "2"), (("--threads", "4"), "4"), (("--threads", "1"), "1")]
)
def test_threads_that_are_given_override_the_environment(words, expected, run, here, monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "2")
    assert run(*words, "inspect", "first").code == 0
    assert os.environ["OMP_NUM_THREADS"] == os.environ["OPENBLAS_NUM_THREADS"] == expected


@pytest.mark.skipif(shutil.which("head") is None, reason="no head here")
@pytest.mark.parametrize("words", ["first", "--json first " * 40, "--csv first " * 40])
def test_a_pipe_to_head_is_no_error(words, here):
    me = f"{shlex.quote(sys.executable)} -m subspace inspect {words} | head -c 5"
    script = f"set -o pipefail; {me}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_completion_is_documented_and_works(run, run_apart):
    assert "_SUBSPACE_COMPLETE=bash_source subspace" in run("--help").out
    environment = {
        **os.environ,
        "_SUBSPACE_COMPLETE": "bash_complete",
        "COMP_WORDS": "subspace comp",
        "COMP_CWORD": "1",
    }
    assert run_apart(env=environment).out.split() == ["plain,compare"]


# folders of adapters


@pytest.fixture
def several(made, tmp_path, monkeypatch):
    """What `subspace demo` leaves: adapters in folders, and their base as the one loose file of weights."""
    folder = tmp_path / "demo"
    for name in ("a_r8", "a_r64"):
        shutil.copytree(made / "first", folder / name)
    shutil.copy(made / "base.safetensors", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_folder_lists_its_adapters(run, several):
    done = run("inspect", "demo")
    assert done.code == 1 and done.err == (
        "error: The directory demo is not an adapter, but holds 2 adapters; give one of these paths: demo/a_r8, "
        "demo/a_r64\n"
    )
    assert run("inspect", "demo/a_r8").code == 0
    assert run("inspect", "demo", "--adapter-name", "a_r8").code == 0


def test_a_folder_of_adapters_with_its_base_is_still_a_base(run, several):
    assert run("amplify", "--base", "demo", "--delta", "demo/a_r8").code == 0
    assert run("compare", "demo", "demo/a_r8").code == 0


def test_a_folder_lists_folders_and_loose_files(run, several, made):
    shutil.copy(made / "pair.npz", several)
    done = run("inspect", "demo")
    assert done.code == 1
    assert "demo/a_r8, demo/a_r64, demo/base.safetensors, demo/pair.npz" in done.err


def test_a_loose_adapter_is_taken_whatever_lies_next_to_it(run, several):
    shutil.copy(several / "a_r8/adapter_model.safetensors", several / "base.safetensors")
    assert run("inspect", "demo").code == 0


# what is printed


def test_notes_of_reading_are_those_of_inspect(run, here, tmp_path):
    shutil.copytree(here / "first", tmp_path / "pissa")
    path = tmp_path / "pissa/adapter_config.json"
    config = json.loads(path.read_text()) | {"init_lora_weights": "pissa", "rank_pattern": {"nope": 4}}
    path.write_text(json.dumps(config))
    inspected, compared = (
        run("inspect", tmp_path / "pissa").err,
        run("compare", tmp_path / "pissa", "second").err,
    )
    notes = [line.removeprefix("warning: ") for line in inspected.splitlines()]
    assert (
        len(notes) == 2 and any("pissa" in note for note in notes) and any("nope" in note for note in notes)
    )
    assert all(
        f"In the first adapter, {tmp_path}/pissa/adapter_model.safetensors: {note}" in compared
        for note in notes
    )
    again = run("compare", tmp_path / "pissa", tmp_path / "pissa").err
    assert all(f"In both adapters: {note}" in again for note in notes)


def test_notes_of_json_are_in_options(run, here):
    done = run("inspect", "fused.npz", "--json")
    (note,) = [note for note in json.loads(done.out)["notes"] if "group of a fused layer" in note]
    assert "give --enable-lora" in note and "`" not in done.out


def test_csv_names_both_adapters_and_the_stored_names(run, here):
    done = run("compare", "names", "first", "--map", "model.layers.*.self_attn.q_proj=x.*", "--csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert {row["first"] for row in rows} == {"names/adapter_model.safetensors"}
    assert {row["second"] for row in rows} == {"first/adapter_model.safetensors"}
    assert [(row["module"], row["second_module"]) for row in rows] == [
        ("x.0", MODULES[0]),
        ("x.1", MODULES[2]),
    ]
    made = run("compare", "names", "first", "--map", "model.layers.*.self_attn.q_proj=x.*", "--json")
    assert [row["second_module"] for row in json.loads(made.out)["modules"]] == [MODULES[0], MODULES[2]]


def test_only_ranks_above_that_of_delta_w_are_flagged(run, here):
    done = run("amplify", "--base", "base.safetensors", "--delta", "first", "--ranks", "1,4,64", "--csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert {(row["r"], row["flags"]) for row in rows} == {("1", ""), ("4", "rank_below_wanted")}
    done = run("amplify", "--base", "base.safetensors", "--delta", "first", "--ranks", "1,4", "--csv")
    assert not any(row["flags"] for row in csv.DictReader(io.StringIO(done.out)))


def test_each_of_several_adapters_has_its_path_above_its_table(run, here):
    lines = run("inspect", "first", "second").out.splitlines()
    headings = [n for n, line in enumerate(lines) if line.startswith("== ")]
    assert [lines[n] for n in headings] == [
        f"== {name}/adapter_model.safetensors" for name in ("first", "second")
    ]
    assert all(lines[n + 1].startswith("module") for n in headings)
    assert "== " not in run("inspect", "first").out


def test_several_figures_are_all_drawn(run, here, tmp_path):
    done = run("compare", "first", "second", "--figure", "fig3", "--figure", "grid", "-o", tmp_path)
    assert done.code == 0
    assert {"fig3-a.png", "grid-a.png", "comparison.json"} <= {path.name for path in tmp_path.iterdir()}


# --modules, --sort and --top

TABLES = {
    "inspect first": "norm_delta_W",
    "compare first second": "phi_full",
    "align --base base.safetensors --delta first": "input_share",
    "explain first --base base.safetensors --directions 1": "W_share",
    "amplify --base base.safetensors --delta first": "amplification",
    "convert first {out} --to peft": "error",
    "truncate first {out} --rank 2": "error",
}


@pytest.mark.parametrize("line", TABLES)
def test_rows_are_chosen_sorted_and_cut(line, run, here, tmp_path):
    column = TABLES[line]

    def rows(*words):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        done = run(*shlex.split(line.format(out=out)), *words)
        assert done.code == 0, done.err
        return done.out

    def as_csv(*words):
        return list(csv.DictReader(io.StringIO(rows("--csv", *words))))

    whole = as_csv()
    assert len(whole) == 6
    assert [row["module"] for row in as_csv("--modules", "*.1.*", "--modules", "*0*v_proj")] == [
        row["module"] for row in whole if ".1." in row["module"] or "0.self_attn.v" in row["module"]
    ]
    values = [float(row[column]) for row in as_csv("--sort", column)]
    assert values == sorted(values, reverse=True) and len(values) == 6
    values = [float(row[column]) for row in as_csv("--sort", f"-{column}", "--top", "4")]
    assert values == sorted(values) and len(values) == 4
    assert [row["module"] for row in as_csv("--sort", "-module", "--top", "1")] == [MODULES[-1]]
    document = json.loads(rows("--json", "--modules", "*q_proj", "--sort", "module", "--top", "2"))
    assert [row["module"] for row in document["modules"]] == [MODULES[0], MODULES[2]]
    assert document["schema"].endswith(f"{line.split()[0]}/1") and document["headline"]
    table = rows("--top", "2", "--table")
    assert table.count("_proj") == 2 and "Showing 2 of 6 rows." in table
    assert "Showing" not in rows("--top", "6")


@pytest.mark.parametrize("line", TABLES)
@pytest.mark.parametrize("words", ["--modules nope", "--sort nope", "--sort=-nope", "--sort document"])
def test_rows_that_cannot_be_chosen(line, words, run, here, tmp_path):
    done = run(*shlex.split(line.format(out=tmp_path / "out")), *words.split())
    name = words.split()[-1].removeprefix("--sort=-")
    expected = (
        f"No module matches {name}; there are model" if "--mod" in words else f"No column '{name}' to sort by"
    )
    assert done.code == 1 and done.out == "" and expected in done.err


def test_amplify_sorts_by_the_columns_of_its_largest_rank(run, here):
    words = ["amplify", "--base", "base.safetensors", "--delta", "first", "--ranks", "1,4", "--csv"]
    for column in ("over_random", "proj_W"):
        rows = list(csv.DictReader(io.StringIO(run(*words, "--sort", column).out)))
        assert [row["r"] for row in rows] == ["1", "4"] * 6
        values = [float(row[column]) for row in rows if row["r"] == "4"]
        assert values == sorted(values, reverse=True)


def test_values_that_do_not_exist_come_last(run, here, tmp_path):
    rng = np.random.default_rng(0)
    factors = {m: (rng.standard_normal((2, D)), rng.standard_normal((D, 2))) for m in MODULES}
    factors[MODULES[0]] = (factors[MODULES[0]][0], np.zeros((D, 2)))
    save_peft(tmp_path / "part", factors, alpha=4)
    for sort in ("phi_full", "-phi_full"):
        done = run("compare", tmp_path / "part", "second", "--csv", "--sort", sort)
        rows = list(csv.DictReader(io.StringIO(done.out)))
        assert [row["module"] for row in rows if not row["phi_full"]] == [MODULES[0]] == [rows[-1]["module"]]
