"""Spread, depth and prices of a book's states, and their means over time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glow_bt.microstructure.events import BookStates

__all__ = ["Holding", "depth_imbalance", "hold", "microprice", "mid_price", "spread_bps"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def mid_price(states: BookStates) -> Floats:
    """Return the mean of best bid and ask, (N,) in the unit of prices; NaN where one lacks."""
    mid: Floats = 0.5 * (states.bids[:, 0, 0] + states.asks[:, 0, 0])
    return mid


def spread_bps(states: BookStates) -> Floats:
    """Return the quoted spread, 1e4 (ask - bid) / mid, (N,) in basis points of the mid.

    Source: Hasbrouck 2009, "Trading costs and returns for U.S. equities", J. Finance 64(3), in
    whose terms it is twice the quoted half-spread.
    """
    width: Floats = states.asks[:, 0, 0] - states.bids[:, 0, 0]
    return 1e4 * width / mid_price(states)


def microprice(states: BookStates) -> Floats:
    """Return the mid weighted by the sizes of the other side, (N,) in the unit of prices.

    With bid b of size q and ask a of size r it is (b r + a q) / (q + r): the price leans to the
    side that is thin and will be gone first. Source: Gatheral & Oomen 2010, "Zero-intelligence
    realized variance estimation", Finance and Stochastics 14(2); Stoikov 2018, "The micro-price",
    Quantitative Finance 18(12), calls it the weighted mid-price.
    """
    (bid, bid_size), (ask, ask_size) = states.bids[:, 0].T, states.asks[:, 0].T
    price: Floats = (bid * ask_size + ask * bid_size) / (bid_size + ask_size)
    return price


def depth_imbalance(states: BookStates, levels: int) -> Floats:
    """Return (Q - R) / (Q + R) with Q and R the sizes on the best bids and asks, (N,) in [-1, 1].

    Source: Cao, Hansch & Wang 2009, "The information content of an open limit-order book",
    J. Futures Markets 29(1), here over several levels together. Levels that a known book
    lacks count 0; NaN if both sides are empty or the book is not known.
    """
    bid = np.nansum(states.bids[:, :levels, 1], axis=1)
    ask = np.nansum(states.asks[:, :levels, 1], axis=1)
    total = bid + ask
    imbalance: Floats = np.full(len(states), np.nan)
    np.divide(bid - ask, total, out=imbalance, where=total > 0)
    return imbalance


class Holding(NamedTuple):
    """Which state held in which bar for how long, in pieces of some length.

    Attributes:
        bars: number of the bar of each piece, ascending.
        states: row of the state that held in it.
        lengths_ms: how long.
        size: how many bars there are.
    """

    bars: Ints
    states: Ints
    lengths_ms: Ints
    size: int

    def total(self, values: Floats) -> Floats:
        """Return the integral of a function of the state over each bar, in units times ms."""
        weights = values[self.states] * self.lengths_ms
        return np.bincount(self.bars, weights, self.size).astype(np.float64)


def hold(stamps: Ints, edges: Ints) -> Holding:
    """Say which of consecutive states held when.

    Args:
        stamps: (N,) when each state began, ascending; the first not after the first bar's open,
            the last before the last bar's close.
        edges: (B + 1,) the bars' opens and the last one's close, epoch milliseconds.
    """
    starts = np.sort(np.concatenate([edges[:-1], stamps[1:]]), kind="stable")
    lengths = np.diff(starts, append=edges[-1])
    starts, lengths = starts[lengths > 0], lengths[lengths > 0]
    return Holding(
        bars=np.searchsorted(edges, starts, side="right") - 1,
        states=np.searchsorted(stamps, starts, side="right") - 1,
        lengths_ms=lengths,
        size=len(edges) - 1,
    )
