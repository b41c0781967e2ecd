"""Random numbers by counter: the number at (seed, i, j) never depends on how many others are drawn.

NumPy's generators may change their streams between versions; subsets and rendered images are evidence, so
they use this fixed hash instead.
"""

from __future__ import annotations

import numpy as np


def _mix(state: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: every input bit reaches every output bit."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def hash64(seed: int, *counters: int | np.ndarray) -> np.ndarray:
    """A 64-bit hash of (seed, counters...), the counters broadcast against each other.

    Args:
        seed: any integer, negative ones included.
        counters: integers or integer arrays (>= 0) of shapes that broadcast.

    Returns:
        uint64 array of the broadcast shape.

    Source: SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    """
    step = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):  # wrapping around is the point
        state = _mix(np.asarray(int(seed) % 2**64, np.uint64) + step)
        for counter in counters:
            state = _mix((state ^ np.asarray(counter).astype(np.uint64)) + step)
    return np.asarray(state)


def uniform(seed: int, *counters: int | np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) with 53 random bits, one for each (seed, counters...); see `hash64`."""
    return (hash64(seed, *counters) >> np.uint64(11)) * 2.0**-53
