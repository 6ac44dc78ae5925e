"""How many threads torch may use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside, and give the caller's number of threads back after.

    The matrices of one model are small: more threads gain nothing, and lose a factor of three
    on a machine that is busy. What makes use of more processors is more folds, symbols and
    seeds, a process each.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
