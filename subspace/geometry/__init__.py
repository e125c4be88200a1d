"""Linear algebra of subspaces on NumPy arrays: frames, angles, similarity, chance, spectra.

`B` and `A` are two factors of a product here, and nothing more.

The public names are those of ``__init__.pyi``, each loaded from its file on first use, since a command waits for every
file that is imported.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
