"""Random generators, derived from one seed and a name, so that no two uses share a stream."""

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on `seed` and on every name, the same on every machine."""
    text = "/".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for one named use.

    >>> generator(7, "users").integers(100) == generator(7, "users").integers(100)
    np.True_
    >>> derive_seed(7, "users") == derive_seed(7, "items")
    False
    """
    return np.random.Generator(np.random.PCG64(derive_seed(seed, *names)))
