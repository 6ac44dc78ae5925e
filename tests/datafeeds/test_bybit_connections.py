import socket
import sys
import threading
import time

import pytest
import requests

from datafeeds.bybit_connections import OpenConnections


@pytest.fixture
def silent():
    """The address of a server that takes requests and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def session():
    with requests.Session() as session:
        session.trust_env = False
        session.connections = OpenConnections()
        for adapter in session.adapters.values():
            session.connections.watch(adapter)
        yield session


def test_a_request_that_waits_for_its_answer_fails_at_once(silent, session):
    timer = threading.Timer(0.1, session.connections.break_off)
    timer.start()
    started = time.monotonic()
    with pytest.raises(requests.ConnectionError):
        session.get(silent, timeout=30.0)
    timer.join()
    assert time.monotonic() - started < 5.0


def test_new_connections_are_opened_afterwards(hourly, session):
    def ask():
        return session.get(f"{hourly.url}/v5/market/time", timeout=5.0).json()["retCode"]

    assert ask() == 0
    session.connections.break_off()
    session.connections.break_off()
    assert ask() == 0


def test_connections_may_be_opened_while_others_are_broken_off():
    interval = sys.getswitchinterval()

    class Plain:
        sock = None

        def connect(self):
            pass

    class Pool:
        ConnectionCls = Plain

    known, over = OpenConnections(), threading.Event()
    opened = known._watched(Pool).ConnectionCls

    def keep_opening():
        while not over.is_set():
            some = [opened() for _ in range(200)]
            for connection in some:
                connection.connect()

    threads = [threading.Thread(target=keep_opening) for _ in range(2)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for _ in range(2000):
            known.break_off()
    finally:
        sys.setswitchinterval(interval)
        over.set()
        for thread in threads:
            thread.join()
