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
        self._lock = threading.Lock()

    def watch(self, adapter: HTTPAdapter) -> None:
        """Take note of each connection that an adapter opens from now on."""
        manager = adapter.poolmanager
        manager.pool_classes_by_scheme = {
            scheme: self._watched(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
        }

    def break_off(self) -> None:
        """End all of them; new ones may be opened."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            sock = connection.sock
            if sock is not None:
                # The method of plain sockets: that of TLS would wait for the other side, or take
                # the state from under the thread that reads.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _watched(self, pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
        known, lock, plain = self._open, self._lock, pool.ConnectionCls

        class Connection(plain):  # type: ignore[valid-type, misc]
            def connect(self) -> None:
                with lock:
                    known.add(self)
                super().connect()

        return type(pool.__name__, (pool,), {"ConnectionCls": Connection})
