"""A loopback server that speaks Bybit v5: instruments, server time and klines, with faults.

In a test::

    with BybitServer(now="2024-03-01T00:30") as server:
        server.add_bars("BTCUSDT", "1h", bars)
        server.script("kline", [None, FAULTS["http_503"], FAULTS["truncated"]])
        client = BybitClient(base_url=server.url)

For people, filled with a file of bars::

    python tests/datafeeds/bybit_server.py BARS --symbol BTCUSDT --timeframe 1h --port 8765

Answers have the shapes that Bybit's were recorded with: text numbers, newest row first, the
forming bar included, 200 rows unless asked, 1,000 at most.
"""

import argparse
import contextlib
import json
import math
import socket
import struct
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pandas as pd

from glow_bt.ohlcv import read_bars

DEFAULT_LIMIT = 200
MAX_LIMIT = 1000
INTERVALS = {
    "1m": "1", "3m": "3", "5m": "5", "15m": "15", "30m": "30", "1h": "60", "2h": "120",
    "4h": "240", "6h": "360", "12h": "720", "1d": "D", "1w": "W",
}  # fmt: skip
QUOTES = ("USDT", "USDC", "USD", "BTC")
PREFIX = "/v5/market/"


@dataclass(frozen=True)
class Reply:
    """One HTTP answer; faults make a worse one of it."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    stall: float = 0.0
    reset_after: int | None = None  # bytes of the body that leave before the connection breaks


class BybitServer:
    """Serves bars on 127.0.0.1 until the block is left.

    Args:
        port: 0 takes any free one.
        now: the exchange's clock: a stamp at which it stands still, or a callable that gives
            epoch milliseconds; None takes the computer's.
        wide: which rows a span wider than the limit gives: "latest" or "earliest".
    """

    def __init__(self, *, port=0, now=None, wide="latest"):
        self.now = now
        self.wide = wide
        self.requests = []  # (endpoint, query) in order of arrival
        self._instruments = defaultdict(dict)
        self._klines = {}
        self._scripts = defaultdict(deque)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._http = _HTTPServer(("127.0.0.1", port), _Handler)
        self._http.exchange = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

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
        self._klines[category, symbol, INTERVALS[timeframe]] = _Series(bars, category)

    def add_instrument(self, symbol, *, category="linear", listed=None):
        self._instruments[category][symbol] = _instrument(symbol, category, listed)

    def script(self, endpoint, faults):
        """Let the next answers of kline, time or instruments-info go wrong; None is a good one."""
        with self._lock:
            self._scripts[endpoint].extend(faults)

    def count(self, endpoint):
        return sum(name == endpoint for name, _ in self.requests)

    def now_ms(self):
        if self.now is None:
            return time.time_ns() // 1_000_000
        if callable(self.now):
            return int(self.now())
        return pd.Timestamp(self.now, tz="UTC").value // 1_000_000

    def reply(self, path):
        parts = urlsplit(path)
        endpoint = parts.path.removeprefix(PREFIX)
        query = dict(parse_qsl(parts.query))
        with self._lock:
            self.requests.append((endpoint, query))
            faults = self._scripts[endpoint]
            fault = faults.popleft() if faults else None
        answers = {
            "time": self._time,
            "instruments-info": self._instruments_info,
            "kline": self._kline,
        }
        if endpoint not in answers:
            return Reply(b"404 page not found", 404, "text/plain")
        reply = Reply(json.dumps(answers[endpoint](query)).encode())
        return reply if fault is None else fault(reply)

    def wait(self, seconds):
        self._stopping.wait(seconds)

    def _answer(self, result, code=0, message="OK"):
        return {
            "retCode": code,
            "retMsg": message,
            "result": result,
            "retExtInfo": {},
            "time": self.now_ms(),
        }

    def _time(self, _query):
        now = self.now_ms()
        return self._answer({"timeSecond": str(now // 1000), "timeNano": f"{now}000000"})

    def _instruments_info(self, query):
        category = query.get("category")
        listed = self._instruments[category] if query.get("status") != "PreLaunch" else {}
        found = [row for name, row in listed.items() if query.get("symbol", name) == name]
        return self._answer({"category": category, "list": found, "nextPageCursor": ""})

    def _kline(self, query):
        category, symbol = query.get("category", "linear"), query.get("symbol")
        if symbol not in self._instruments[category]:
            return self._answer({}, 10001, "Not supported symbols")
        series = self._klines.get((category, symbol, query.get("interval")))
        if series is None:
            return self._answer({}, 10001, "Invalid period!")
        limit = min(int(query.get("limit", DEFAULT_LIMIT)), MAX_LIMIT)
        rows = series.rows(query.get("start"), query.get("end"), limit, self.wide, self.now_ms())
        return self._answer({"category": category, "symbol": symbol, "list": rows})


class _Series:
    def __init__(self, bars, category):
        self._stamps = bars.index.as_unit("ms").asi8
        self._prices = bars[["open", "high", "low", "close"]].to_numpy()
        # Inverse contracts count volume in dollars and turnover in coins.
        coins, money = bars["volume"].to_numpy(), (bars["volume"] * bars["close"]).to_numpy()
        self._amounts = np.column_stack(
            [money, coins] if category == "inverse" else [coins, money]
        )

    def rows(self, start, end, limit, wide, now_ms):
        last = now_ms if end is None else min(int(end), now_ms)
        low = 0 if start is None else np.searchsorted(self._stamps, int(start))
        high = np.searchsorted(self._stamps, last, side="right")
        earliest = start is not None and (end is None or wide == "earliest")
        chosen = range(low, high)[:limit] if earliest else range(low, high)[-limit:]
        return [self._row(i) for i in reversed(chosen)]

    def _row(self, i):
        numbers = (*self._prices[i].tolist(), *self._amounts[i].tolist())
        return [str(self._stamps[i]), *map(_text, numbers)]


def _text(number):
    """The shortest text that reads back as the same number, without an exponent."""
    text = repr(number)
    if "e" in text:
        return np.format_float_positional(number, trim="-")
    return text.removesuffix(".0")


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


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    exchange: BybitServer

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        exchange = self.server.exchange
        reply = exchange.reply(self.path)
        if reply.stall:
            exchange.wait(reply.stall)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if reply.reset_after is None:
            self.wfile.write(reply.body)
            self.wfile.flush()
        else:
            self.wfile.write(reply.body[: reply.reset_after])
            self._reset()

    def _reset(self):
        self.wfile.flush()
        # A linger of zero seconds makes close() send a reset instead of an orderly end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_):
        pass


def http_status(status, body=b"upstream error", content_type="text/plain"):
    return lambda reply: replace(reply, status=status, body=body, content_type=content_type)


def ret_code(code, message):
    def fault(reply):
        answer = json.loads(reply.body) | {"retCode": code, "retMsg": message, "result": {}}
        return replace(reply, body=json.dumps(answer).encode())

    return fault


def body(text, content_type="application/json"):
    return lambda reply: replace(reply, body=text, content_type=content_type)


def edit(change):
    """Change the answer's JSON in place."""

    def fault(reply):
        answer = json.loads(reply.body)
        change(answer)
        return replace(reply, body=json.dumps(answer).encode())

    return fault


