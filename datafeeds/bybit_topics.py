"""Topics of Bybit's public streams, and bars out of kline messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from datafeeds.bybit_klines import parse_klines
from glow_bt.errors import ConfigError, FeedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datafeeds.bybit_markets import Market
    from datafeeds.bybit_time import Timeframe

__all__ = [
    "STREAM_URL",
    "LiveBar",
    "confirmed_bars",
    "kline_topic",
    "message_ms",
    "stream_address",
]

STREAM_URL = "wss://stream.bybit.com"
"""Where Bybit streams public market data."""

_LARGEST_MS = 2**53  # what a float holds to the millisecond
_FIELDS = ("start", "open", "high", "low", "close", "volume", "turnover")


class LiveBar(NamedTuple):
    """One closed bar.

    Attributes:
        open_ms: its open in epoch milliseconds.
        values: open, high, low, close and volume in the base coin.
    """

    open_ms: int
    values: tuple[float, ...]


def stream_address(stream_url: str | None, category: str) -> str:
    """Return where a product line is streamed.

    Args:
        stream_url: scheme and host, to which Bybit's path is added, or a whole address;
            None: Bybit.
        category: linear, inverse or spot.

    Raises:
        ConfigError: if it is no websocket address.
    """
    url = STREAM_URL if stream_url is None else stream_url
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except (ValueError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise ConfigError(
            f"expected stream_url as ws://host or wss://host, found {stream_url!r}; "
            f"leave it out for {STREAM_URL}"
        )
    return url if parts.path.strip("/") else f"{url.rstrip('/')}/v5/public/{category}"


def kline_topic(market: Market, timeframe: Timeframe) -> str:
    """Return the topic of an instrument's bars, such as ``kline.60.BTCUSDT``."""
    return f"kline.{timeframe.code}.{market.id}"


def message_ms(message: dict[str, Any]) -> int | None:
    """Return when the exchange made a message, in epoch milliseconds; None if it does not say."""
    stamp = message.get("ts")
    return stamp if type(stamp) is int and abs(stamp) < _LARGEST_MS else None


def confirmed_bars(
    message: dict[str, Any], market: Market, timeframe: Timeframe
) -> Iterator[LiveBar]:
    """Yield the bars of a kline message that the exchange says are final and closed.

    What is damaged is left out, and so is a bar that was confirmed before its close: whoever
    reads a stream must ask for what is missing anyhow.
    """
    stamp, rows = message_ms(message), message.get("data")
    if stamp is None or not isinstance(rows, list):
        return
    for row in rows:
        if not isinstance(row, dict) or row.get("confirm") is not True:
            continue
        start = row.get("start")
        if not isinstance(start, int) or timeframe.floor(start) != start:
            continue
        if start + timeframe.step_ms > stamp:
            continue
        answer = {"retCode": 0, "result": {"list": [[row.get(name) for name in _FIELDS]]}}
        window = range(start, start + timeframe.step_ms, timeframe.step_ms)
        try:
            klines = parse_klines(answer, market, window)
        except FeedError:
            continue
        yield LiveBar(start, tuple(klines.values[0].tolist()))
