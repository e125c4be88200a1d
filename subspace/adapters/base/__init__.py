"""Base weights: found by module name, oriented, read one at a time."""
