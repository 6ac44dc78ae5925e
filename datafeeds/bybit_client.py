"""Bybit's market data, through ccxt.

The only module that imports ccxt. It sends requests and turns every failure into an error of
`glow_bt.errors`; what to ask and what an answer means is decided in the modules beside it:

- `datafeeds.bybit_fetching`: histories, out of
- `datafeeds.bybit_time`, `bybit_markets`, `bybit_series`: timeframes, symbols, questions
- `datafeeds.bybit_answers`: results, refusals, failures worth asking again
- `datafeeds.bybit_klines`: rows
- `datafeeds.bybit_source`, `bybit_draft`, `bybit_edges`, `bybit_pager`: complete windows
- `datafeeds.bybit_pages`: several at once
- `datafeeds.bybit_retry`, `bybit_rate`, `bybit_connections`: patience, and its end
- `datafeeds.bybit_keys`, `bybit_address`: what is not told
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar

import ccxt

from datafeeds.bybit_address import check_secrecy, host_of, reason_of
from datafeeds.bybit_answers import (
    answer_result,
    answer_time_ms,
    check_answer,
    ongoing_maintenance,
    server_time_ms,
)
from datafeeds.bybit_connections import OpenConnections
from datafeeds.bybit_fetching import HistoryClient
from datafeeds.bybit_keys import ApiKeys
from datafeeds.bybit_rate import RateLimiter
from datafeeds.bybit_retry import RetryPolicy, UnclearRefusalError
from datafeeds.bybit_series import Question
from glow_bt.errors import (
    ClockSkewError,
    ConfigError,
    FeedError,
    RateLimitError,
    TransientFeedError,
)

__all__ = ["BybitClient"]

T = TypeVar("T")

_METHODS = {
    "kline": "publicGetV5MarketKline",
    "mark-price-kline": "publicGetV5MarketMarkPriceKline",
    "funding/history": "publicGetV5MarketFundingHistory",
    "open-interest": "publicGetV5MarketOpenInterest",
}
# How long what an answer showed of the exchange's clock may stand in for it.
_CLOCK_GOOD_S = 30.0
_INSTRUMENTS = "v5/market/instruments-info"
_ABOUT_TO_BE = "PreLaunch"
_UNCLEAR_PAUSE_S = 1.0
_RESET_HEADER = "x-bapi-limit-reset-timestamp"


class BybitClient(HistoryClient):
    """Fetches histories from Bybit, or from any server that speaks its v5 interface.

    Needs no account: only public market data is asked for, without keys. May be shared by any
    number of threads; the limit of requests a second holds for all of them.

    Example::

        with BybitClient() as client:
            bars = client.fetch_ohlcv("BTC/USDT:USDT", "1h", "2024-01-01", "2024-07-01")

    Args:
        base_url: where to send every request, such as ``https://api.bytick.com``; default:
            Bybit. Proxies named in the environment are used for the default only.
        retry: when to ask again; default: `RetryPolicy()`.
        seed: of the default policy's jitter.
        timeout: seconds to wait for one answer.
        throttle: keep to ``requests_per_second``, and pause when the exchange asks to.
        requests_per_second: the limit.
        in_flight: requests at once, at most.
        keys: for `check_keys` (`datafeeds.bybit_keys.load_keys`).

    Raises:
        ConfigError: if ``base_url`` is no http(s) address or keys would travel to it in the
            open, or if a number is not positive.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        seed: int | None = None,
        timeout: float = 10.0,
        throttle: bool = True,
        requests_per_second: float = 10.0,
        in_flight: int = 8,
        keys: ApiKeys | None = None,
    ) -> None:
        if keys is not None:
            check_secrecy(base_url)
        draw = random.Random(seed).random
        limiter = RateLimiter(requests_per_second if throttle else math.inf, draw=draw)
        self._link = _Link(base_url, limiter, timeout, in_flight, keys)
        super().__init__(self._link, retry or RetryPolicy(draw=draw), in_flight)

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
        """End what is under way, its threads too, and close the connections.

        The client can be used again; it opens new ones.
        """
        super().close()
        self._link.close()

    def check_keys(self) -> dict[str, Any]:
        """Ask the exchange about the keys.

        The request is signed with the exchange's time, whatever this machine's clock shows.

        Returns:
            ``id``, ``read_only``, ``expires`` (ISO 8601, None if never), ``permissions`` and
            ``addresses`` that it is bound to.

        Raises:
            ConfigError: if the client has no keys.
            AccessError: if the exchange does not accept them.
            FeedError: as `fetch_ohlcv`.
        """
        return self._call(self._link.ask_keys)


