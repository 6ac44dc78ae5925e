"""Arithmetic on spans of a grid: sorted, disjoint ranges of whole numbers.

All spans of one call lie on the same grid: they have the same step, and their starts differ by
whole steps. A span's end is ``start + len * step``, whatever ``stop`` it was made with. Results
are ascending, disjoint, not empty, and never touch unless they were cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["cut", "end_of", "minus", "overlap", "union"]


def end_of(span: range) -> int:
    """Return the first stamp of the grid after a span."""
    return span.start + len(span) * span.step


def union(spans: Iterable[range]) -> tuple[range, ...]:
    """Return what any of the spans covers; they may overlap and come in any order."""
    joined: list[range] = []
    for span in sorted((span for span in spans if span), key=lambda span: span.start):
        if joined and span.start <= end_of(joined[-1]):
            end = max(end_of(joined[-1]), end_of(span))
            joined[-1] = range(joined[-1].start, end, span.step)
        else:
            joined.append(range(span.start, end_of(span), span.step))
    return tuple(joined)


def minus(spans: Iterable[range], taken: Iterable[range]) -> tuple[range, ...]:
    """Return what the spans cover and none of those taken does."""
    away = union(taken)
    left: list[range] = []
    passed = 0
    for span in union(spans):
        start = span.start
        while passed < len(away) and end_of(away[passed]) <= start:
            passed += 1
        for other in away[passed:]:
            if other.start >= end_of(span):
                break
            if other.start > start:
                left.append(range(start, other.start, span.step))
            start = max(start, end_of(other))
        if start < end_of(span):
            left.append(range(start, end_of(span), span.step))
    return tuple(left)


def overlap(spans: Iterable[range], others: Iterable[range]) -> tuple[range, ...]:
    """Return what both cover."""
    spans = union(spans)
    return minus(spans, minus(spans, others))


def cut(spans: Iterable[range], steps: int, origin: int) -> list[range]:
    """Cut spans at every ``steps``-th stamp of the grid, counted from an origin on the grid.

    Where the cuts lie does not depend on where the spans start.
    """
    pieces = []
    for span in union(spans):
        start, end, size = span.start, end_of(span), steps * span.step
        while start < end:
            stop = min(end, start + size - (start - origin) % size)
            pieces.append(range(start, stop, span.step))
            start = stop
    return pieces
