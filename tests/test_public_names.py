"""Every name in an ``__all__`` can be imported, and completion in an editor shows the public names alone."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import subspace

_PACKAGES = ("", "adapters", "checkpoints", "geometry", "plots", "report", "study", "training")
_MODULES = [
    module.name
    for module in pkgutil.walk_packages(subspace.__path__, "subspace.")
    if not any(part.startswith("_") for part in module.name.split("."))
]

# each name is asked of a package that was just imported: what another test has loaded before would hide a fault
_FRESH = """
import importlib, sys
package = importlib.import_module(sys.argv[1])
for name in package.__all__:
    for loaded in [module for module in sys.modules if module.split(".")[0] == "subspace"]:
        del sys.modules[loaded]
    getattr(importlib.import_module(sys.argv[1]), name)
"""


@pytest.mark.parametrize("name", _MODULES)
def test_every_public_name_of_a_module_is_there(name):
    module = importlib.import_module(name)
    names = getattr(module, "__all__", ())
    assert len(names) == len(set(names))
    for each in names:
        assert hasattr(module, each), f"{name}.__all__ has {each}, but {name} does not"


@pytest.mark.parametrize("name", _PACKAGES)
def test_every_public_name_of_a_package_is_loaded_on_first_use(name):
    command = [sys.executable, "-c", _FRESH, f"subspace.{name}".rstrip(".")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["embedded_base", "errors", "flags", "hub", "text"])
def test_dir_of_a_module_beside_the_packages_shows_its_public_names_and_no_others(name):
    module = importlib.import_module(f"subspace.{name}")
    assert dir(module) == sorted(module.__all__)


@pytest.mark.parametrize("name", _PACKAGES)
def test_dir_of_a_package_shows_its_public_names_and_no_others(name):
    package = importlib.import_module(f"subspace.{name}".rstrip("."))
    assert dir(package) == sorted(package.__all__)
    assert not hasattr(package, "no_such_name")
