"""Which module of one file is which of another, whatever its writer calls it."""
