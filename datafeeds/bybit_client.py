"""Bybit's public market data, through ccxt.

The only module that imports ccxt. It sends requests and turns every failure into an error of
`glow_bt.errors`; what to ask and what an answer means is decided in the modules beside it:

- `datafeeds.bybit_time`: timeframes and windows
- `datafeeds.bybit_markets`: symbols
- `datafeeds.bybit_answers`: results, refusals, failures worth asking again
- `datafeeds.bybit_klines`: rows into bars
- `datafeeds.bybit_pager`: windows into history
- `datafeeds.bybit_retry`: patience
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import ccxt
import pandas as pd

from datafeeds.bybit_answers import check_answer, server_time_ms
from datafeeds.bybit_klines import Klines, klines_to_bars
from datafeeds.bybit_markets import Market, categories_of, find_market, unknown_symbol
from datafeeds.bybit_pager import KlinePager
from datafeeds.bybit_retry import RetryPolicy
from datafeeds.bybit_time import (
    Stamp,
    Timeframe,
    as_utc,
    closed_opens,
    timeframe_of,
    to_epoch_ms,
)
from glow_bt.errors import ConfigError, FeedError, TransientFeedError
from glow_bt.ohlcv import validate_bars

__all__ = ["BybitClient"]

T = TypeVar("T")


class BybitClient:
    """Fetches bars from Bybit, or from any server that speaks its v5 interface.

    Needs no account: only public market data is asked for.

    Example::

        with BybitClient() as client:
            bars = client.fetch_ohlcv("BTC/USDT:USDT", "1h", "2024-01-01", "2024-07-01")

    Args:
        base_url: where to send every request, such as ``https://api.bytick.com``; default:
            Bybit. Proxies named in the environment are used for the default only.
        retry: when to ask again; default: `RetryPolicy()`.
        seed: of the default policy's jitter.
        timeout: seconds to wait for one answer.
        throttle: keep to ccxt's limit of requests a second.

    Raises:
        ConfigError: if ``base_url`` is no http(s) address or ``timeout`` is not positive.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        seed: int | None = None,
        timeout: float = 10.0,
        throttle: bool = True,
    ) -> None:
        self._address = "Bybit" if base_url is None else _address(base_url)
        if not 0 < timeout < math.inf:
            raise ConfigError(f"expected a finite timeout above 0 s, found {timeout}")
        self._retry = retry or RetryPolicy(draw=random.Random(seed).random)
        self._exchange = _Exchange(
            {
                "timeout": round(timeout * 1000),
                "enableRateLimit": throttle,
                "requests_trust_env": base_url is None,
            }
        )
        if base_url is not None:
            self._exchange.redirect(base_url.rstrip("/"))
        self._markets: dict[str, list[Market]] = {}

    def __enter__(self) -> Self:
        """Return the client; leaving the block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections. The client can be used again; it opens new ones."""
        self._exchange.close()

    def fetch_ohlcv(
        self,
        symbol: str,
        timeframe: str,
        since: Stamp,
        until: Stamp | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> pd.DataFrame:
        """Fetch the closed bars that open at ``since <= stamp < until``.

        A span that begins before the instrument's first bar gives the bars from that one on.
        Bars that the exchange lacks are asked for twice and then left out;
        `glow_bt.ohlcv.find_gaps` lists them.

        Args:
            symbol: in ccxt's notation (``BTC/USDT:USDT`` linear, ``BTC/USD:BTC`` inverse,
                ``BTC/USDT`` spot) or Bybit's (``BTCUSDT``: linear before inverse before spot).
            timeframe: 1m, 3m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 12h, 1d or 1w.
            since: start: ISO 8601, epoch milliseconds or a datetime; naive means UTC.
            until: end; default: the exchange's present.
            progress: called after each page with the bars of the span that are dealt with and
                the bars that fit in it.

        Returns:
            Bars in the contract of `glow_bt.ohlcv`, at least one.

        Raises:
            ConfigError: if the timeframe is not supported, a moment cannot be read, ``since``
                is not before ``until`` or lies in the future.
            SymbolError: if the exchange does not list the symbol; nearest names are offered.
            TransientFeedError: if the exchange could not be reached or kept failing.
            FeedError: if it refuses, or has no closed bar in the span.
        """
        step = timeframe_of(timeframe)
        start = as_utc(since, "since")
        stop = None if until is None else as_utc(until, "until")
        if stop is not None and stop <= start:
            raise ConfigError(f"expected since before until, found {start} and {stop}")
        market = self.market(symbol)
        now = self.server_time()
        if start > now:
            raise ConfigError(
                f"expected since in the past, found {start} (it is {now} on the exchange)"
            )
        now_ms = to_epoch_ms(now)
        until_ms = None if stop is None else to_epoch_ms(stop)
        opens = closed_opens(step, to_epoch_ms(start), until_ms, now_ms)
        pager = KlinePager(self._ask_klines, self._retry, market, step, now_ms)
        pages = _collect(pager, opens, progress)
        if not pages:
            raise _no_bars(market, step, start, stop)
        return validate_bars(klines_to_bars(pages), now=now)

    def market(self, symbol: str) -> Market:
        """Look an instrument up, asking only for the product lines it may belong to.

        Raises:
            SymbolError: if the exchange does not list it.
            FeedError: as `fetch_ohlcv`.
        """
        seen: list[Market] = []
        for category in categories_of(symbol):
            markets = self._markets_of(category)
            found = find_market(symbol, markets)
            if found is not None:
                return found
            seen += markets
        raise unknown_symbol(symbol, seen)

    def server_time(self) -> pd.Timestamp:
        """Return the exchange's clock.

        Raises:
            FeedError: as `fetch_ohlcv`.
        """
        answer_ms = self._retry.call(
            lambda: server_time_ms(self._ask(self._exchange.publicGetV5MarketTime))
        )
        return pd.Timestamp(answer_ms, unit="ms", tz="UTC")

    def _markets_of(self, category: str) -> list[Market]:
        if category not in self._markets:
            self._exchange.options["fetchMarkets"]["types"] = [category]
            # A list without any instrument is rather a damaged one: asked for once more.
            listed = self._retry.call(self._ask_markets) or self._retry.call(self._ask_markets)
            self._markets[category] = [
                Market(found["symbol"], found["id"], category, found["created"])
                for found in listed
            ]
        return self._markets[category]

    def _ask_markets(self) -> list[Mapping[str, Any]]:
        return self._ask(self._exchange.fetch_markets)

    def _ask_klines(self, params: dict[str, str | int]) -> object:
        return self._ask(self._exchange.publicGetV5MarketKline, params)

    def _ask(self, endpoint: Callable[..., T], *args: object) -> T:
        try:
            return endpoint(*args)
        except ccxt.NetworkError as error:
            raise TransientFeedError(
                f"expected an answer from {self._address}, found none ({_reason(error)}); "
                "check the network, the proxy and base_url"
            ) from error
        except ccxt.BaseError as error:
            raise FeedError(
                f"expected an answer from {self._address}, the request failed ({_reason(error)})"
            ) from error


class _Exchange(ccxt.bybit):
    """ccxt's Bybit with our reading of answers, in place of its table of exceptions."""

    def redirect(self, base_url: str) -> None:
        self.urls["api"] = dict.fromkeys(self.urls["api"], base_url)

    def handle_errors(
        self,
        httpCode: int,
        reason: str,
        url: str,
        method: str,
        headers: dict[str, str],
        body: str,
        response: object,
        requestHeaders: object,
        requestBody: object,
    ) -> None:
        """Judge an answer; ccxt calls this with every one."""
        check_answer(httpCode, body, response)


def _address(base_url: str) -> str:
    """Host and port, without the user and password that an address may carry."""
    try:
        parts = urlsplit(base_url)
        labels = (parts.hostname or "").split(".")
        # Reading the port checks it.
        sound = parts.scheme in ("http", "https") and "" not in labels and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(f"expected base_url as http://host or https://host, found {base_url!r}")
    return parts.netloc.rpartition("@")[2]


def _collect(
    pager: KlinePager, opens: range, progress: Callable[[int, int], object] | None
) -> list[Klines]:
    pages = []
    for window, page in pager.pages(opens):
        pages.append(page)
        if progress is not None:
            progress(opens.index(window[-1]) + 1, len(opens))
    # Windows after the exchange's last bar are not asked for.
    if pages and progress is not None:
        progress(len(opens), len(opens))
    return pages


def _reason(error: BaseException) -> str:
    """What lies at the bottom of a chain of errors, on one line."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def _no_bars(
    market: Market, timeframe: Timeframe, start: pd.Timestamp, stop: pd.Timestamp | None
) -> FeedError:
    until = "now" if stop is None else str(stop)
    listed = market.listed_ms
    if listed is not None and stop is not None and listed >= to_epoch_ms(stop):
        hint = f"it was listed on {pd.Timestamp(listed, unit='ms'):%Y-%m-%d}: ask for later bars"
    else:
        hint = "ask for an earlier since or a later until"
    return FeedError(
        f"expected closed {timeframe.name} bars of {market.symbol} from {start} to {until}, "
        f"found none; {hint}"
    )
