"""``python -m subspace`` is the command line."""

from subspace.cli import main

main()
