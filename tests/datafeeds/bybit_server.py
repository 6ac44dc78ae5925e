"""A loopback server that speaks Bybit v5 over HTTP, with faults.

In a test::

    with BybitServer(now="2024-03-01T00:30") as server:
        server.add_bars("BTCUSDT", "1h", bars)
        server.script("kline", [None, FAULTS["http_503"], FAULTS["truncated"]])
        client = BybitClient(base_url=server.url)

For people, filled with a file of bars::

    python tests/datafeeds/bybit_server.py BARS --symbol BTCUSDT --timeframe 1h --port 8765

Answers have the shapes that Bybit's were recorded with: text numbers, newest row first, the
forming bar included, 200 rows unless asked, 1,000 at most. Faults are in `bybit_faults`.
"""

import argparse
import contextlib
import hashlib
import hmac
import json
import threading
import time
from collections import defaultdict, deque
from urllib.parse import parse_qsl, urlsplit

import pandas as pd

from glow_bt.ohlcv import read_bars
from tests.datafeeds.bybit_faults import Reply
from tests.datafeeds.bybit_histories import (
    epoch_ms,
    funding_history,
    kline_history,
    mark_history,
    open_interest_history,
)
from tests.datafeeds.bybit_http import ExchangeHTTPServer

INTERVALS = {
    "1m": "1", "3m": "3", "5m": "5", "15m": "15", "30m": "30", "1h": "60", "2h": "120",
    "4h": "240", "6h": "360", "12h": "720", "1d": "D", "1w": "W",
}  # fmt: skip
OPEN_INTEREST_INTERVALS = {
    "5m": "5min", "15m": "15min", "30m": "30min", "1h": "1h", "4h": "4h", "1d": "1d",
}  # fmt: skip
QUOTES = ("USDT", "USDC", "USD", "BTC")
RECEIVE_WINDOW_MS = 5000


