"""Names on the hub, from a cache laid out as huggingface_hub's; nothing here may reach a network."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from subspace import compare, load_adapter, load_base
from subspace.checkpoints.weights_files import adapter_files, model_files
from subspace.errors import FileError, FormatError, SubspaceError, UnrecognisedError
from subspace.hub import HubName, parsed
from subspace.training import save_base, save_peft

library = pytest.importorskip("huggingface_hub")
COMMIT, OLDER = "a" * 40, "b" * 40
MODULE = "model.layers.0.self_attn.q_proj"


class Hub:
    """What the server has, in place of the client's functions; it counts what was asked for."""

    def __init__(self, cache):
        self.cache, self.files, self.asked, self.reachable = cache, {}, [], False

    def add(self, repo, files, commit=COMMIT, ref="main"):
        """Blobs, links to them under snapshots/, and a name in refs/."""
        folder = self.cache / f"models--{repo.replace('/', '--')}"
        for name, content in files.items():
            blob, link = (
                folder / "blobs" / f"{commit[:3]}-{name.replace('/', '-')}",
                folder / "snapshots" / commit / name,
            )
            blob.parent.mkdir(parents=True, exist_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(content)
            link.symlink_to(blob)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / ref).write_text(commit)
        self.files[repo] = list(files)

    def model_info(self, repo, *, revision=None, timeout=None):
        if not self.reachable:
            raise ConnectionError("no route")
        if repo not in self.files:
            response = type("Response", (), {"headers": {}, "request": None, "status_code": 404})()
            raise library.errors.RepositoryNotFoundError("404", response=response)
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in self.files[repo]])

    def snapshot_download(self, repo, *, revision=None, allow_patterns=None, local_files_only=False):
        self.asked.append((repo, revision, allow_patterns))
        return self.real(repo, revision=revision, local_files_only=True, cache_dir=self.cache)


@pytest.fixture
def server(tmp_path, monkeypatch):
    made = Hub(tmp_path / "hub")
    made.real = library.snapshot_download
    monkeypatch.setattr(library, "snapshot_download", made.snapshot_download)
    monkeypatch.setattr(library, "HfApi", lambda: made)
    monkeypatch.chdir(tmp_path)
    return made


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def adapter(tmp_path):
    rng = np.random.default_rng(3)
    save_peft(
        tmp_path / "mine", {MODULE: (rng.standard_normal((2, 8)), rng.standard_normal((8, 2)))}, alpha=4
    )
    return tmp_path / "mine"


@pytest.mark.parametrize("reachable", [True, False])
def test_an_adapter_of_the_hub_is_that_of_its_folder(server, adapter, reachable):
    server.add("org/name", files_of(adapter))
    server.reachable = reachable
    found, wanted = load_adapter("org/name"), load_adapter(adapter)
    assert found[MODULE].scale == wanted[MODULE].scale
    assert np.array_equal(found[MODULE].A, wanted[MODULE].A)
    assert COMMIT in found.path
    assert compare("org/name", adapter).modules[0].phi_full == pytest.approx(1)


def test_a_revision_and_a_folder(server, adapter, tmp_path):
    server.add(
        "org/name", {"readme.md": b"", **{f"sub/x/{k}": v for k, v in files_of(adapter).items()}}, OLDER, "v1"
    )
    assert OLDER in load_adapter("org/name@v1:sub/x").path
    assert "sub/x" in load_adapter(f"org/name@{OLDER}:sub/x").path
    assert load_adapter("org/name@v1:sub/x/adapter_model.safetensors")[MODULE].scale.value == 2
    with pytest.raises(FileError, match="no such repository in the cache"):
        load_adapter("org/name@v2:sub/x")
    with pytest.raises(FileError, match="No such file or folder in the repository org/name: nothing"):
        load_adapter("org/name@v1:nothing")


def test_only_what_is_needed_is_asked_for(server, adapter):
    server.reachable = True
    server.add(
        "org/name",
        {**files_of(adapter), "optimizer.pt": b"", "model.safetensors": b"", "adapter_model.bin": b""},
    )
    load_adapter("org/name")
    assert server.asked == [("org/name", None, ["adapter_model.safetensors", "adapter_config.json"])]


def test_base_weights_of_the_hub(server, adapter, tmp_path):
    save_base(tmp_path / "model.safetensors", {f"{MODULE}.weight": np.eye(8)})
    weights = (tmp_path / "model.safetensors").read_bytes()
    server.add(
        "org/base",
        {"config.json": b'{"model_type": "llama"}', "model.safetensors": weights, "flax_model.msgpack": b""},
    )
    server.reachable = True
    assert load_base("org/base").model_type == "llama"
    assert server.asked == [("org/base", None, ["model.safetensors", "config.json"])]
    assert compare("org/base", adapter).first.format == "base weights"


def test_the_base_that_a_configuration_names_is_never_asked_for(server, adapter):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "org/base"}))
    load_adapter(adapter)
    assert server.asked == []