class _Link:
    """Requests to one address, from any thread.

    Raises:
        ConfigError: if the address or the timeout cannot be.
    """

    def __init__(
        self,
        base_url: str | None,
        limiter: RateLimiter,
        timeout: float,
        in_flight: int,
        keys: ApiKeys | None,
    ) -> None:
        self._address = "Bybit" if base_url is None else host_of(base_url)
        if not 0 < timeout < math.inf:
            raise ConfigError(f"expected a finite timeout above 0 s, found {timeout}")
        self._exchange = _Exchange(
            {
                "timeout": round(timeout * 1000),
                # Its own waiting is not made for threads; `RateLimiter` stands in for it.
                "enableRateLimit": False,
                "requests_trust_env": base_url is None,
            }
        )
        self._exchange.prepare(limiter, in_flight)
        if base_url is not None:
            self._exchange.redirect(base_url.rstrip("/"))
        self._hidden = [] if base_url is None else [base_url.split("//")[1].rpartition("@")[0]]
        self._keys = keys
        # Guards what ccxt takes from its object instead of from arguments.
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections; new requests open new ones."""
        self._exchange.close()

    def break_off(self) -> None:
        """End the requests that are under way: they fail at once."""
        self._exchange.connections.break_off()

    def seen_ms(self) -> int | None:
        """Return the exchange's clock as a recent answer showed it."""
        seen_ms, seen_at = self._exchange.seen
        return seen_ms if time.monotonic() - seen_at < _CLOCK_GOOD_S else None

    def ask(self, question: Question, stop: threading.Event | None = None) -> object:
        """Send a question; setting ``stop`` ends the wait for a permit, as in all others."""
        endpoint = getattr(self._exchange, _METHODS[question.path])
        return self._ask(endpoint, question.params, stop=stop)

    def ask_time(self, stop: threading.Event | None = None) -> int:
        """Return the exchange's clock in epoch milliseconds."""
        return server_time_ms(self._ask(self._exchange.publicGetV5MarketTime, stop=stop))

    def ask_markets(
        self, category: str, stop: threading.Event | None = None
    ) -> list[Mapping[str, Any]]:
        """Return the instruments of a product line."""
        exchange, stop = self._exchange, stop or threading.Event()
        with self._lock, ThreadPoolExecutor(1) as other:
            exchange.options["fetchMarkets"]["types"] = [category]
            if category != "spot":
                exchange.about_to_be = other.submit(self._ask_about_to_be, category, stop)
            try:
                return self._ask(exchange.fetch_markets, stop=stop)
            except KeyboardInterrupt:
                stop.set()
                self.break_off()
                raise

    def _ask_about_to_be(self, category: str, stop: threading.Event) -> object:
        """Ask for instruments that are not traded yet: ccxt does when it has the others."""
        exchange = self._exchange
        query = {"category": category, "limit": 1000, "status": _ABOUT_TO_BE}
        with exchange.until(stop):
            return ccxt.bybit.request(exchange, _INSTRUMENTS, ["public"], "GET", query)

    def ask_status(self, stop: threading.Event | None = None) -> str | None:
        """Return what is said of a maintenance that goes on."""
        return ongoing_maintenance(self._ask(self._exchange.publicGetV5SystemStatus, stop=stop))

    def ask_keys(self, stop: threading.Event | None = None) -> dict[str, Any]:
        """Return what the exchange says of the keys.

        Raises:
            ConfigError: if there are none.
        """
        if self._keys is None:
            raise ConfigError(
                "expected a client with keys, found none; give keys=load_keys() "
                "(datafeeds.bybit_keys)"
            )
        with self._lock:
            found = self._ask_signed(self._keys, stop)
        return {
            "id": found.get("id"),
            "read_only": str(found.get("readOnly")) == "1",
            "expires": found.get("expiredAt") or None,
            "permissions": found.get("permissions", {}),
            "addresses": found.get("ips", []),
        }

    def _ask_signed(self, keys: ApiKeys, stop: threading.Event | None) -> dict[str, Any]:
        exchange = self._exchange
        if exchange.time_difference is None:
            before = exchange.milliseconds()
            server_ms = self.ask_time(stop)
            exchange.time_difference = (before + exchange.milliseconds()) // 2 - server_ms
        exchange.options["timeDifference"] = exchange.time_difference
        exchange.apiKey, exchange.secret = keys.reveal()
        try:
            return answer_result(self._ask(exchange.privateGetV5UserQueryApi, stop=stop))
        except ClockSkewError:
            # Measured anew before the next attempt.
            exchange.time_difference = None
            raise
        finally:
            exchange.apiKey = exchange.secret = None
            exchange.set_last_request(dict.fromkeys(("headers", "body", "url")))

    def _ask(
        self, endpoint: Callable[..., T], *args: object, stop: threading.Event | None = None
    ) -> T:
        failure: FeedError
        try:
            with self._exchange.until(stop):
                return endpoint(*args)
        except FeedError as error:
            failure = type(error)(self._shown(str(error)))
        except ccxt.NetworkError as error:
            failure = TransientFeedError(
                f"expected an answer from {self._address}, found none "
                f"({self._shown(reason_of(error))}); check the network, the proxy and base_url"
            )
        except ccxt.BaseError as error:
            failure = FeedError(
                f"expected an answer from {self._address}, the request failed "
                f"({self._shown(reason_of(error))})"
            )
        # Not chained to what ccxt and requests raise: that holds addresses and headers.
        raise failure

    def _shown(self, text: str) -> str:
        """A text without passwords and keys."""
        for hidden in self._hidden:
            text = text.replace(hidden, "(hidden)") if hidden else text
        return text if self._keys is None else self._keys.redact(text)


