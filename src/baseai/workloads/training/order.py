"""The order of the data: which samples a step sees, as a function of (seed, step) alone.

Invariant: the samples of a step do not depend on how many workers share it, nor on what happened before; each
epoch is a permutation, so that within it every sample comes exactly once, whatever was killed or resized.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def samples_of(*, seed: int, step: int, batch: int, samples: int) -> NDArray[np.int64]:
    """The sample numbers of one step (steps count from 0), shape (batch,). An epoch may end inside a batch."""
    if samples < 1:
        raise ValueError("there is no sample")
    first = step * batch
    parts = []
    position = first
    while position < first + batch:
        epoch, offset = divmod(position, samples)
        taken = min(samples - offset, first + batch - position)
        parts.append(_epoch(seed, epoch, samples)[offset : offset + taken])
        position += taken
    return np.concatenate(parts)


def share_of(samples: NDArray[np.int64], *, rank: int, world: int) -> NDArray[np.int64]:
    """The rank's own part of a step: every world-th sample; parts differ by at most one in size."""
    return samples[rank::world]


@lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, samples: int) -> NDArray[np.int64]:
    # 8 bytes a sample; a set of 100 million samples costs 0.8 GB per worker and wants a cipher instead.
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch))))
    order = generator.permutation(samples)
    order.setflags(write=False)
    return order
