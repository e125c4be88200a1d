"""One file per command, found by being there: its first line is what `subspace --help` says of it."""
