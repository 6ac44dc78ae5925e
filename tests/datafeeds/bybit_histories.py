"""Histories as the loopback exchange holds and serves them: rows of text, newest first."""

import numpy as np


class History:
    """Rows by stamp, found by start, end and limit.

    Args:
        stamps: epoch milliseconds, ascending.
        row: gives the row at a position.
        lag_ms: how long after its stamp a row appears.
    """

    def __init__(self, stamps, row, lag_ms=0):
        self._stamps = stamps
        self._row = row
        self._lag_ms = lag_ms
        self._hidden = {}  # position: answers that will still lack it

    def hide(self, stamps, answers):
        """Leave rows out of so many of the answers that should hold them."""
        for position in np.searchsorted(self._stamps, stamps).tolist():
            self._hidden[position] = answers

    def rows(self, start, end, limit, wide, now_ms, skip=0):
        seen = now_ms - self._lag_ms
        last = seen if end is None else min(int(end), seen)
        low = 0 if start is None else np.searchsorted(self._stamps, int(start))
        high = np.searchsorted(self._stamps, last, side="right") - skip
        earliest = start is not None and (end is None or wide == "earliest")
        chosen = range(low, high)[:limit] if earliest else range(low, high)[-limit:]
        return [self._row(i) for i in reversed(chosen) if not self._hides(i)]

    def _hides(self, i):
        left = self._hidden.get(i, 0)
        if left:
            self._hidden[i] = left - 1
        return left > 0


def kline_history(bars, category):
    """Bars: [start, open, high, low, close, volume, turnover]."""
    stamps = epoch_ms(bars.index)
    prices = bars[["open", "high", "low", "close"]].to_numpy()
    # Inverse contracts count volume in dollars and turnover in coins.
    coins, money = bars["volume"].to_numpy(), (bars["volume"] * bars["close"]).to_numpy()
    amounts = np.column_stack([money, coins] if category == "inverse" else [coins, money])

    def row(i):
        numbers = (*prices[i].tolist(), *amounts[i].tolist())
        return [str(stamps[i]), *map(as_text, numbers)]

    return History(stamps, row)


def mark_history(bars):
    """Mark prices: [start, open, high, low, close]."""
    stamps = epoch_ms(bars.index)
    prices = bars[["open", "high", "low", "close"]].to_numpy()
    return History(stamps, lambda i: [str(stamps[i]), *map(as_text, prices[i].tolist())])


def funding_history(symbol, rates):
    """Funding rates by stamp."""
    stamps, values = epoch_ms(rates.index), rates.to_numpy(float).tolist()

    def row(i):
        return {
            "symbol": symbol,
            "fundingRate": as_text(values[i]),
            "fundingRateTimestamp": str(stamps[i]),
        }

    return History(stamps, row)


def open_interest_history(contracts):
    """Open interest by stamp."""
    stamps, values = epoch_ms(contracts.index), contracts.to_numpy(float).tolist()
    return History(
        stamps, lambda i: {"openInterest": as_text(values[i]), "timestamp": str(stamps[i])}
    )


def epoch_ms(index):
    return index.as_unit("ms").asi8


def as_text(number):
    """The shortest text that reads back as the same number, without an exponent."""
    text = repr(number)
    if "e" in text:
        return np.format_float_positional(number, trim="-")
    return text.removesuffix(".0")
