"""The daily commands, each in an environment of its own: ``nox`` runs checks and tests, ``nox -l`` lists all."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["check", "tests-{}.{}".format(*sys.version_info)]
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
LOCK = "requirements/dev.txt"


def _group(name: str) -> list[str]:
    return nox.project.dependency_groups(PROJECT, name)


@nox.session
def check(session: nox.Session) -> None:
    """Style, types and import contracts, a few seconds; ``--no-venv`` takes the tools of the present environment."""
    if session.virtualenv.is_sandboxed:
        # mypy follows the typed ones; torch is not followed and need not be there
        dependencies = [name for name in PROJECT["project"]["dependencies"] if not name.startswith("torch")]
        session.install(*_group("check"), *dependencies)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy", "subspace")
    session.run("lint-imports")


@nox.session
def fix(session: nox.Session) -> None:
    """Format, and mend what ruff can mend."""
    session.install(*_group("check"))
    session.run("ruff", "check", "--fix", ".")
    session.run("ruff", "format", ".")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The quick tests on one Python (``nox -s tests-3.12``); arguments after ``--`` go to pytest."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests marked slow: runs that are killed, whole studies, notebooks."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "2", "-m", "slow", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """The readers under a fuzzer that follows the lines an input reaches: ``nox -s fuzz -- --seconds 12000``."""
    session.install("-e", ".[test]", "atheris")
    # examples that no run has seen before
    session.run(
        "pytest", "-m", "slow or not slow", "tests/fuzz/test_valid_looking.py", "--hypothesis-profile=default"
    )
    session.run("python", "tests/fuzz/run.py", *(session.posargs or ["--seconds", "1200"]))


@nox.session
def audit(session: nox.Session) -> None:
    """Known vulnerabilities of everything that an installation brings."""
    session.install("-e", ".[hub,gguf]", "pip-audit")
    session.run("pip-audit", "--skip-editable", *session.posargs)


@nox.session(python=PYTHONS[0])
def minimum(session: nox.Session) -> None:
    """The quick tests on the oldest Python with every lower bound of pyproject.toml."""
    session.install("-e", ".[test]", "-c", "requirements/minimum.txt")
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The reference of the Python interface, from the docstrings, into build/docs."""
    session.install("-e", ".", *_group("docs"))
    session.run("python", "docs/reference.py", "build/docs")


@nox.session
def build(session: nox.Session) -> None:
    """What a release uploads: a wheel and a source archive in dist/, checked, and each installed and tried."""
    session.install("build", "twine")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", "dist/*")
    for kind in ("*.whl", "*.tar.gz"):
        (built,) = Path("dist").glob(kind)
        session.run("python", "-m", "pip", "uninstall", "--yes", "--quiet", "lora-subspace")
        session.install(str(built))
        session.run("python", "tests/built.py", "dist")


@nox.session
def lock(session: nox.Session) -> None:
    """Renew the development lock file; ``nox -s lock -- --upgrade`` takes the newest of everything."""
    session.install("uv")
    session.run(
        *("uv", "pip", "compile", "pyproject.toml", "--universal", "--python-version", PYTHONS[0]),
        *("--extra", "test", "--group", "dev", "--override", "requirements/without-torch.txt"),
        *("--no-annotate", "--custom-compile-command", "nox -s lock", "--quiet", "-o", LOCK),
        *session.posargs,
    )
