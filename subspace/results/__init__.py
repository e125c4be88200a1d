"""One frozen result for each question; import from `subspace` or from the module."""
