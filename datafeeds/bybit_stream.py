"""Bybit's public websocket streams: one connection, many topics, in a thread.

The only module that imports websockets. ccxt.pro's ``watch_ohlcv`` drops the flag ``confirm``, by
which a bar is known to be closed, and hides reconnections, after which bars are missing; so the
public websocket is spoken to here directly.
"""

from __future__ import annotations

import json
import threading
from enum import Enum
from typing import TYPE_CHECKING, Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from datafeeds.bybit_clock import ExchangeClock
from datafeeds.bybit_retry import RetryPolicy
from glow_bt.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from websockets.sync.client import ClientConnection

__all__ = ["BybitStream", "StreamStatus"]

_PING_EVERY = 20.0  # Bybit's advice
_SILENT_AFTER = 30.0  # a pong is overdue by 10 s then
_ACKNOWLEDGED_AFTER = 10.0
_PROVEN_AFTER = 60.0  # a connection that lived so long ends the back-off
_OPEN_TIMEOUT = 10.0
_CLOSE_TIMEOUT = 0.3
_JOIN_TIMEOUT = 0.8
_LARGEST_MESSAGE = 2**23
_KNOWN_ALREADY = "already subscribed"
# What Bybit says of a topic that it does not serve; any other failure may pass.
_NOT_SERVED = ("not found", "invalid", "not exist", "not support")


class StreamStatus(Enum):
    """What became of a stream's connection.

    Attributes:
        UP: connected, and every topic is subscribed.
        DOWN: the connection was lost or could not be made; another is tried after a while.
        REFUSED: the exchange does not serve a topic; nothing more is tried.
    """

    UP = "up"
    DOWN = "down"
    REFUSED = "refused"


class BybitStream:
    """Hands over what Bybit publishes on some topics, for as long as it is not stopped.

    A connection that breaks, that says nothing for 30 s though it was pinged, that does not
    acknowledge a subscription or fails to make it, or that sends what is no JSON object is given
    up, and a new one is made after a capped, jittered wait. Messages may be lost between the
    two; a reader that needs every one has to notice the gap (`StreamStatus.DOWN`, sequence
    numbers).

    Both callbacks run in the stream's thread. They must return soon and not raise.

    Args:
        url: such as ``wss://stream.bybit.com/v5/public/linear``
            (`datafeeds.bybit_topics.stream_address`).
        topics: such as ``kline.60.BTCUSDT``, at least one.
        on_message: called with the topic and the message, a parsed dict, in order of arrival.
        on_status: called with what became of the connection and why.
        clock: tells how seconds pass.
        retry: gives the waits between connections (`RetryPolicy.delay`); a stream never gives up.
        quiet_after: seconds after which a topic without any message counts as a lost connection;
            None where a topic may well be quiet.

    Raises:
        ConfigError: if there is no topic.
    """

    def __init__(
        self,
        url: str,
        topics: Iterable[str],
        on_message: Callable[[str, dict[str, Any]], object],
        on_status: Callable[[StreamStatus, str], object],
        *,
        clock: ExchangeClock | None = None,
        retry: RetryPolicy | None = None,
        quiet_after: float | None = None,
    ) -> None:
        self.url = url
        self.topics = tuple(dict.fromkeys(topics))
        if not self.topics:
            raise ConfigError("expected at least one topic to subscribe, found none")
        self._on_message = on_message
        self._on_status = on_status
        self._clock = clock or ExchangeClock()
        self._retry = retry or RetryPolicy(first_delay=1.0, max_delay=30.0)
        self._quiet_after = quiet_after
        self._stopping = threading.Event()
        self._connection: ClientConnection | None = None
        self._thread = threading.Thread(target=self._run, name=f"stream {url}", daemon=True)

    def start(self) -> None:
        """Connect in a thread of its own. A stream starts once."""
        self._thread.start()

    def stop(self) -> None:
        """Close the connection and join the thread.

        A thread that is inside the operating system for longer than 0.8 s (looking a name up,
        connecting to a host that does not answer) is not waited for: it ends when it is back,
        without another callback.
        """
        self._stopping.set()
        connection = self._connection
        if connection is not None:
            connection.close_socket()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_TIMEOUT)

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = self._clock.seconds()
            try:
                self._connect()
            except _Refused as error:
                self._tell(StreamStatus.REFUSED, str(error))
                return
            except (_Lost, OSError, WebSocketException) as error:
                self._tell(StreamStatus.DOWN, _reason(error))
            lived = self._clock.seconds() - began
            failures = 1 if lived > _PROVEN_AFTER else failures + 1
            self._stopping.wait(self._clock.local(self._retry.delay(failures)))

    def _tell(self, status: StreamStatus, reason: str) -> None:
        if not self._stopping.is_set():
            self._on_status(status, reason)

    def _connect(self) -> None:
        with connect(
            self.url,
            open_timeout=_OPEN_TIMEOUT,
            close_timeout=_CLOSE_TIMEOUT,
            ping_interval=None,  # Bybit answers pings of its own kind
            max_size=_LARGEST_MESSAGE,
        ) as connection:
            self._connection = connection
            try:
                self._listen(connection)
            finally:
                self._connection = None

    def _listen(self, connection: ClientConnection) -> None:
        watch = _Watch(self.topics, self._clock, self._quiet_after)
        for topic in self.topics:
            # One request each: a refusal then names the topic.
            connection.send(_request("subscribe", topic, [topic]))
        while not self._stopping.is_set():
            frame = _received(connection, self._clock.local(watch.wait()))
            if frame is not None and not self._stopping.is_set():
                self._read(frame, watch)
            watch.check()
            if watch.ping_is_due():
                connection.send(_request("ping", "ping"))

    def _read(self, frame: str | bytes, watch: _Watch) -> None:
        message = _parsed(frame)
        topic = message.get("topic")
        if isinstance(topic, str):
            watch.heard(topic)
            if topic in watch.topics:
                self._on_message(topic, message)
            return
        watch.heard()
        if message.get("op") == "subscribe" and watch.acknowledge(_acknowledged(message)):
            self._tell(StreamStatus.UP, f"subscribed to {', '.join(self.topics)}")


