"""Long histories in blocks, so that what is made up on the way does not grow with them."""

from __future__ import annotations

from itertools import pairwise

__all__ = ["blocks_of"]

# A multiple of every block further down (1024, 2048 and 4096 rows): they are cut as without
# these here, and results are the same to the bit.
_BLOCK_BARS = 16_384
# Fewer rows than this join the block before: so few may be multiplied in another order.
_SHORTEST = 1024


def blocks_of(first: int, stop: int) -> list[tuple[int, int]]:
    """Return first and stop of each block of positions first .. stop - 1."""
    starts = list(range(first, stop, _BLOCK_BARS))
    if len(starts) > 1 and stop - starts[-1] < _SHORTEST:
        starts.pop()
    return list(pairwise([*starts, stop]))
