"""The simulated broker of a backtest: it keeps what may still happen, not what is over."""

from __future__ import annotations

from collections import defaultdict

import backtrader as bt

from glow_bt.bt.forgetting import forget_done

__all__ = ["BacktestBroker"]

# Ended orders that are let go of together.
_ENDED = 256


class BacktestBroker(bt.brokers.BackBroker):
    """Backtrader's broker, for histories of any length: its memory hardly grows with orders.

    Fills, prices and notifications are Backtrader's own. Some bars after they ended, orders leave
    ``orders``, and their copies and closed trades leave the strategy; whoever holds on to one
    keeps it.
    """

    def init(self) -> None:
        """Start anew."""
        super().init()
        # An order leaves its row of children behind, empty.
        self._pchildren: defaultdict[int, _Row] = defaultdict(_Row)

    def next(self) -> None:
        """Fill orders at the bar that has come, then let go of those that ended."""
        super().next()
        if len(self.orders) < _ENDED + len(self.pending):
            return
        for owner in {id(order.owner): order.owner for order in self.orders}.values():
            forget_done(self, owner)


class _Row(list[bt.Order]):
    """A row of orders in the place of a deque, which takes 600 bytes when it is empty."""

    __slots__ = ()

    def popleft(self) -> bt.Order:
        """Take out the first."""
        return self.pop(0)
