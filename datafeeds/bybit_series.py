"""What can be asked of Bybit about one instrument, and how the question is put."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from datafeeds.bybit_time import TIMEFRAMES, timeframe_of
from datafeeds.series import FUNDING_STEP_MS, SeriesKey, SeriesKind, ceil_ms, floor_ms, kind_of
from glow_bt.errors import ConfigError

if TYPE_CHECKING:
    from datafeeds.bybit_markets import Market

__all__ = ["BybitSeries", "Question", "grid_of", "series_of"]

_EXCHANGE = "bybit"
_OPEN_INTEREST_CODES = {
    "5m": "5min",
    "15m": "15min",
    "30m": "30min",
    "1h": "1h",
    "4h": "4h",
    "1d": "1d",
}
# Hours of funding rates to a window: 199 payments at the usual eight hours between two, which
# is one less than an answer can hold, so that a full answer is known to be cut off.
_FUNDING_HOURS = 1592


class _Endpoint(NamedTuple):
    """Where a kind is asked for, what its parameters are called, and its largest answer."""

    path: str
    interval: str | None
    start: str
    end: str
    most: int


_ENDPOINTS = {
    "bars": _Endpoint("kline", "interval", "start", "end", 1000),
    "mark": _Endpoint("mark-price-kline", "interval", "start", "end", 1000),
    "funding_rate": _Endpoint("funding/history", None, "startTime", "endTime", 200),
    "open_interest": _Endpoint("open-interest", "intervalTime", "startTime", "endTime", 200),
}


class Question(NamedTuple):
    """One request.

    Attributes:
        path: the endpoint under ``/v5/market/``.
        params: its query.
    """

    path: str
    params: dict[str, str | int]


@dataclass(frozen=True)
class BybitSeries:
    """One history that Bybit has.

    Attributes:
        key: what it is of.
        market: the instrument.
        kind: what it consists of.
        step_ms: distance of its grid's stamps.
        offset_ms: how far the grid lies from the epoch's grid of that step.
        limit: steps of the grid that one window may hold.
        code: what Bybit calls the timeframe; None for funding rates, which have none.
    """

    key: SeriesKey
    market: Market
    kind: SeriesKind
    step_ms: int
    offset_ms: int
    limit: int
    code: str | None

    @property
    def most(self) -> int:
        """Rows of the largest answer."""
        return _ENDPOINTS[self.kind.name].most

    @property
    def has_first_from(self) -> bool:
        """Whether a start alone is answered with the first row from there on."""
        return self.kind.name in ("bars", "mark")

    def floor(self, stamp_ms: int) -> int:
        """Return the last stamp of the grid at or before a moment."""
        return floor_ms(stamp_ms, self.step_ms, self.offset_ms)

    def ceil(self, stamp_ms: int) -> int:
        """Return the first stamp of the grid at or after a moment."""
        return ceil_ms(stamp_ms, self.step_ms, self.offset_ms)

    def due(self, now_ms: int) -> int:
        """Return the stamp before which everything can be had: bars when they have closed."""
        # A funding rate is known at its stamp.
        return self.floor(now_ms) + (0 if self.kind.regular else self.step_ms)

    def closed(self, since_ms: int, until_ms: int | None, now_ms: int) -> range:
        """Return the stamps at ``since <= stamp < until`` that are before what is `due` now."""
        end = self.due(now_ms)
        if until_ms is not None:
            end = min(end, self.ceil(until_ms))
        return range(self.ceil(since_ms), end, self.step_ms)

    def question(
        self, limit: int, start_ms: int | None = None, end_ms: int | None = None
    ) -> Question:
        """Return the request for at most ``limit`` rows between two moments."""
        endpoint = _ENDPOINTS[self.kind.name]
        params: dict[str, str | int] = {
            "category": self.market.category,
            "symbol": self.market.id,
            "limit": limit,
        }
        if endpoint.interval is not None and self.code is not None:
            params[endpoint.interval] = self.code
        for name, moment in ((endpoint.start, start_ms), (endpoint.end, end_ms)):
            if moment is not None:
                params[name] = max(moment, 0)
        return Question(endpoint.path, params)


def grid_of(kind: str, timeframe: str) -> tuple[int, int, str | None]:
    """Return a grid's step and offset in milliseconds and what Bybit calls it.

    Args:
        kind: bars, mark, funding_rate or open_interest.
        timeframe: ccxt's name; funding rates have none and ignore it.

    Raises:
        ConfigError: if there is no such kind, or if Bybit lacks the timeframe (those that it has
            are named).
    """
    kind_of(kind)
    if kind == "funding_rate":
        return FUNDING_STEP_MS, 0, None
    if kind != "open_interest":
        found = timeframe_of(timeframe)
        return found.step_ms, found.offset_ms, found.code
    if timeframe not in _OPEN_INTEREST_CODES:
        raise ConfigError(
            f"expected a timeframe of open interest among {', '.join(_OPEN_INTEREST_CODES)}, "
            f"found {timeframe!r}"
        )
    found = TIMEFRAMES[timeframe]
    return found.step_ms, found.offset_ms, _OPEN_INTEREST_CODES[timeframe]


def series_of(market: Market, kind: str, timeframe: str) -> BybitSeries:
    """Return the series of a market; arguments as for `grid_of`.

    Raises:
        ConfigError: as `grid_of`; also if Bybit keeps no such history of a spot market.
    """
    step_ms, offset_ms, code = grid_of(kind, timeframe)
    if market.category == "spot" and kind != "bars":
        raise ConfigError(
            f"expected a linear or inverse contract for {kind}, found {market.symbol}, which is "
            "spot; give a symbol such as BTC/USDT:USDT"
        )
    is_funding = kind == "funding_rate"
    key = SeriesKey(_EXCHANGE, market.symbol, kind, "" if is_funding else timeframe)
    limit = _FUNDING_HOURS if is_funding else _ENDPOINTS[kind].most
    return BybitSeries(key, market, kind_of(kind), step_ms, offset_ms, limit, code)
