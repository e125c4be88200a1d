"""One question per file, one frozen result each; import from `subspace` or from the module."""
