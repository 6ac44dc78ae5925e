import threading

import numpy as np
import pandas as pd
import pytest

from datafeeds.bybit_client import BybitClient
from datafeeds.bybit_retry import RetryPolicy
from tests.datafeeds.bybit_server import BybitServer
from tests.datafeeds.random_bars import make_bars


class FakeClock:
    """Time that passes only while somebody sleeps, for each thread by itself."""

    def __init__(self):
        self.waits = []
        self._own = threading.local()

    @property
    def now(self):
        return getattr(self._own, "now", 0.0)

    @now.setter
    def now(self, seconds):
        self._own.now = seconds

    def read(self):
        return self.now

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def retry(clock):
    return RetryPolicy(sleep=clock.sleep, clock=clock.read, draw=np.random.default_rng(0).random)


@pytest.fixture
def serve():
    """Starts servers that end with the test."""
    running = []

    def start(**settings):
        running.append(BybitServer(**settings))
        return running[-1].__enter__()

    yield start
    for server in running:
        server.__exit__()


@pytest.fixture
def connect(retry):
    """Makes clients that are not throttled and do not really wait."""
    clients = []

    def make(server, **settings):
        defaults = {"base_url": server.url, "retry": retry, "throttle": False}
        clients.append(BybitClient(**(defaults | settings)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def hourly(serve):
    """A server with 1,500 hours of BTCUSDT of which the last is still forming."""
    bars = make_bars(1500)
    server = serve(now=bars.index[-1].tz_localize(None) + pd.Timedelta(minutes=20))
    server.add_bars("BTCUSDT", "1h", bars)
    server.bars = bars.iloc[:-1]
    return server
