"""subspace: what did this adapter learn?"""

__version__ = "0.1.0"
