"""One Cerebro run, and its books."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import backtrader as bt
import pandas as pd

from glow_bt.bt import BybitPerpetual, GlowRecorder
from glow_bt.bt.backtest_broker import BacktestBroker
from glow_bt.bt.feed import ArrayFeed
from glow_bt.bt.ledger import AccountLedger
from glow_bt.errors import ConfigError

__all__ = ["BacktestResult", "check_money", "run_backtest"]


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """What one run did. Stamps are bar opens in UTC, sizes are signed.

    Attributes:
        states: one row a bar from the strategy's first decision on: close, exposure, equity and
            the model's scores (`glow_bt.bt.GlowRecorder`).
        equity: account value at every bar's close, the warm-up included.
        orders: one row a fill (index: the bar it filled in): data, ref, created (the bar at
            whose close it was placed), size, price, commission, slippage.
        trades: one row a closed trade (index: the bar it closed in): data, opened, long, bars,
            price (average entry), pnl (before commission), commission.
        costs: commission, slippage and funding of the whole run, in the account's currency;
            negative was received.
        rejected: one row an order that the broker refused (index: the bar it was placed at):
            data, ref, size, price, reason.
    """

    states: pd.DataFrame
    equity: pd.Series[float]
    orders: pd.DataFrame
    trades: pd.DataFrame
    costs: Mapping[str, float]
    rejected: pd.DataFrame


def run_backtest(
    bars: pd.DataFrame | bt.AbstractDataBase,
    strategy: type[bt.Strategy],
    params: Mapping[str, Any] | None = None,
    *,
    cash: float = 100_000.0,
    commission: bt.CommInfoBase | None = None,
    slippage_bps: float = 0.0,
) -> BacktestResult:
    """Run one strategy over one data feed.

    Orders fill at the next bar's open. Slippage moves every such fill against the order by the
    full amount, even out of the bar's range (a limit order that fills at the open too).

    Args:
        bars: a bar frame, or a feed that is ready for Cerebro.
        strategy: the strategy's class.
        params: its parameters by name.
        cash: starting equity.
        commission: commission scheme; default `BybitPerpetual()`: taker fees, no leverage.
        slippage_bps: slippage in basis points (1e-4) of the price.

    Raises:
        ConfigError: if the strategy is no strategy class, or a parameter is unknown or wrong.
        DataError: if the bars break the contract of `glow_bt.ohlcv`.
        LookAheadError: if the strategy's model was trained on these bars.

    Example:
        >>> from strategies.glow_baselines import BuyAndHold
        >>> index = pd.date_range("2024-01-01", periods=3, tz="UTC", name="timestamp")
        >>> prices = {name: [100.0, 100.5, 102.0] for name in ("open", "high", "low", "close")}
        >>> bars = pd.DataFrame({**prices, "volume": 1.0}, index=index)
        >>> result = run_backtest(bars, BuyAndHold, cash=1000.0)
        >>> result.orders[["size", "price"]].round(2).to_dict("records")
        [{'size': 9.9, 'price': 100.5}]
    """
    _check_strategy(strategy, params or {})
    check_money(cash, slippage_bps)
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(ArrayFeed(dataname=bars) if isinstance(bars, pd.DataFrame) else bars)
    cerebro.addstrategy(strategy, **(params or {}))
    cerebro.addanalyzer(GlowRecorder, _name="recorder")
    cerebro.addanalyzer(AccountLedger, _name="ledger")
    broker = BacktestBroker()
    broker.set_int2pnl(False)  # keeps funding apart from commission, see AccountLedger
    cerebro.setbroker(broker)
    broker.setcash(cash)
    broker.addcommissioninfo(BybitPerpetual() if commission is None else commission)
    broker.set_slippage_perc(slippage_bps * 1e-4, slip_open=True, slip_out=True)
    analyzers = cerebro.run()[0].analyzers
    ledger = analyzers.ledger
    return BacktestResult(
        states=analyzers.recorder.frame(),
        equity=ledger.equity(),
        orders=ledger.fills(),
        trades=ledger.trades(),
        costs=ledger.costs(),
        rejected=ledger.refusals(),
    )


def _check_strategy(strategy: type[bt.Strategy], params: Mapping[str, Any]) -> None:
    if not (isinstance(strategy, type) and issubclass(strategy, bt.Strategy)):
        raise ConfigError(
            f"expected a class derived from backtrader.Strategy, found {strategy!r}; "
            "give the class, and its parameters in params"
        )
    known = list(strategy.params._getkeys())
    unknown = [name for name in params if name not in known]
    if unknown:
        raise ConfigError(
            f"expected parameters of {strategy.__name__} among {', '.join(known) or 'none'}, "
            f"found {', '.join(map(repr, unknown))}; check the spelling"
        )


def check_money(cash: float, slippage_bps: float) -> None:
    """Refuse a starting equity or a slippage that cannot work.

    Raises:
        ConfigError: if cash is not above 0, or slippage_bps is negative or 10,000 or more.
    """
    if not (math.isfinite(cash) and cash > 0.0):
        raise ConfigError(f"expected starting cash above 0, found {cash}")
    if not 0.0 <= slippage_bps < 10_000.0:
        raise ConfigError(
            f"expected slippage_bps of 0 or more and below 10000, found {slippage_bps}; "
            "5 is 0.05 % of the price"
        )
