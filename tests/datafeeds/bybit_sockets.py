"""A loopback websocket server that speaks Bybit v5's public streams, with faults.

In a test::

    with BybitSockets(now=server.now_ms, pace=3000) as sockets:
        sockets.add_bars("BTCUSDT", "1m", bars)
        sockets.script([(at_ms, drop), (later_ms, silence(90))])
        stream = BybitStream(f"{sockets.url}/v5/public/linear", ["kline.1.BTCUSDT"], ...)

Messages have the shapes that Bybit's were recorded with. Bars are published while they form,
with ``confirm: false``, and once with ``confirm: true`` after they closed by the clock `now`.
Anything else is published by hand: `publish`, and `greet` for what a new subscriber gets.
"""

import json
import random
import socket
import struct
import threading
import time
from collections import Counter, defaultdict
from http import HTTPStatus

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from tests.datafeeds.bybit_server import INTERVALS

PATHS = {f"/v5/public/{category}": category for category in ("linear", "inverse", "spot")}
IDLE = 0.05  # seconds between looks at the clock when nothing is due


class BybitSockets:
    """Streams bars on 127.0.0.1 until the block is left.

    Args:
        now: the exchange's clock, epoch milliseconds; None takes the computer's.
        pace: how many of its seconds pass in one of ours.
        noise: chances by kind of fault (a key of `NOISE`) that befalls a kline message.
        forming: how many forming updates a bar gets.
        lag_ms: how long after its close a bar is confirmed.
        seed: of the noise.
    """

    def __init__(self, *, now=None, pace=1.0, port=0, noise=None, forming=2, lag_ms=200, seed=0):
        self.now_ms = now or (lambda: time.time_ns() // 1_000_000)
        self.pace = pace
        self.pings = 0
        self.subscribed = []  # (category, topic) in order of arrival
        self.opened = 0  # connections that were accepted
        self.refused = set()  # topics that are answered with a refusal
        self.refusal = "error:handler not found,topic:{topic}"
        self.faults = Counter()
        self.mute_pings = False
        self.acknowledge = True
        self.noise = dict(noise or {})
        self._forming, self._lag_ms = forming, lag_ms
        self._random = random.Random(seed)
        self._klines = {}
        self._greetings = {}
        self._script = []
        self._down_until = self._silent_until = 0
        self._subscribers = defaultdict(set)  # (category, topic) -> connections
        self._late = []
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._server = serve(
            self._serve,
            "127.0.0.1",
            port,
            process_request=self._welcome,
            ping_interval=None,
            close_timeout=0.2,
            compression=None,
        )
        self._threads = [
            threading.Thread(target=self._server.serve_forever),
            threading.Thread(target=self._publish_bars),
        ]

    @property
    def url(self):
        host, port = self._server.socket.getsockname()
        return f"ws://{host}:{port}"

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join()

    def add_bars(self, symbol, timeframe, bars, *, category="linear"):
        topic = f"kline.{INTERVALS[timeframe]}.{symbol}"
        with self._lock:
            self._klines[category, topic] = _Klines(bars, topic, category, self.now_ms())

    def script(self, faults):
        """Let something happen at moments by `now`: pairs of milliseconds and a fault."""
        with self._lock:
            self._script = sorted([*self._script, *faults], key=lambda pair: pair[0])

    def publish(self, topic, message, *, category="linear"):
        """Send a message, a dict or text, to all who subscribed its topic."""
        text = message if isinstance(message, str | bytes) else json.dumps(message)
        with self._lock:
            connections = list(self._subscribers[category, topic])
        if self.now_ms() < self._silent_until:
            return
        for connection in connections:
            try:
                connection.send(text)
            except ConnectionClosed:
                self._forget(connection)

    def greet(self, topic, messages, *, category="linear"):
        """Send what this callable returns, a list of messages, to each new subscriber."""
        self._greetings[category, topic] = messages

    def drop(self, *, reset=True):
        """Break every connection: with a reset, or with an orderly end."""
        for connection in self._server.connections:
            if reset:
                linger = struct.pack("ii", 1, 0)
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                connection.close_socket()
            else:
                connection.close(1012, "service restart")

    def go_down(self, seconds):
        """Break every connection and refuse new ones for a while."""
        self._down_until = self.now_ms() + round(seconds * 1000)
        self.drop()

    def fall_silent(self, seconds):
        """Keep connections and say nothing on them for a while, not even pongs."""
        self._silent_until = self.now_ms() + round(seconds * 1000)

    def _welcome(self, connection, request):
        if request.path not in PATHS:
            return connection.respond(HTTPStatus.NOT_FOUND, "no such path\n")
        if self.now_ms() < self._down_until:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "down\n")
        return None

    def _serve(self, connection):
        self.opened += 1
        category = PATHS[connection.request.path]
        try:
            for text in connection:
                if self.now_ms() >= self._silent_until:
                    self._answer(connection, category, json.loads(text))
        except (ConnectionClosed, OSError):
            pass
        finally:
            self._forget(connection)

    def _answer(self, connection, category, request):
        answer = {"success": True, "ret_msg": "", "conn_id": "c0", "op": request["op"]}
        answer["req_id"] = request.get("req_id", "")
        if request["op"] == "ping":
            self.pings += 1
            if not self.mute_pings:
                connection.send(json.dumps(answer | {"ret_msg": "pong"}))
            return
        for topic in request["args"]:
            self.subscribed.append((category, topic))
            if topic in self.refused or not self._has(category, topic):
                text = self.refusal.format(topic=topic)
                connection.send(json.dumps(answer | {"success": False, "ret_msg": text}))
                return
        if not self.acknowledge:
            return
        # Under the lock, so that what is published after the answer reaches the subscriber.
        with self._lock:
            connection.send(json.dumps(answer))
            for topic in request["args"]:
                greeting = self._greetings.get((category, topic), list)
                for message in greeting():
                    connection.send(json.dumps(message))
                self._subscribers[category, topic].add(connection)

    def _has(self, category, topic):
        return (category, topic) in self._klines or not topic.startswith("kline.")

    def _forget(self, connection):
        with self._lock:
            for connections in self._subscribers.values():
                connections.discard(connection)

    def _publish_bars(self):
        while not self._stopping.is_set():
            now = self.now_ms()
            with self._lock:
                while self._script and self._script[0][0] <= now:
                    fault = self._script.pop(0)[1]
                    self.faults["scripted"] += 1
                    fault(self)
                series = list(self._klines.items())
            due = [self._script[0][0]] if self._script else []
            for (category, topic), klines in series:
                for message in klines.due(now, self._forming, self._lag_ms):
                    self._send_kline(category, topic, message)
                due.append(klines.next_ms(self._forming, self._lag_ms))
            wait = (min(due, default=now + 10**9) - self.now_ms()) / 1000.0 / self.pace
            self._stopping.wait(min(max(wait, 0.0002), IDLE))

    def _send_kline(self, category, topic, message):
        kind = next(
            (k for k, chance in self.noise.items() if self._random.random() < chance), None
        )
        late, self._late = self._late, []
        if kind == "late":
            self._late = [(category, topic, json.dumps(message))]
            messages = []
        else:
            messages = NOISE[kind](message) if kind else [json.dumps(message)]
        if kind:
            self.faults[kind] += 1
        for text in messages:
            self.publish(topic, text, category=category)
        for held_category, held_topic, text in late:
            self.publish(held_topic, text, category=held_category)


