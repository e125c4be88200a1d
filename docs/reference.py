"""Write the reference of the Python interface from its docstrings: ``python docs/reference.py FOLDER``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pdoc

# the packages that a user imports from, outermost first
PACKAGES = ["subspace"] + [
    f"subspace.{name}"
    for name in (
        "adapters",
        "analysis",
        "results",
        "plots",
        "training",
        "study",
        "geometry",
        "checkpoints",
        "errors",
    )
]


def main() -> None:
    """Load what is loaded on first use, which pdoc does not do, then document it."""
    for package in map(import_module, PACKAGES):
        for name in getattr(package, "__all__", ()):
            package.__dict__[name] = getattr(package, name)
    pdoc.render.configure(docformat="numpy")
    pdoc.pdoc(*PACKAGES, output_directory=Path(sys.argv[1]))


if __name__ == "__main__":
    main()
