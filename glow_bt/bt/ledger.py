"""The account's books of a run: equity, fills, refusals, closed trades, costs."""

from __future__ import annotations

import math
from array import array

import backtrader as bt
import numpy as np
import pandas as pd

from glow_bt.bt.stamps import to_index

__all__ = ["AccountLedger"]

_STAMP = "stamp"
_FILL = {
    "data": "str",
    "ref": "int64",
    "created": _STAMP,
    "size": "float64",
    "price": "float64",
    "commission": "float64",
    "slippage": "float64",
}
_REFUSAL = {
    "data": "str",
    "ref": "int64",
    "size": "float64",
    "price": "float64",
    "reason": "str",
}
_TRADE = {
    "data": "str",
    "opened": _STAMP,
    "long": "bool",
    "bars": "int64",
    "price": "float64",
    "pnl": "float64",
    "commission": "float64",
}


class AccountLedger(bt.Analyzer):
    """Books every bar's equity, every fill, every refused order and every closed trade.

    Commission and funding are told apart only under ``broker.set_int2pnl(False)``: else
    Backtrader adds funding to the commission of the order that closes a position.
    """

    def create_analysis(self) -> None:
        """Open the books."""
        self._stamps, self._equity = array("d"), array("d")
        self._fills: list[tuple[object, ...]] = []
        self._refusals: list[tuple[object, ...]] = []
        self._trades: list[tuple[object, ...]] = []
        self._funding = 0.0

    def next(self) -> None:
        """Book the equity at the bar's close; the warm-up is booked too."""
        stamp, equity = self.strategy.datetime[0], self.strategy.broker.getvalue()
        if self._stamps and self._stamps[-1] == stamp:  # of a second feed, or one that is replayed
            self._equity[-1] = equity
            return
        self._stamps.append(stamp)
        self._equity.append(equity)

    def notify_order(self, order: bt.Order) -> None:
        """Book what an order came to."""
        name, ref = order.data._name, order.ref
        for fill in order.executed.iterpending():
            commission = fill.closedcomm + fill.openedcomm
            slippage = 0.0
            if order.exectype == order.Market:
                slippage = fill.size * (fill.price - order.data.open[0])
            fields = (order.created.dt, fill.size, fill.price, commission, slippage)
            self._fills.append((fill.dt, name, ref, *fields))
        if order.status in {order.Margin, order.Rejected}:
            created = order.created
            refusal = (name, ref, created.size, created.pclose, order.getstatusname())
            self._refusals.append((created.dt, *refusal))

    def notify_trade(self, trade: bt.Trade) -> None:
        """Book a closed trade."""
        if trade.isclosed:
            row = (trade.data._name, trade.dtopen, trade.long, trade.barlen, trade.price)
            self._trades.append((trade.dtclose, *row, trade.pnl, trade.commission))

    def stop(self) -> None:
        """Read the broker's sum of funding."""
        self._funding = math.fsum(self.strategy.broker.d_credit.values())

    def equity(self) -> pd.Series[float]:
        """Return the account's value at each bar's close."""
        index = to_index(np.array(self._stamps))
        return pd.Series(np.array(self._equity), index=index, name="equity")

    def fills(self) -> pd.DataFrame:
        """Return one row a fill: index stamp of the bar it filled in, size signed.

        ``created`` is the stamp of the bar at whose close the order was placed.
        """
        return _frame(self._fills, _FILL)

    def refusals(self) -> pd.DataFrame:
        """Return one row an order that ended as Margin or Rejected: index bar it was placed."""
        return _frame(self._refusals, _REFUSAL)

    def trades(self) -> pd.DataFrame:
        """Return one row a closed trade: index bar it closed in; pnl is before commission."""
        return _frame(self._trades, _TRADE)

    def costs(self) -> dict[str, float]:
        """Return what was paid, in the account's currency; a negative number was received.

        ``commission``: fees of all fills; ``slippage``: what market orders lost against the open
        that they filled at; ``funding`` (or interest) of positions held.
        """
        fills = self.fills()
        return {
            "commission": float(fills["commission"].sum()),
            "slippage": float(fills["slippage"].sum()),
            "funding": self._funding,
        }

    def get_analysis(self) -> dict[str, float]:
        """Return counts and costs."""
        counts = {"fills": len(self._fills), "refused": len(self._refusals)}
        return {**counts, "trades": len(self._trades), **self.costs()}


def _frame(rows: list[tuple[object, ...]], columns: dict[str, str]) -> pd.DataFrame:
    """Table of rows whose first field is a stamp; column types are the same without rows."""
    table = pd.DataFrame(rows, columns=["timestamp", *columns])
    index = to_index(table["timestamp"].to_numpy(dtype="float64"))
    for name in [name for name, kind in columns.items() if kind == _STAMP]:
        table[name] = to_index(table[name].to_numpy(dtype="float64"))
    plain = {name: kind for name, kind in columns.items() if kind != _STAMP}
    return table[list(columns)].astype(plain).set_axis(index)
