"""Linear algebra of subspaces on NumPy arrays: frames, angles, similarity, chance, spectra.

`B` and `A` are the two factors of a product here, and nothing more.

The public names are those of ``__init__.pyi``, each loaded from its file on first use, since every file that is
imported makes a command wait.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
