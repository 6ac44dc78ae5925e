"""Order-flow imbalance: what orders added to and took from the levels of a book."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from glow_bt.microstructure.events import BookStates

__all__ = ["order_flow"]

Floats = npt.NDArray[np.float64]


def order_flow(states: BookStates) -> Floats:
    """Return the order flow into each level from each state of a book to the next.

    With bid price b and size q, ask price a and size r, before (n-1) and after (n)::

        e_n = 1{b_n >= b_n-1} q_n - 1{b_n <= b_n-1} q_n-1
            - 1{a_n <= a_n-1} r_n + 1{a_n >= a_n-1} r_n-1

    Its sum over a bar is the order-flow imbalance. On the best level: Cont, Kukanov & Stoikov
    2014, "The price impact of order book events", J. Financial Econometrics 12(1). Taken of level
    m of both sides it is the m-th component of the multi-level one: Xu, Gould & Howison 2018,
    "Multi-level order-flow imbalance in a limit order book", Market Microstructure and
    Liquidity 4.
    Positive: bids grew or asks shrank. A level that a known book lacks counts as one without size,
    beyond all others.

    Exchanges send what changed over some milliseconds at once; what came and went in between is
    not seen.

    Args:
        states: N states of K levels.

    Returns:
        (N, K) flows in the unit of sizes, into each state from the one before it. NaN where one
        of the two is not known, such as in the first row.
    """
    flow = np.full(states.bids.shape[:2], np.nan)
    known = states.valid[1:] & states.valid[:-1]
    bought = _added(*_present(states.bids, -np.inf))
    sold = _added(*_present(-states.asks, -np.inf))
    flow[1:][known] = (bought + sold)[known]
    return flow


def _present(side: Floats, nowhere: float) -> tuple[Floats, Floats]:
    """Return prices and sizes with absent levels put beyond all others."""
    price, size = side[:, :, 0], side[:, :, 1]
    absent = np.isnan(price)
    return np.where(absent, nowhere, price), np.where(absent, 0.0, size)


def _added(price: Floats, size: Floats) -> Floats:
    """Return what was added to a side whose better prices are higher, less what was taken.

    An ask is such a level with both price and size negated.
    """
    stays = np.where(price[1:] >= price[:-1], size[1:], 0.0)
    leaves = np.where(price[1:] <= price[:-1], size[:-1], 0.0)
    return stays - leaves