class _Klines:
    """Bars of one topic and how far they have been published."""

    def __init__(self, bars, topic, category, now):
        self._stamps = bars.index.as_unit("ms").asi8
        self._step = int(self._stamps[1] - self._stamps[0])
        prices = bars[["open", "high", "low", "close"]].to_numpy()
        coins, money = bars["volume"].to_numpy(), (bars["volume"] * bars["close"]).to_numpy()
        amounts = [money, coins] if category == "inverse" else [coins, money]
        self._numbers = np.column_stack([prices, *amounts]).tolist()
        self._topic, self._interval = topic, topic.split(".")[1]
        # Begin with the bar that is forming: what closed before is past.
        self._bar = max(int(np.searchsorted(self._stamps, now, side="right")) - 1, 0)
        self._part = 0

    def _moment(self, forming, lag_ms):
        """When the next message of the present bar is due."""
        start = int(self._stamps[self._bar])
        if self._part == forming:
            return start + self._step + lag_ms
        return start + self._step * (self._part + 1) // (forming + 1)

    def next_ms(self, forming, lag_ms):
        if self._bar == len(self._stamps):
            return 10**15
        return self._moment(forming, lag_ms)

    def due(self, now, forming, lag_ms):
        while self._bar < len(self._stamps) and self._moment(forming, lag_ms) <= now:
            closed = self._part == forming
            yield self._message(now, closed)
            self._bar, self._part = (self._bar + 1, 0) if closed else (self._bar, self._part + 1)

    def _message(self, now, closed):
        start = int(self._stamps[self._bar])
        open_, high, low, close, volume, turnover = self._numbers[self._bar]
        if not closed:
            now = min(now, start + self._step - 1)  # it was made then, however late it is sent
            # A forming bar differs from the final one, so that taking it for final shows.
            close, volume, turnover = open_, volume / 2, turnover / 2
            high = low = open_
        row = {"start": start, "end": start + self._step - 1, "interval": self._interval}
        numbers = {"open": open_, "close": close, "high": high, "low": low}
        numbers |= {"volume": volume, "turnover": turnover}
        row |= {name: _text(number) for name, number in numbers.items()}
        row |= {"confirm": closed, "timestamp": min(now, start + self._step - 1)}
        return {"topic": self._topic, "data": [row], "ts": now, "type": "snapshot"}


def _text(number):
    """The shortest text that reads back as the same number, without an exponent."""
    return np.format_float_positional(number, trim="-")


def _edited(**cells):
    def fault(message):
        return [json.dumps(message | {"data": [row | cells for row in message["data"]]})]

    return fault


NOISE = {
    "lost": lambda message: [],
    "double": lambda message: [json.dumps(message)] * 2,
    "late": None,  # held back until the next message has been sent
    "truncated": lambda message: [json.dumps(message)[:40]],
    "no_data": lambda message: [json.dumps(message | {"data": None})],
    "no_stamp": lambda message: [json.dumps({k: v for k, v in message.items() if k != "ts"})],
    "nan": _edited(close="NaN"),
    "text": _edited(high="abc"),
    "null": _edited(volume=None),
    "early": _edited(confirm=True),  # forming bars too; final ones are final anyway
    "off_grid": _edited(start=1672324800001),
    "early_far": lambda message: _edited(confirm=True)(message | {"ts": 4102444800000}),
    "far_stamp": lambda message: [json.dumps(message | {"ts": 4102444800000})],
}
"""What may befall a kline message: the texts that are sent in its place, by kind."""


def drop(server):
    server.drop()


def orderly_drop(server):
    server.drop(reset=False)


def down(seconds):
    return lambda server: server.go_down(seconds)


def silence(seconds):
    return lambda server: server.fall_silent(seconds)
