"""What trading a Bybit linear perpetual costs, inside Backtrader's broker."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import backtrader as bt

from glow_bt.bt.funding import FundingRates, FundingSchedule
from glow_bt.bt.parameters import refuse_unknown
from glow_bt.errors import ConfigError
from glow_bt.policy import round_to_step

if TYPE_CHECKING:
    import datetime

    import pandas as pd

__all__ = ["BybitPerpetual"]

_FUNDING_SECONDS = 8 * 60 * 60
_DAY_SECONDS = 86_400
_EPOCH_DAY = 719_163  # 1970-01-01 in Backtrader's days
_SECOND_NS = 1_000_000_000


class BybitPerpetual(bt.CommInfoBase):
    """A linear perpetual in a cross-margin account: fractional size, fees, margin, funding.

    The account's equity is exact at every bar: cash + sum of size x (close - entry) - fees -
    funding. Margin is |size| x mark / leverage of all positions together; an order that would
    take equity minus margin below zero ends with status Margin. Backtrader knows no liquidation:
    a position whose margin is used up stays open.

    Backtrader's ``order_target_value`` and ``order_target_percent`` read the margin, which has
    no sign, as a position's value; use ``order_target_size`` with short positions.

    Funding is paid at every stamp that passes while a position is open: longs pay
    size x mark x rate, shorts receive it (a negative rate turns that round). A position opened at
    the very stamp does not pay for it. With ``funding`` the stamps are those of the rates, each
    with its own; none is charged before the first or after the last of them. Without, they are
    00:00, 08:00 and 16:00 UTC, and the rate is the data's line ``funding_rate`` where it has a
    number, else the parameter.

    A bar is asked for the stamps after the open of the bar before, up to its own open. The mark is
    the close of the bar before, for all of them: what the price was at the last one. Where several
    fall between two opens (daily bars have three) the others are charged at that mark too, as
    nothing closer is known. Backtrader adds funding to the commission of the order that closes the
    position; with ``broker.set_int2pnl(False)`` it stays apart, summed per data in
    ``broker.d_credit``.

    Args:
        taker: fee, as a fraction of the notional, of an order that takes liquidity.
        maker: the same for one that rests in the book; negative for a rebate.
        liquidity: "taker" or "maker", which of the two is charged. Backtrader does not tell a
            commission scheme what kind of order it prices, so a strategy of limit orders says so
            here.
        leverage: notional a unit of margin carries. Not what is used, only what is allowed.
        qty_step: quantities are rounded down to multiples of it; 0 for any quantity.
        funding_rate: rate for 8 hours where the data has none. 0.0001 is the usual one.
        funding: rates by stamp in UTC, at any intervals: a Series, or a frame with a column
            ``funding_rate`` (`glow_bt.joining.stamped_values`); or what knows them as time goes
            on (`glow_bt.bt.funding.FundingRates`). Not beside ``funding_rate``.

    Raises:
        ConfigError: if one of them cannot work.
        DataError: if the rates by stamp are not in order or no fractions.
    """

    params: ClassVar[Any] = (
        ("taker", 0.00055),
        ("maker", 0.0002),
        ("liquidity", "taker"),
        ("leverage", 1.0),
        ("qty_step", 0.0),
        ("funding_rate", 0.0),
        ("funding", None),
        ("stocklike", False),
        ("commtype", bt.CommInfoBase.COMM_PERC),
        ("percabs", True),
    )

    def __init__(self, *args: object, **kwargs: object) -> None:
        refuse_unknown(self, args, kwargs)
        _check_settings(self.p)
        super().__init__()
        self.p.commission = self.p.taker if self.p.liquidity == "taker" else self.p.maker
        self._side = 1.0
        self._schedule = _schedule_of(self.p.funding)

    def getsize(self, price: float, cash: float) -> float:
        """Return the quantity that a margin of ``cash`` can carry, in whole quantity steps."""
        return round_to_step(cash * self.p.leverage / price, self.p.qty_step)

    def get_margin(self, price: float) -> float:
        """Return the margin of one unit."""
        return float(price / self.p.leverage)

    def get_leverage(self) -> float:
        """Return 1: the broker divides by this what `getvaluesize` has divided already."""
        return 1.0

    # The broker keeps cash = equity - margin at the last mark. Its own futures scheme breaks this
    # when the margin depends on the price: it charges margin at the price of opening, values it
    # at the close and returns it at the entry price. Three methods mend that: `cashadjust` moves
    # the margin along with the mark, and at a close `stocklike` times the realised profit, side /
    # leverage x size x (price - entry), is what lifts the margin returned from the entry price to
    # the price of closing.

    def getvaluesize(self, size: float, price: float) -> float:
        """Return the margin of a position."""
        return abs(size) * self.get_margin(price)

    def getvalue(self, position: bt.Position, price: float) -> float:
        """Return the margin of a position."""
        return self.getvaluesize(position.size, price)

    def cashadjust(self, size: float, price: float, newprice: float) -> float:
        """Return what cash gains as the mark moves: the profit, less what the margin grows by."""
        margin_growth = self.getvaluesize(size, newprice) - self.getvaluesize(size, price)
        return float(super().cashadjust(size, price, newprice) - margin_growth)

    def profitandloss(self, size: float, price: float, newprice: float) -> float:
        """Return the profit of a position as the price moves."""
        self._side = math.copysign(1.0, size)
        return float(super().profitandloss(size, price, newprice))

    @property
    def stocklike(self) -> float:
        """Share of a realised profit by which the margin grew with the price since the entry.

        Read by the broker in closing a position, right after it asked for the profit.
        """
        return float(self._side / self.p.leverage)

    def get_credit_interest(
        self, data: bt.AbstractDataBase, pos: bt.Position, dt: datetime.datetime
    ) -> float:
        """Return the funding that a position pays since the broker last asked.

        Args:
            data: the position's data feed, at the current bar.
            pos: the position as it came into the bar; its datetime is that of the last request.
            dt: unused, as it is in the data's own time zone.
        """
        now = _seconds(data.datetime[0])
        before = _seconds(data.date2num(pos.datetime))
        if self._schedule is not None:
            rates = self._schedule.rates_between(_nanoseconds(before), _nanoseconds(now))
            return math.fsum(pos.size * pos.adjbase * rate for rate in rates)
        stamps = now // _FUNDING_SECONDS - before // _FUNDING_SECONDS
        if not stamps:
            return 0.0
        return float(stamps * pos.size * pos.adjbase * self._funding_rate(data))

    def _funding_rate(self, data: bt.AbstractDataBase) -> float:
        line = getattr(data.lines, "funding_rate", None)
        if line is None or math.isnan(line[0]):
            return float(self.p.funding_rate)
        return float(line[0])


def _schedule_of(
    funding: FundingRates | pd.DataFrame | pd.Series[float] | None,
) -> FundingRates | None:
    if funding is None or isinstance(funding, FundingRates):
        return funding
    return FundingSchedule(funding)


def _check_settings(params: bt.AutoInfoClass) -> None:
    if params.liquidity not in {"taker", "maker"}:
        raise ConfigError(
            f"expected liquidity 'taker' or 'maker', found {params.liquidity!r}; "
            "market orders take liquidity"
        )
    if params.funding is not None and params.funding_rate:
        raise ConfigError(
            f"expected funding or funding_rate, found both (funding_rate={params.funding_rate}); "
            "rates by stamp leave nothing to assume"
        )
    for name in ("taker", "maker", "funding_rate"):
        value = getattr(params, name)
        if not -1.0 < value < 1.0:
            raise ConfigError(
                f"expected {name} as a fraction, found {value}; 0.00055 is 5.5 basis points"
            )
    if not (math.isfinite(params.leverage) and params.leverage > 0.0):
        raise ConfigError(f"expected a leverage above 0, found {params.leverage}; 1 is none")
    if not (math.isfinite(params.qty_step) and params.qty_step >= 0.0):
        raise ConfigError(
            f"expected a qty_step of 0 or more, found {params.qty_step}; 0 allows any quantity"
        )


def _seconds(stamp: float) -> int:
    """Backtrader's days since year 1 in whole seconds, exact for midnights."""
    return round(stamp * _DAY_SECONDS)


def _nanoseconds(seconds: int) -> int:
    """Seconds since year 1 as epoch nanoseconds."""
    return (seconds - _EPOCH_DAY * _DAY_SECONDS) * _SECOND_NS
