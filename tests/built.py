"""What a release uploads, tried as a user has it: ``python tests/built.py dist/``, one of the two installed."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

_NEEDED = [
    "subspace/py.typed",
    "subspace/geometry/__init__.pyi",
    "subspace/report/page.html.j2",
    "subspace/training/embedded/base/model.safetensors",
    "subspace/training/embedded/base/config.json",
    "subspace/cli/commands/compare.py",
]
_OF_THE_SOURCE = [
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "LICENSE",
    "pyproject.toml",
    "tests/conftest.py",
]
# what lies about in a checkout
_UNWANTED = (
    "__pycache__",
    ".pyc",
    ".pt",
    ".npz",
    ".bin",
    ".git/",
    ".venv",
    ".DS_Store",
    "build/",
    "demo/",
    ".cache",
)


def names_in(archive: Path) -> list[str]:
    """Files of a wheel or a source archive, without the folder that a source archive has around them."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file:
            return file.namelist()
    with tarfile.open(archive) as file:
        return [member.name.partition("/")[2] for member in file if member.isfile()]


def require_content(archive: Path) -> None:
    """Refuse an archive that lacks what a user needs, or holds what nobody does."""
    names = names_in(archive)
    wheel = archive.suffix == ".whl"
    missing = set(_NEEDED if wheel else _NEEDED + _OF_THE_SOURCE) - set(names)
    odd = [name for name in names if any(word in f"/{name}" for word in _UNWANTED)]
    if wheel:
        odd += [name for name in names if not name.startswith("subspace/") and ".dist-info/" not in name]
    if missing or odd:
        sys.exit(f"{archive}: missing {sorted(missing)}, not wanted {sorted(odd)}")


def run(*words: str, folder: str, code: int = 0) -> str:
    """Run the installed command; return what it prints."""
    script = Path(sysconfig.get_path("scripts"), "subspace")
    done = subprocess.run([script, *words], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != code or "Traceback" in done.stderr:
        sys.exit(f"subspace {' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Look into every archive of a directory, then run the short commands of the README."""
    archives = [path for kind in ("*.whl", "*.tar.gz") for path in Path(sys.argv[1]).glob(kind)]
    assert len(archives) == 2, archives
    for archive in archives:
        require_content(archive)
    with tempfile.TemporaryDirectory() as folder:
        for words in (["--help"], ["reproduce", "--help"], ["train", "--help"]):
            assert "Usage: subspace" in run(*words, folder=folder)
        assert "shared" in run("demo", folder=folder)
        assert "q_proj" in run("inspect", "demo/a_r8", folder=folder)
        assert "shared_dim" in run("compare", "demo/a_r8", "demo/a_r64", "--json", folder=folder)
        assert "q_proj" in run(
            "amplify", "--base", "demo/base.safetensors", "--delta", "demo/a_r8", folder=folder
        )
        # the base that comes inside
        short = ["--steps", "2", "--batch", "1", "--length", "16", "--no-accounts"]
        run("train", "-o", "run", *short, folder=folder)
        run("convert", "run", "run.pt", "--to", "loralib", folder=folder)
    print(f"{', '.join(path.name for path in archives)}: complete, and what is installed works")


if __name__ == "__main__":
    main()
