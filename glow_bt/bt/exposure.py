"""From a wanted exposure to orders: what every strategy of this project has in common."""

from __future__ import annotations

import datetime
import logging
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import backtrader as bt
import pandas as pd

from glow_bt.bt.live import FeedStatus
from glow_bt.bt.parameters import refuse_unknown
from glow_bt.bt.stamps import from_index, to_index
from glow_bt.errors import ConfigError
from glow_bt.policy import PolicyParams, exposure_of, position_size, rebalanced_exposure

__all__ = ["ExposureStrategy", "RejectedOrder"]

_log = logging.getLogger(__name__)
_POLICY_NAMES = {field.name for field in fields(PolicyParams)}
_HALF_MS = 0.5e-3 / 86_400  # in Backtrader's days


@dataclass(frozen=True)
class RejectedOrder:
    """An order that the broker did not take.

    Attributes:
        timestamp: stamp of the bar at whose close it was placed.
        data: name of the data feed.
        size: signed quantity that was ordered.
        price: close that it was sized at.
        reason: Backtrader's status, "Margin" or "Rejected".
    """

    timestamp: pd.Timestamp
    data: str
    size: float
    price: float
    reason: str


class ExposureStrategy(bt.Strategy):
    """Moves every data feed to the exposure that a subclass wants, by market orders.

    Capital is split equally: each of n feeds gets 1/n of the equity, and its exposure is
    position value over that share. Sizes are fractions, in steps of the commission scheme's
    ``qty_step``. Orders fill at the next open; none is placed while one is pending. What the
    broker refuses is logged and kept in `rejected`, and tried again at the next bar. Once the
    equity is used up nothing is traded any more (Backtrader does not liquidate).

    On a live feed it acts only while the feed's last status is LIVE: history, and bars that come
    late after a drop, are watched (`glow_bt.bt.live`). An order placed before fills as ever.

    Args:
        start: stamp (UTC) of the first bar at whose close an order may be placed; None for the
            first bar.
        leverage_cap: see `glow_bt.policy.PolicyParams`; so for every parameter named there.
        dead_band: the same.
        cost_rate: the same.
    """

    params: ClassVar[Any] = (
        ("start", None),
        ("leverage_cap", PolicyParams.leverage_cap),
        ("dead_band", PolicyParams.dead_band),
        ("cost_rate", PolicyParams.cost_rate),
    )

    _orderspending: list[bt.Order]
    _tradespending: list[bt.Trade]

    def __init__(self, *args: object, **kwargs: object) -> None:
        refuse_unknown(self, args, kwargs)
        super().__init__()
        settings = self.p._getkwargs()
        self.policy = PolicyParams(**{k: v for k, v in settings.items() if k in _POLICY_NAMES})
        self.rejected: list[RejectedOrder] = []
        self._pending: set[int] = set()
        self._first_stamp = _stamp_number(self.p.start)
        self._ruined = False
        self._feeds = FeedStatus()
        # Backtrader looks a line up by name in three steps; at one bar a step that is felt.
        self._traded = [(data, data.lines.datetime, data.lines.close) for data in self.datas]

    def target_exposure(self, data: bt.AbstractDataBase, current: float) -> float:
        """Return the exposure wanted for a feed at its current bar.

        Args:
            data: the feed.
            current: the exposure held.
        """
        raise NotImplementedError

    def next(self) -> None:
        """Rebalance every feed."""
        if self._ruined:
            return
        equity = self.broker.getvalue()
        if equity <= 0.0:
            self._give_up()
            return
        share = equity / len(self._traded)
        for data, stamps, close in self._traded:
            waits = id(data) in self._pending or not self._feeds.is_current(data)
            if stamps[0] >= self._first_stamp and not waits:
                self._rebalance(data, close[0], share)

    def clear(self) -> None:
        """Let go of what the bar's orders and trades came to, once it is told.

        Backtrader collects a copy of every order at every step, for ever, and reads none.
        """
        if self._orderspending:
            self._orderspending = []
        if self._tradespending:
            self._tradespending = []

    def notify_data(
        self, data: bt.AbstractDataBase, status: int, *args: object, **kwargs: object
    ) -> None:
        """Keep each live feed's status."""
        self._feeds.note(data, status)

    def save_state(self) -> dict[str, Any]:
        """Return, as JSON values, what bars and account do not tell (paper trading)."""
        return {"ruined": self._ruined}

    def load_state(self, values: dict[str, Any]) -> None:
        """Go on from `save_state`."""
        self._ruined = bool(values["ruined"])

    def notify_order(self, order: bt.Order) -> None:
        """Keep track of the pending order of each feed, and of refusals."""
        if order.alive():
            self._pending.add(id(order.data))  # one that was restored, above all
            return
        self._pending.discard(id(order.data))
        if order.status in {order.Margin, order.Rejected}:
            self._record_rejection(order)

    def _give_up(self) -> None:
        self._ruined = True
        _log.warning(
            "equity used up at the close of %s; nothing is traded from here on",
            to_index([self.datetime[0]])[0],
        )

    def _rebalance(self, data: bt.AbstractDataBase, close: float, equity: float) -> None:
        current = exposure_of(self.broker.getposition(data).size, close, equity)
        wanted = rebalanced_exposure(current, self.target_exposure(data, current), self.policy)
        if wanted == current:
            return
        step = getattr(self.broker.getcommissioninfo(data).p, "qty_step", 0.0)
        size = position_size(wanted, equity, close, step)
        if self.order_target_size(data, target=size) is not None:
            self._pending.add(id(data))

    def _record_rejection(self, order: bt.Order) -> None:
        rejected = RejectedOrder(
            timestamp=to_index([order.created.dt])[0],
            data=order.data._name,
            size=order.created.size,
            price=order.created.pclose,
            reason=order.getstatusname(),
        )
        self.rejected.append(rejected)
        _log.warning(
            "order refused (%s): %+g of %r placed at the close of %s at %g; "
            "if this recurs, lower leverage_cap or raise the commission scheme's leverage",
            rejected.reason,
            rejected.size,
            rejected.data,
            rejected.timestamp,
            rejected.price,
        )


def _stamp_number(start: str | datetime.datetime | None) -> float:
    """Return a stamp in Backtrader's days, a rounding error early; None is before all bars."""
    if start is None:
        return float("-inf")
    try:
        stamp = pd.DatetimeIndex(pd.to_datetime([pd.Timestamp(start)], utc=True))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"expected start as a stamp such as '2020-01-01 08:00', found {start!r}: {error}"
        ) from error
    return float(from_index(stamp)[0]) - _HALF_MS
