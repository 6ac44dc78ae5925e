"""Backtrader's simulated broker with an account that can be saved and taken up again."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import backtrader as bt

from glow_bt.bt.paper_funding import PaperFunding, Payment
from glow_bt.bt.stamps import to_nanoseconds
from glow_bt.errors import ConfigError

__all__ = ["PaperBroker", "name_of"]

_KINDS = ("Market", "Limit", "Stop", "StopLimit")
_TRADE_FIELDS = ("size", "price", "value", "commission", "pnl", "pnlcomm", "dtopen", "long")


class PaperBroker(bt.brokers.BackBroker):
    """A broker that takes orders once its account is open, and whose account outlives it.

    Attributes:
        opened: whether orders may be placed: the warm-up is over.
        payments: of funding, if a `PaperFunding` gives the rates; whoever books them clears it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.opened = False
        self.payments: list[Payment] = []
        self.set_int2pnl(False)  # keeps funding apart from commission

    def buy(self, owner: bt.Strategy, data: bt.AbstractDataBase, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Place an order to buy.

        Raises:
            ConfigError: in the warm-up.
        """
        self._refuse_early(data)
        return super().buy(owner, data, *args, **kwargs)

    def sell(
        self,
        owner: bt.Strategy,
        data: bt.AbstractDataBase,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Place an order to sell.

        Raises:
            ConfigError: in the warm-up.
        """
        self._refuse_early(data)
        return super().sell(owner, data, *args, **kwargs)

    def next(self) -> None:
        """Pass a bar: orders fill, positions are marked, funding is paid, late rates too."""
        came_in = {data: (pos.size, pos.adjbase) for data, pos in self.positions.items() if pos}
        super().next()
        for data, funding in self._fundings().items():
            size, mark = came_in.get(data, (0.0, 0.0))
            now_ns = int(to_nanoseconds(data.datetime[0]))
            charged, late = funding.settle(now_ns, float(size), float(mark or 0.0))
            for payment in late:
                self.cash -= payment.paid
                self.d_credit[data] += payment.paid
            self.payments += [*late, *charged]
            if late:
                self._get_value()

    def account(self, strategy: bt.Strategy) -> dict[str, Any]:
        """Return the account as JSON values: cash, positions, funding, orders and open trades.

        ``awaited`` is funding that may yet be listed (`PaperFunding.awaited`).

        Raises:
            ConfigError: if an order waits that cannot be saved.
        """
        orders = [order for order in [*self.submitted, *self.pending] if order.alive()]
        return {
            "cash": self.cash,
            "positions": {name_of(data): _held(pos) for data, pos in self.positions.items()},
            "funding": {name_of(data): paid for data, paid in self.d_credit.items()},
            "awaited": {
                name_of(data): awaited
                for data, funding in self._fundings().items()
                if (awaited := funding.awaited())
            },
            "orders": [self._waiting(order) for order in orders],
            "trades": [
                {"data": name_of(data), **_open_trade(trades[-1])}
                for data in strategy.datas
                for trades in strategy._trades[data].values()
                if trades and trades[-1].isopen
            ],
        }

    def restore(self, account: Mapping[str, Any], strategy: bt.Strategy) -> None:
        """Take up an account at the bar at whose close it was saved.

        Args:
            account: what `account` returned.
            strategy: owner of the orders.
        """
        datas = {name_of(data): data for data in strategy.datas}
        self.opened = True
        self.cash = account["cash"]
        self.positions.clear()
        for name, held in account["positions"].items():
            self.positions[datas[name]] = _position(held)
        self.d_credit.clear()
        self.d_credit.update({datas[name]: paid for name, paid in account["funding"].items()})
        for data, funding in self._fundings().items():
            funding.restore(account.get("awaited", {}).get(name_of(data), ()))
        for order in account["orders"]:
            self._place_again(order, datas[order["data"]], strategy)
        for trade in account["trades"]:
            _reopen(trade, datas[trade["data"]], strategy)
        self._get_value()

    def _fundings(self) -> dict[bt.AbstractDataBase, PaperFunding]:
        """Return who gives the rates of what has been traded."""
        schemes = {data: self.getcommissioninfo(data) for data in self.positions}
        found = {data: getattr(scheme.p, "funding", None) for data, scheme in schemes.items()}
        return {data: each for data, each in found.items() if isinstance(each, PaperFunding)}

    def _refuse_early(self, data: bt.AbstractDataBase) -> None:
        if not self.opened:
            raise ConfigError(
                f"expected no order in the warm-up, found one on {name_of(data)}; place orders in "
                "next(), which is called for live bars only"
            )

    def _waiting(self, order: bt.Order) -> dict[str, Any]:
        kind, group = order.getordername(), self._ocol.get(order.ref, [])
        linked = order.parent is not None or not order.transmit or len(group) != 1
        if kind not in _KINDS or linked or order.executed.size:
            raise ConfigError(
                f"expected single orders of kind {', '.join(_KINDS)}, which can be saved, found "
                f"one of {kind}{', tied to others,' if linked else ''} on {name_of(order.data)}; "
                "place no others in paper trading"
            )
        return {
            "data": name_of(order.data),
            "kind": kind,
            "size": order.size,
            "price": order.created.price,
            "limit": order.created.pricelimit,
            "created": order.created.dt,
            "close": order.created.pclose,
            "valid": order.valid,
            "tradeid": order.tradeid,
            "accepted": order.status == order.Accepted,
            "triggered": order.triggered,
            "info": dict(order.info),
        }

    def _place_again(
        self, saved: Mapping[str, Any], data: bt.AbstractDataBase, strategy: bt.Strategy
    ) -> None:
        place = self.buy if saved["size"] > 0 else self.sell
        order = place(
            strategy,
            data,
            size=abs(saved["size"]),
            price=None if saved["kind"] == "Market" else saved["price"],
            plimit=saved["limit"],
            exectype=getattr(bt.Order, saved["kind"]),
            tradeid=saved["tradeid"],
            _checksubmit=not saved["accepted"],
            **saved["info"],
        )
        created = order.created
        created.dt, created.price, created.pclose = (
            saved["created"],
            saved["price"],
            saved["close"],
        )
        order.valid, order.triggered = saved["valid"], saved["triggered"]


def name_of(data: bt.AbstractDataBase) -> str:
    """Return the name that a feed is known by."""
    return str(data._name or f"data{data._id - 1}")


def _held(position: bt.Position) -> dict[str, Any]:
    if not position:
        return {"size": 0.0}
    return {
        "size": float(position.size),
        "price": position.price,
        "adjbase": position.adjbase,
        "datetime": position.datetime.isoformat(),
    }


def _position(held: Mapping[str, Any]) -> bt.Position:
    if not held["size"]:
        return bt.Position()
    position = bt.Position(held["size"], held["price"])
    position.adjbase = held["adjbase"]
    position.datetime = datetime.datetime.fromisoformat(held["datetime"])
    return position


def _open_trade(trade: bt.Trade) -> dict[str, Any]:
    fields = {name: getattr(trade, name) for name in _TRADE_FIELDS}
    return {"tradeid": trade.tradeid, "bars": len(trade.data) - trade.baropen, **fields}


def _reopen(saved: Mapping[str, Any], data: bt.AbstractDataBase, strategy: bt.Strategy) -> None:
    trade = bt.Trade(data=data, tradeid=saved["tradeid"])
    for name in _TRADE_FIELDS:
        setattr(trade, name, saved[name])
    trade.baropen, trade.barlen = len(data) - saved["bars"], saved["bars"]
    trade.isopen, trade.status = True, trade.Open
    strategy._trades[data][saved["tradeid"]] = [trade]