def edit_rows(change):
    """Replace the answer's rows."""
    return edit(lambda answer: answer["result"].update(list=change(answer["result"]["list"])))


def with_cell(field, value):
    """Put a value into the newest row."""

    def change(rows):
        for row in rows[:1]:
            row[field] = value
        return rows

    return edit_rows(change)


def stall(seconds):
    return lambda reply: replace(reply, stall=seconds)


def _forming_bar(answer):
    """The bar that is forming now before the others, as when the exchange ignores the end."""
    rows = answer["result"]["list"]
    if len(rows) > 1:
        newest, step = int(rows[0][0]), int(rows[0][0]) - int(rows[1][0])
        forming = newest + (answer["time"] - newest) // step * step
        rows.insert(0, [str(forming), *rows[0][1:]])


HTML = b"<!DOCTYPE html><html><body>Checking your browser...</body></html>"
BLOCKED = (
    b"<html>403 ERROR: The Amazon CloudFront distribution is configured to block access "
    b"from your country.</html>"
)

# Faults that a client can heal by asking again.
FAULTS = {
    "http_403": http_status(403),
    "http_418": http_status(418),
    "http_429": http_status(429),
    "http_500": http_status(500),
    "http_502": http_status(502, HTML, "text/html"),
    "http_503": http_status(503),
    "http_504": http_status(504),
    "server_timeout": ret_code(10000, "Server Timeout"),
    "clock": ret_code(10002, "invalid request, please check your server timestamp"),
    "rate_limit": ret_code(10006, "Too many visits. Exceeded the API Rate Limit."),
    "server_error": ret_code(10016, "Server error."),
    "address_limit": ret_code(10018, "Exceeded the IP Rate Limit."),
    "protection": ret_code(10429, "System level frequency protection"),
    "truncated": lambda reply: replace(reply, body=reply.body[: math.ceil(len(reply.body) / 2)]),
    "html": body(HTML, "text/html"),
    "empty": body(b""),
    "null": body(b"null"),
    "array": body(b"[]"),
    "object": body(b"{}"),
    "null_result": edit(lambda answer: answer.update(result=None)),
    "null_list": edit(lambda answer: answer["result"].update(list=None)),
    "reset": lambda reply: replace(reply, reset_after=0),
    "reset_in_body": lambda reply: replace(reply, reset_after=len(reply.body) // 2),
    "duplicate_rows": edit_rows(lambda rows: [row for row in rows for _ in range(2)]),
    "unordered_rows": edit_rows(lambda rows: rows[1::2] + rows[::2]),
    "conflicting_rows": edit_rows(lambda rows: [[*r[:5], "0.5", "1"] for r in rows[:1]] + rows),
    "nan": with_cell(2, "NaN"),
    "infinite": with_cell(5, "Infinity"),
    "empty_price": with_cell(4, ""),
    "text_price": with_cell(1, "abc"),
    "null_price": with_cell(1, None),
    "high_below_low": with_cell(2, "0.000001"),
    "negative_price": with_cell(3, "-1"),
    "negative_volume": with_cell(5, "-1"),
    "off_grid": edit_rows(lambda rows: [[str(int(r[0]) + 1), *r[1:]] for r in rows]),
    "short_row": edit_rows(lambda rows: [row[:4] for row in rows]),
    "scalar_row": edit_rows(lambda rows: [1, *rows]),
    "short_page": edit_rows(lambda rows: rows[: len(rows) // 2]),
    "hole": edit_rows(lambda rows: rows[:3] + rows[6:]),
    "no_rows": edit_rows(lambda rows: []),
    "forming_bar": edit(_forming_bar),
    "other_symbol": edit(lambda answer: answer["result"].update(symbol="DOGEUSDT")),
}


def main():
    parser = argparse.ArgumentParser(description="Serve a file of bars as Bybit v5 would.")
    parser.add_argument("bars", help="CSV or Parquet file of bars")
    parser.add_argument("--symbol", default="BTCUSDT", help="Bybit's name (default BTCUSDT)")
    parser.add_argument("--timeframe", default="1h", choices=INTERVALS)
    parser.add_argument("--category", default="linear", choices=["linear", "inverse", "spot"])
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    bars = read_bars(options.bars)
    with BybitServer(port=options.port) as server, contextlib.suppress(KeyboardInterrupt):
        server.add_bars(options.symbol, options.timeframe, bars, category=options.category)
        print(f"{len(bars)} bars of {options.symbol} at {server.url}; Ctrl-C ends", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
