"""Names of modules: which module of one file is which of another, whatever library named them."""