class _Exchange(ccxt.bybit):
    """ccxt's Bybit with our reading of answers, made fit for several threads.

    It waits for our permits, keeps no cookies (ccxt clears them before each request, whoever
    reads them then), and logs nothing: its log lines hold the headers that sign a request.
    """

    def prepare(self, limiter: RateLimiter, in_flight: int) -> None:
        self.limiter = limiter
        self.seen = (0, -math.inf)
        self.time_difference: int | None = None
        self.here = threading.local()
        self.connections = OpenConnections()
        self.about_to_be: Future[object] | None = None
        self.logger = logging.Logger("ccxt", logging.CRITICAL + 1)
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for adapter in self.session.adapters.values():
            adapter.init_poolmanager(10, 2 * in_flight)
            self.connections.watch(adapter)

    def redirect(self, base_url: str) -> None:
        self.urls["api"] = dict.fromkeys(self.urls["api"], base_url)

    def request(
        self,
        path: str,
        api: object = "public",
        method: str = "GET",
        params: Mapping[str, object] = MappingProxyType({}),
        config: Mapping[str, object] = MappingProxyType({}),
    ) -> object:
        """Send a request; instruments about to be listed were asked for meanwhile."""
        early = self.about_to_be
        if early is not None and params.get("status") == _ABOUT_TO_BE:
            self.about_to_be = None
            return early.result()
        return super().request(path, api, method, dict(params), dict(config))

    @contextmanager
    def until(self, stop: threading.Event | None) -> Iterator[None]:
        """Let this thread's requests wait for their turn no longer than until ``stop``."""
        self.here.stop = stop
        try:
            yield
        finally:
            self.here.stop = None

    def fetch(self, *args: object) -> object:
        """Send a request, when it is its turn."""
        self.limiter.acquire(getattr(self.here, "stop", None))
        return super().fetch(*args)

    def handle_errors(
        self,
        httpCode: int,
        reason: str,
        url: str,
        method: str,
        headers: Mapping[str, str],
        body: str,
        response: object,
        requestHeaders: object,
        requestBody: object,
    ) -> None:
        """Judge an answer; ccxt calls this with every one."""
        now_ms = answer_time_ms(response)
        if now_ms is not None:
            self.seen = (now_ms, time.monotonic())
        try:
            check_answer(httpCode, body, response)
        except UnclearRefusalError:
            self.limiter.slow_down(_UNCLEAR_PAUSE_S)
            raise
        except RateLimitError:
            self.limiter.slow_down(_reset_in_s(headers, now_ms))
            raise
        self.limiter.recover()


def _reset_in_s(headers: Mapping[str, str], now_ms: int | None) -> float | None:
    """Seconds until the exchange lifts its limit, None if it does not say."""
    reset = {name.lower(): value for name, value in headers.items()}.get(_RESET_HEADER, "")
    if now_ms is None or not reset.isdecimal() or int(reset) <= now_ms:
        return None
    return (int(reset) - now_ms) / 1000.0
