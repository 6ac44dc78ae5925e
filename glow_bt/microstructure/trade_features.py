"""What a bar says of the trades in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glow_bt.microstructure.events import Trades
from glow_bt.microstructure.kyle import rolling_slope
from glow_bt.microstructure.spec import MicrostructureSpec
from glow_bt.microstructure.vpin import Vpin, bulk_buy_share

__all__ = ["TradeFeatures", "vwap_deviation_bps"]

Columns = dict[str, npt.NDArray[np.generic]]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def vwap_deviation_bps(vwap: Floats, reference: Floats) -> Floats:
    """Return how far volume-weighted prices lie from others, 1e4 (vwap / reference - 1).

    VWAP is sum price volume / sum volume over a bar's trades (Berkowitz, Logue & Noser 1988,
    "The total cost of transactions on the NYSE", J. Finance 43(1)). Positive: volume was traded
    above the reference. In basis points.
    """
    return 1e4 * (vwap / reference - 1.0)


class _Intervals(NamedTuple):
    """Sums over intervals of trades, each (L,)."""

    trades: Ints
    bought: Floats
    sold: Floats
    notional: Floats
    close: Floats  # NaN without a trade
    root_flow: Floats


class TradeFeatures:
    """Features of consecutive bars from their trades.

    A bar without trades has counts and volumes of 0, and no VWAP (NaN). VPIN and Kyle's lambda
    look back over earlier bars, so they go on (`glow_bt.microstructure.vpin`, `kyle`).

    - ``trade_count``; ``buy_volume`` and ``sell_volume`` of buying and selling takers;
      ``signed_volume`` is their difference.
    - ``vwap`` and, against the price of the bar's last trade or the mid at its close,
      ``vwap_deviation_bps``.
    - ``vpin`` and ``vpin_buckets``, how many buckets were filled in the bar.
    - ``kyle_lambda`` and ``kyle_lambda_se``.

    Args:
        spec: the settings.
        since_ms: open of the first bar.
    """

    def __init__(self, spec: MicrostructureSpec, since_ms: int) -> None:
        self._spec = spec
        self._vpin = Vpin(spec.bucket_volume, spec.buckets, since_ms)
        self._last_price = np.nan
        # Flows and price changes of the last intervals, which later windows look back on.
        self._flow = np.empty(0)
        self._change = np.empty(0)
        self._moves = np.empty(0)

    def update(self, trades: Trades, edges: Ints, mid: Floats | None) -> Columns:
        """Return the features of bars.

        Args:
            trades: those in them.
            edges: (B + 1,) opens of the bars, which follow the last ones given, and the close.
            mid: (B,) mid at each bar's close, if the spec compares VWAP with it.
        """
        per_bar = self._spec.intervals_per_bar
        sums = self._sum(trades, edges)
        count, bought, sold, notional = (
            values.reshape(-1, per_bar).sum(axis=1)
            for values in (sums.trades, sums.bought, sums.sold, sums.notional)
        )
        ends = np.cumsum(count)
        vwap = np.full(len(count), np.nan)
        np.divide(notional, bought + sold, out=vwap, where=count > 0)
        change, lam, lam_error = self._impact(sums)
        vpin, filled = self._toxicity(trades, sums, change, ends, edges[:-1])
        return {
            "trade_count": count,
            "buy_volume": bought,
            "sell_volume": sold,
            "signed_volume": bought - sold,
            "vwap": vwap,
            "vwap_deviation_bps": vwap_deviation_bps(
                vwap, _last_in_bar(trades, count, ends) if mid is None else mid
            ),
            "vpin": vpin,
            "vpin_buckets": filled,
            "kyle_lambda": lam,
            "kyle_lambda_se": lam_error,
        }

    def _sum(self, trades: Trades, edges: Ints) -> _Intervals:
        size = (len(edges) - 1) * self._spec.intervals_per_bar
        rows = (trades.stamps - edges[0]) // self._spec.interval
        count = np.bincount(rows, minlength=size)

        def total(values: Floats) -> Floats:
            return np.bincount(rows, values, size).astype(np.float64)

        value = trades.prices * trades.amounts
        buys = trades.sides > 0
        rooted = self._spec.impact == "sqrt"
        return _Intervals(
            trades=count,
            bought=total(np.where(buys, trades.amounts, 0.0)),
            sold=total(np.where(buys, 0.0, trades.amounts)),
            notional=total(value),
            close=_last_in_bar(trades, count, np.cumsum(count)),
            root_flow=total(np.where(buys, 1.0, -1.0) * np.sqrt(value)) if rooted else np.empty(0),
        )

    def _impact(self, sums: _Intervals) -> tuple[Floats, Floats, Floats]:
        """Return the price change of each interval, and Kyle's lambda of each bar."""
        traded = sums.trades > 0
        prices = np.concatenate([[self._last_price], sums.close[traded]])
        change = np.full(len(traded), np.nan)
        change[traded] = np.diff(prices)
        self._last_price = float(prices[-1])
        if self._spec.impact == "sqrt":
            response = np.full(len(traded), np.nan)
            response[traded] = np.diff(np.log(prices))
            flow = sums.root_flow
        else:
            response, flow = change, sums.bought - sums.sold
        before = len(self._flow)
        self._flow = np.concatenate([self._flow, np.where(traded, flow, np.nan)])
        self._change = np.concatenate([self._change, response])
        per_bar = self._spec.intervals_per_bar
        ends = np.arange(before + per_bar - 1, len(self._flow), per_bar)
        slopes = rolling_slope(self._flow, self._change, ends, self._spec.window)
        self._flow = self._flow[-self._spec.window :]
        self._change = self._change[-self._spec.window :]
        return change, *slopes

    def _toxicity(
        self, trades: Trades, sums: _Intervals, change: Floats, ends: Ints, opens: Ints
    ) -> tuple[Floats, Ints]:
        if self._spec.classification == "sides":
            bought = np.where(trades.sides > 0, trades.amounts, 0.0)
            return self._vpin.update(trades.amounts, bought, ends, opens)
        moves = np.concatenate([self._moves, change])
        share = bulk_buy_share(moves, self._spec.window)[len(self._moves) :]
        self._moves = moves[-self._spec.window :]
        amounts = sums.bought + sums.sold
        ends = np.arange(1, len(opens) + 1) * self._spec.intervals_per_bar
        return self._vpin.update(amounts, share * amounts, ends, opens)


def _last_in_bar(trades: Trades, count: Ints, ends: Ints) -> Floats:
    """Return the last price of each bar or interval, NaN where it has no trade."""
    last = np.full(len(count), np.nan)
    traded = count > 0
    last[traded] = trades.prices[ends[traded] - 1]
    return last
