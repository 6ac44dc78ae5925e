"""HTTP connections that can be broken off from another thread."""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from requests.adapters import HTTPAdapter
    from urllib3.connectionpool import HTTPConnectionPool

__all__ = ["OpenConnections"]


class OpenConnections:
    """Knows the connections of a session, those in use too, which their pool has given away.

    A thread that waits for an answer cannot be told to stop, but its connection can be ended under
    it: it then fails at once, as if the network had.
    """

    def __init__(self) -> None:
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()
        self._opening: weakref.WeakSet[Any] = weakref.WeakSet()
        self._unwanted: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()

    def watch(self, adapter: HTTPAdapter) -> None:
        """Take note of each connection that an adapter opens from now on."""
        manager = adapter.poolmanager
        manager.pool_classes_by_scheme = {
            scheme: self._watched(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
        }

    def break_off(self) -> None:
        """End all of them, those that are being opened as soon as they are; new ones may be."""
        with self._lock:
            connections = list(self._open)
            self._unwanted.update(self._opening)
        for connection in connections:
            _end(connection)

    def _began(self, connection: Any) -> None:  # noqa: ANN401
        with self._lock:
            self._opening.add(connection)

    def _opened(self, connection: Any) -> None:  # noqa: ANN401
        with self._lock:
            self._opening.discard(connection)
            self._open.add(connection)
            unwanted = connection in self._unwanted
            self._unwanted.discard(connection)
        if unwanted:
            _end(connection)

    def _watched(self, pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
        connections, plain = self, pool.ConnectionCls

        class Connection(plain):  # type: ignore[valid-type, misc]
            def connect(self) -> None:
                connections._began(self)
                try:
                    super().connect()
                finally:
                    connections._opened(self)

        return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


def _end(connection: Any) -> None:  # noqa: ANN401
    """Let the thread that uses a connection find it closed."""
    sock = connection.sock
    if sock is not None:
        # The method of plain sockets: that of TLS would wait for the other side, or take the state
        # from under the thread that reads.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
