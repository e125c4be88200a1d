"""An adapter laid out for a file: layers, names and settings, checked by reading them back."""