class BybitServer:
    """Serves histories on 127.0.0.1 until the block is left.

    Args:
        port: 0 takes any free one.
        now: the exchange's clock: a stamp at which it stands still, or a callable that gives
            epoch milliseconds; None takes the computer's.
        wide: which rows a span wider than the limit gives: "latest" or "earliest".
        latency: seconds before each answer.
        rate_limit: requests within any second above which it answers 10006 instead, and counts
            the `violations`; None: no limit.
    """

    def __init__(self, *, port=0, now=None, wide="latest", latency=0.0, rate_limit=None):
        self.now = now
        self.wide = wide
        self.latency = latency
        self.rate_limit = rate_limit
        self.violations = 0
        self.requests = []  # (endpoint, query) in order of arrival
        self.maintenances = []  # rows of system/status
        self._instruments = defaultdict(dict)
        self._histories = {}
        self._trades = {}
        self._books = {}
        self._keys = {}
        self._scripts = defaultdict(deque)
        self._arrivals = deque()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._http = ExchangeHTTPServer(("127.0.0.1", port), self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._answers = {
            "time": self._time,
            "instruments-info": self._instruments_info,
            "kline": self._kline,
            "mark-price-kline": self._mark,
            "funding/history": self._funding,
            "open-interest": self._open_interest,
            "recent-trade": self._recent_trade,
            "orderbook": self._orderbook,
            "system/status": self._system_status,
        }

    @property
    def url(self):
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def add_bars(self, symbol, timeframe, bars, *, category="linear"):
        """List an instrument and its bars; those that open after `now` are not served yet."""
        self.add_instrument(symbol, category=category, listed=bars.index[0])
        self._add("kline", symbol, category, timeframe, kline_history(bars, category))

    def hide(self, symbol, timeframe, stamps, answers, *, category="linear"):
        """Let bars be missing from so many of the answers that should hold them."""
        history = self._histories["kline", category, symbol, timeframe]
        with self._lock:
            history.hide(epoch_ms(stamps), answers)

    def add_mark(self, symbol, timeframe, bars, *, category="linear"):
        """Mark prices of a listed instrument: the first four columns of bars."""
        self._add("mark", symbol, category, timeframe, mark_history(bars))

    def add_funding(self, symbol, rates, *, category="linear"):
        """Funding rates of a listed instrument: a Series by stamp."""
        self._add("funding", symbol, category, "", funding_history(symbol, rates))

    def add_open_interest(self, symbol, timeframe, contracts, *, category="linear"):
        """Open interest of a listed instrument: a Series by stamp."""
        self._add("oi", symbol, category, timeframe, open_interest_history(contracts))

    def add_instrument(self, symbol, *, category="linear", listed=None):
        if symbol not in self._instruments[category]:
            self._instruments[category][symbol] = _instrument(symbol, category, listed)

    def add_trades(self, symbol, trades, *, category="linear"):
        """Recent trades, newest first, in the recorded form."""
        self.add_instrument(symbol, category=category)
        self._trades[category, symbol] = list(trades)

    def set_book(self, symbol, book, *, category="linear"):
        """The result of orderbook, in the recorded form."""
        self.add_instrument(symbol, category=category)
        self._books[category, symbol] = book

    def add_key(self, key, secret, **facts):
        """Accept signed requests; the facts go into the answer of user/query-api."""
        self._keys[key] = (secret, facts)

    def script(self, endpoint, faults):
        """Let the next answers of an endpoint, such as kline, go wrong; None is a good one."""
        with self._lock:
            self._scripts[endpoint].extend(faults)

    def count(self, endpoint):
        with self._lock:
            return sum(name == endpoint for name, _ in self.requests)

    def now_ms(self):
        if self.now is None:
            return time.time_ns() // 1_000_000
        if callable(self.now):
            return int(self.now())
        return pd.Timestamp(self.now, tz="UTC").value // 1_000_000

    def reply(self, path, headers=()):
        parts = urlsplit(path)
        endpoint = parts.path.removeprefix("/v5/").removeprefix("market/")
        query = dict(parse_qsl(parts.query))
        with self._lock:
            self.requests.append((endpoint, query))
            wait = self._over_limit()
            faults = self._scripts[endpoint]
            fault = faults.popleft() if faults and not wait else None
        self.wait(self.latency)
        if wait:
            return self._too_many(wait)
        if endpoint == "user/query-api":
            answer = self._query_api(parts.query, headers)
        elif endpoint in self._answers:
            answer = self._answers[endpoint](query)
        else:
            return Reply(b"404 page not found", 404, "text/plain")
        reply = Reply(json.dumps(answer).encode())
        return reply if fault is None else fault(reply)

    def wait(self, seconds):
        if seconds:
            self._stopping.wait(seconds)

    def _over_limit(self):
        """Seconds until the next request is welcome, 0 if this one is."""
        if self.rate_limit is None:
            return 0.0
        now = time.monotonic()
        while self._arrivals and self._arrivals[0] <= now - 1.0:
            self._arrivals.popleft()
        self._arrivals.append(now)
        if len(self._arrivals) <= self.rate_limit:
            return 0.0
        self.violations += 1
        return max(self._arrivals[0] + 1.0 - now, 1e-3)

    def _too_many(self, wait):
        answer = self._answer({}, 10006, "Too many visits. Exceeded the API Rate Limit.")
        reset = (("X-Bapi-Limit-Reset-Timestamp", str(self.now_ms() + round(1000 * wait))),)
        return Reply(json.dumps(answer).encode(), headers=reset)

    def _answer(self, result, code=0, message="OK"):
        return {
            "retCode": code,
            "retMsg": message,
            "result": result,
            "retExtInfo": {},
            "time": self.now_ms(),
        }

    def _add(self, kind, symbol, category, timeframe, history):
        self._histories[kind, category, symbol, timeframe] = history

    def _time(self, _query):
        now = self.now_ms()
        return self._answer({"timeSecond": str(now // 1000), "timeNano": f"{now}000000"})

    def _instruments_info(self, query):
        category = query.get("category")
        listed = self._instruments[category] if query.get("status") != "PreLaunch" else {}
        found = [row for name, row in listed.items() if query.get("symbol", name) == name]
        return self._answer({"category": category, "list": found, "nextPageCursor": ""})

    def _kline(self, query):
        return self._klines("kline", query)

    def _mark(self, query):
        return self._klines("mark", query)

    def _klines(self, kind, query):
        category, symbol = query.get("category", "linear"), query.get("symbol")
        names = {code: name for name, code in INTERVALS.items()}
        history = self._found(kind, query, names.get(query.get("interval")))
        if isinstance(history, dict):
            return history
        limit = min(int(query.get("limit", 200)), 1000)
        rows = history.rows(query.get("start"), query.get("end"), limit, self.wide, self.now_ms())
        return self._answer({"category": category, "symbol": symbol, "list": rows})

    def _funding(self, query):
        history = self._found("funding", query, "")
        if isinstance(history, dict):
            return history
        start, end = query.get("startTime"), query.get("endTime")
        if start is not None and end is None:
            return self._answer({}, 10001, "endTime is required with startTime")
        limit = min(int(query.get("limit", 200)), 200)
        rows = history.rows(start, end, limit, "latest", self.now_ms())
        return self._answer({"category": query["category"], "list": rows})

    def _open_interest(self, query):
        names = {code: name for name, code in OPEN_INTEREST_INTERVALS.items()}
        history = self._found("oi", query, names.get(query.get("intervalTime")))
        if isinstance(history, dict):
            return history
        limit, skip = min(int(query.get("limit", 50)), 200), int(query.get("cursor") or 0)
        span = query.get("startTime"), query.get("endTime")
        rows = history.rows(*span, limit + 1, "latest", self.now_ms(), skip)
        cursor = str(skip + limit) if len(rows) > limit else ""
        line = {"symbol": query["symbol"], "category": query["category"]}
        return self._answer({**line, "list": rows[:limit], "nextPageCursor": cursor})

    def _found(self, kind, query, timeframe):
        """A history, or the answer that refuses it."""
        category, symbol = query.get("category", "linear"), query.get("symbol")
        if symbol not in self._instruments[category]:
            return self._answer({}, 10001, "Not supported symbols")
        found = self._histories.get((kind, category, symbol, timeframe))
        return self._answer({}, 10001, "Invalid period!") if found is None else found

    def _recent_trade(self, query):
        found = self._trades.get((query.get("category", "linear"), query.get("symbol")))
        if found is None:
            return self._answer({}, 10001, "Not supported symbols")
        rows = found[: min(int(query.get("limit", 500)), 1000)]
        return self._answer({"category": query.get("category", "linear"), "list": rows})

    def _orderbook(self, query):
        found = self._books.get((query.get("category", "linear"), query.get("symbol")))
        if found is None:
            return self._answer({}, 10001, "Not supported symbols")
        depth = int(query.get("limit", 25))
        return self._answer({**found, "b": found["b"][:depth], "a": found["a"][:depth]})

    def _system_status(self, _query):
        return self._answer({"list": self.maintenances})

    def _query_api(self, query, headers):
        key, stamp = headers.get("X-BAPI-API-KEY"), headers.get("X-BAPI-TIMESTAMP")
        if key not in self._keys:
            return self._answer({}, 10003, f"API key is invalid: {key}.")
        secret, facts = self._keys[key]
        if abs(int(stamp) - self.now_ms()) > RECEIVE_WINDOW_MS:
            return self._answer({}, 10002, "invalid request, please check your server timestamp")
        text = f"{stamp}{key}{headers.get('X-BAPI-RECV-WINDOW')}{query}"
        signature = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(signature, headers.get("X-BAPI-SIGN", "")):
            return self._answer({}, 10004, "error sign! please check your signature")
        known = {
            "id": "13770661", "note": "test", "apiKey": key, "readOnly": 1, "secret": "",
            "permissions": {"Spot": [], "ContractTrade": []}, "ips": ["*"], "type": 1,
            "deadlineDay": 83, "expiredAt": "2030-05-15T03:21:05Z", "userID": 24617703,
        }  # fmt: skip
        return self._answer(known | facts)


def _instrument(symbol, category, listed):
    quote = next(q for q in QUOTES if symbol.endswith(q))
    base = symbol.removesuffix(quote)
    row = {
        "symbol": symbol,
        "baseCoin": base,
        "quoteCoin": quote,
        "status": "Trading",
        "priceFilter": {"tickSize": "0.01"},
        "lotSizeFilter": {"minOrderQty": "0.001", "maxOrderQty": "1000"},
    }
    if category == "spot":
        row["lotSizeFilter"] |= {"basePrecision": "0.000001", "quotePrecision": "0.0000001"}
        return row | {"innovation": "0", "marginTrading": "utaOnly"}
    launch = 0 if listed is None else listed.value // 1_000_000
    return row | {
        "contractType": f"{category.capitalize()}Perpetual",
        "launchTime": str(launch),
        "deliveryTime": "0",
        "fundingInterval": 480,
        "settleCoin": base if category == "inverse" else quote,
        "leverageFilter": {"minLeverage": "1", "maxLeverage": "100", "leverageStep": "0.01"},
        "lotSizeFilter": row["lotSizeFilter"] | {"qtyStep": "0.001", "minNotionalValue": "5"},
    }


def main():
    parser = argparse.ArgumentParser(description="Serve a file of bars as Bybit v5 would.")
    parser.add_argument("bars", help="CSV or Parquet file of bars")
    parser.add_argument("--symbol", default="BTCUSDT", help="Bybit's name (default BTCUSDT)")
    parser.add_argument("--timeframe", default="1h", choices=INTERVALS)
    parser.add_argument("--category", default="linear", choices=["linear", "inverse", "spot"])
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--rate-limit", type=float, default=None, help="requests a second")
    options = parser.parse_args()
    bars = read_bars(options.bars)
    settings = {"latency": options.latency, "rate_limit": options.rate_limit}
    with (
        BybitServer(port=options.port, **settings) as server,
        contextlib.suppress(KeyboardInterrupt),
    ):
        server.add_bars(options.symbol, options.timeframe, bars, category=options.category)
        print(f"{len(bars)} bars of {options.symbol} at {server.url}; Ctrl-C ends", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
