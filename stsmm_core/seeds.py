"""One seed in the config, an independent stream for every use of it."""

import zlib

import numpy as np


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and on their order, and on nothing else.

    A run that is killed and resumed draws the same numbers because no generator has to be carried along.
    """
    entropy = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in parts]
    # SeedSequence pads with zeros: the number of parts keeps (1, 2) and (1, 2, 0) apart.
    return int(np.random.SeedSequence([len(entropy), *entropy]).generate_state(1, np.uint64)[0] >> 1)


def generator(*parts: int | str) -> np.random.Generator:
    """A numpy generator of the derived seed."""
    return np.random.default_rng(derive_seed(*parts))
