"""Orders and trades that are over, which Backtrader keeps for ever."""

from __future__ import annotations

import backtrader as bt

__all__ = ["forget_done"]


def forget_done(broker: bt.brokers.BackBroker, strategy: bt.Strategy) -> None:
    """Let go of orders that ended and trades that closed.

    Some ten kilobytes each, which is a lot in months of bars. Call it when they have been booked;
    whoever holds on to one keeps it.

    Args:
        broker: of the orders.
        strategy: their owner.
    """
    broker.orders = [order for order in broker.orders if order.alive()]
    strategy._orders.clear()
    for by_id in strategy._trades.values():
        for trades in by_id.values():
            del trades[:-1]