class _Lost(Exception):
    """The connection is of no use any more."""


class _Refused(Exception):
    """The exchange does not serve a topic."""


class _Watch:
    """When something was last heard of a connection, and what it still owes."""

    def __init__(
        self, topics: tuple[str, ...], clock: ExchangeClock, quiet_after: float | None
    ) -> None:
        now = clock.seconds()
        self.topics = dict.fromkeys(topics, now)
        self._clock = clock
        self._quiet_after = quiet_after
        self._owed = set(topics)
        self._opened = self._heard = self._pinged = now

    def heard(self, topic: str | None = None) -> None:
        self._heard = self._clock.seconds()
        if topic in self.topics:
            self.topics[topic] = self._heard

    def acknowledge(self, topic: str | None) -> bool:
        """Note an acknowledgement: of one topic, or of the one that is owed."""
        before = len(self._owed)
        if topic in self._owed:
            self._owed.discard(topic)
        elif topic not in self.topics and self._owed:
            self._owed.pop()
        return before > 0 and not self._owed

    def wait(self) -> float:
        """Seconds until something has to be looked after."""
        return min(self._pinged + _PING_EVERY, self._limit()[0]) - self._clock.seconds()

    def check(self) -> None:
        limit, what = self._limit()
        if self._clock.seconds() > limit:
            raise _Lost(what)

    def ping_is_due(self) -> bool:
        now = self._clock.seconds()
        due = now - self._pinged >= _PING_EVERY
        if due:
            self._pinged = now
        return due

    def _limit(self) -> tuple[float, str]:
        """When the connection counts as lost unless something arrives, and why."""
        patience = self._clock.patience
        silent = f"nothing was heard for {_SILENT_AFTER:.0f} s"
        limits = [(self._heard + patience(_SILENT_AFTER), silent)]
        if self._owed:
            what = f"no answer to the subscription of {', '.join(sorted(self._owed))}"
            limits.append((self._opened + patience(_ACKNOWLEDGED_AFTER), what))
        if self._quiet_after is not None:
            topic, heard = min(self.topics.items(), key=lambda item: item[1])
            what = f"no message of {topic} for {self._quiet_after:.0f} s"
            limits.append((heard + patience(self._quiet_after), what))
        return min(limits)


def _request(operation: str, request_id: str, arguments: list[str] | None = None) -> str:
    request: dict[str, object] = {"req_id": request_id, "op": operation}
    return json.dumps(request if arguments is None else request | {"args": arguments})


def _received(connection: ClientConnection, timeout: float) -> str | bytes | None:
    try:
        return connection.recv(timeout=timeout)
    except TimeoutError:
        return None


def _parsed(frame: str | bytes) -> dict[str, Any]:
    try:
        message = json.loads(frame)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise _Lost(f"expected a JSON object, found {str(frame[:60])!r}")
    return message


def _acknowledged(message: dict[str, Any]) -> str | None:
    """The topic that an answer to a subscription is about, if it says so."""
    text, topic = str(message.get("ret_msg", "")), message.get("req_id")
    if message.get("success") is not True and _KNOWN_ALREADY not in text:
        final = any(words in text.lower() for words in _NOT_SERVED)
        raise (_Refused if final else _Lost)(
            f"Bybit refused to stream {topic or 'a topic'}: {text or 'no reason given'}"
        )
    return topic if isinstance(topic, str) else None


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if error.__cause__ is None else f"{text} ({_reason(error.__cause__)})"