def test_what_exists_is_a_path(server, adapter, tmp_path):
    server.reachable = True
    (tmp_path / "org").mkdir()
    adapter.rename(tmp_path / "org" / "name")
    assert load_adapter("org/name")[MODULE].r == 2
    for path in ("org/slip", "runs/a.pt", "./x/y", "/x/y", "x", "x/y/z"):
        with pytest.raises(SubspaceError):
            load_adapter(path)
    assert server.asked == []


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_a_mistyped_local_path_is_never_sent(server, tmp_path, kind, caplog):
    runs = tmp_path / "runs"
    {"folder": runs.mkdir, "file": runs.touch, "dangling link": lambda: runs.symlink_to("gone")}[kind]()
    server.reachable = True
    server.add("runs/adaptr", {"x": b""})
    server.model_info = None
    for load in (load_adapter, load_base):
        with pytest.raises(
            FileError,
            match=r"No such file or directory: runs/adaptr; runs is here, .* hub was not asked: .*hf://runs/adaptr",
        ):
            load("runs/adaptr")
    assert server.asked == [] and not caplog.messages


def test_it_is_said_before_the_hub_is_asked(server, adapter, caplog):
    server.reachable = True
    server.add("org/name", files_of(adapter))
    ask, said = server.model_info, []

    def asked(*arguments, **given):
        said.append(list(caplog.messages))
        caplog.clear()
        return ask(*arguments, **given)

    server.model_info = asked
    load_adapter("org/name@main")
    load_adapter("hf://org/name@main")
    assert said == [["No such path here; asking the Hugging Face hub for org/name"], []]


def test_it_is_said_on_standard_error(tmp_path):
    """Where no log is set up, as on the command line."""
    code = "from subspace.hub import HubName, _announce; _announce(HubName('org/name', None, ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "No such path here; asking the Hugging Face hub for org/name\n"


def test_with_its_address_the_hub_is_always_asked(server, adapter, tmp_path):
    server.reachable = True
    server.add("org/name", {f"sub/{name}": content for name, content in files_of(adapter).items()})
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert COMMIT in load_adapter("hf://org/name:sub").path
    for address in (
        "hf://",
        "hf://org/na--me",
        "hf://org/name.git",
        "hf://../x",
        "hf://a/b/c",
        "hf://org/name:../x",
    ):
        with pytest.raises(
            FileError, match=f"Not the name of a repository .* hub: {address}; give hf://org/name"
        ):
            load_adapter(address)
    with pytest.raises(FileError, match=r"^No such repository on the Hugging Face hub: hf://org/other; "):
        load_adapter("hf://org/other")
    with pytest.raises(
        UnrecognisedError, match=r"No adapter in the repository org/name:elsewhere, .*: org/name:NAME"
    ):
        load_adapter("hf://org/name:elsewhere")


def test_offline_the_cache_is_read_and_nothing_is_asked(server, adapter, monkeypatch, caplog):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    server.add("org/name", files_of(adapter))
    server.model_info = None
    for path in ("org/name", "hf://org/name"):
        assert COMMIT in load_adapter(path).path
    with pytest.raises(
        FileError, match=r"No such file or directory: org/x, .* not asked: HF_HUB_OFFLINE is set; "
    ):
        load_adapter("org/x")
    assert not caplog.messages


def test_no_repository(server):
    server.reachable = True
    with pytest.raises(
        FileError, match=r"no such repository on the Hugging Face hub: org/nothing; .*private or gated"
    ):
        load_adapter("org/nothing")
    server.reachable = False
    with pytest.raises(
        FileError, match="no such repository in the cache of the Hugging Face hub, which cannot be reached"
    ):
        load_adapter("org/nothing")
    with pytest.raises(FileError, match="no such repository in the cache"):
        load_base("org/nothing")


def test_a_repository_without_an_adapter(server):
    server.reachable = True
    server.add("org/model", {"model-00001-of-00002.safetensors": b"", "config.json": b"{}"})
    with pytest.raises(
        UnrecognisedError,
        match=r"No adapter in the repository org/model, which holds model-0.*name a folder or file",
    ):
        load_adapter("org/model")
    server.add("org/many", {"a.safetensors": b"", "b.safetensors": b""})
    with pytest.raises(
        FormatError, match=r"2 adapters in the repository org/many: a.safetensors, b.safetensors; name one"
    ):
        load_adapter("org/many")
    assert server.asked == []


def test_without_the_extra(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        FileError, match=r"No such file or directory: org/name; .*pip install 'lora-subspace\[hub\]'"
    ):
        load_adapter("org/name")


def test_names():
    assert parsed("o/n@refs/pr/1") == HubName("o/n", "refs/pr/1", "")
    assert parsed("o/n:a/b.pt") == HubName("o/n", None, "a/b.pt")
    for path in (
        "o/n:../x",
        "o",
        "../n",
        "o/n@",
        "o/n:",
        "a.b/c.safetensors",
        "-o/n",
        "o/n:x:y",
        "ö/n",
        "o/n-",
        "o/n.",
        "o/" + 95 * "n",
    ):
        assert parsed(path) is None, path


def test_files_of_an_adapter_and_of_a_base():
    assert adapter_files(["x/lora.safetensors", "lora.safetensors", "a.md"]) == ["lora.safetensors"]
    assert adapter_files(["lit_model.pth.lora", "hyperparameters.yaml"])[1] == "hyperparameters.yaml"
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert model_files([*shards, "model.safetensors.index.json", "consolidated.safetensors"])[:2] == shards
    assert model_files(
        ["unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json"], "unet"
    ) == [
        "unet/diffusion_pytorch_model.safetensors",
        "unet/config.json",
    ]
    assert model_files(["adapter_model.safetensors"]) == []


def test_the_configuration_stands_for_its_folder():
    names = ["a/adapter_config.json", "a/adapter_model.safetensors", "b/adapter_model.safetensors"]
    assert adapter_files(names, "a/adapter_config.json") == adapter_files(names, "a")
