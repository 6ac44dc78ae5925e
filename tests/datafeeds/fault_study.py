"""Fetches under random schedules of faults: is the store what it is without them?

    python -m tests.datafeeds.fault_study --schedules 1000

Each schedule is a seed: bars with holes of their own, a span that may begin before the listing,
one of the two readings of spans wider than the limit, and faults of every kind, some of them in
long bursts. A fetch that ends in an error is called again, as its message says; so is one that
tells of lacking bars, or of none up to the present, until a call finds nothing new. Then the
store must equal, byte for byte, that of a fetch without faults.
"""

import argparse
import collections
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from datafeeds.bybit_client import BybitClient
from datafeeds.bybit_history import fetch_histories
from datafeeds.bybit_retry import RetryPolicy
from datafeeds.ohlcv_store import OhlcvStore
from glow_bt.errors import FeedError
from tests.datafeeds.bybit_faults import FAULTS, stall
from tests.datafeeds.bybit_server import BybitServer
from tests.datafeeds.random_bars import make_bars
from tests.datafeeds.store_trees import tree_of

SYMBOL = "BTC/USDT:USDT"
ENDPOINTS = ("kline", "funding/history", "open-interest", "time", "instruments-info")
KLINE_ONLY = {"conflicting_rows", "off_grid"}
TIMEOUT = 0.25
CALLS_AT_MOST = 60


class FakeClock:
    """Time that passes only while somebody sleeps, for the waits between questions."""

    def __init__(self):
        self.now = 0.0

    def read(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def run_schedule(seed, root):
    """Fetch with and without faults; return facts, among them whether the stores are equal."""
    rng = np.random.default_rng(seed)
    bars = make_bars(int(rng.integers(300, 4200)), seed=seed)
    holes = rng.choice(len(bars) - 2, size=rng.integers(0, 12), replace=False) + 1
    bars = bars.drop(bars.index[holes])
    now = bars.index[-1].tz_localize(None) + pd.Timedelta(seconds=int(rng.integers(1, 3600)))
    with BybitServer(now=now, wide=["latest", "earliest"][seed % 2]) as server:
        server.add_bars("BTCUSDT", "1h", bars)
        since = bars.index[0] + pd.Timedelta(hours=int(rng.integers(-3000, 100)))
        clean, faulted = root / "clean", root / "faulted"
        fetch(server, clean, since, seed)
        server.requests.clear()
        names = script_faults(server, rng)
        errors, calls = collections.Counter(), 0
        while calls < CALLS_AT_MOST:
            calls += 1
            try:
                [bars_told] = fetch(server, faulted, since, seed + calls)
            except FeedError as error:
                errors[type(error).__name__] += 1
                continue
            if not (bars_told.lacking or bars_told.after) or not bars_told.new:
                break
        return {
            "equal": tree_of(clean) == tree_of(faulted),
            "calls": calls,
            "errors": errors,
            "faults": names,
            "requests": len(server.requests),
        }


def fetch(server, folder, since, seed):
    clock = FakeClock()
    retry = RetryPolicy(
        sleep=clock.sleep, clock=clock.read, draw=np.random.default_rng(seed).random
    )
    with BybitClient(server.url, retry=retry, timeout=TIMEOUT, throttle=False) as client:
        return fetch_histories(client, OhlcvStore(folder), [client.series(SYMBOL)], since)


def script_faults(server, rng):
    """Let answers go wrong at random; return how often each fault was drawn."""
    drawn = collections.Counter()
    rate = rng.choice([0.05, 0.2, 0.5, 0.9])
    for endpoint, length in (("kline", 80), ("time", 4), ("instruments-info", 4)):
        fitting = [
            name for name in FAULTS if endpoint == "kline" or name.startswith(("http", "ret"))
        ]
        faults = []
        while len(faults) < length:
            if rng.random() > rate:
                faults.append(None)
                continue
            name = rng.choice(fitting)
            burst = int(rng.choice([1, 1, 2, 3, 9]))
            drawn[name] += burst
            faults += [FAULTS[name]] * burst
        if rng.random() < 0.2:
            faults[int(rng.integers(len(faults)))] = stall(4 * TIMEOUT)
            drawn["stall"] += 1
        server.script(endpoint, faults)
    return drawn


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    options = parser.parse_args()
    started = time.monotonic()
    unequal, errors, faults = [], collections.Counter(), collections.Counter()
    calls = requests = stopped = 0
    for seed in range(options.first, options.first + options.schedules):
        with tempfile.TemporaryDirectory() as folder:
            facts = run_schedule(seed, Path(folder))
        if not facts["equal"]:
            unequal.append(seed)
        stopped += bool(facts["errors"])
        errors += facts["errors"]
        faults += facts["faults"]
        calls += facts["calls"]
        requests += facts["requests"]
    print(
        f"{options.schedules} schedules, {sum(faults.values())} faults of {len(faults)} kinds, "
        f"{requests} requests, {time.monotonic() - started:.0f} s"
    )
    print(f"{stopped} schedules stopped with an error and were called again ({calls} calls)")
    print("errors:", dict(errors.most_common()))
    print("unequal stores:", unequal or "none")
    raise SystemExit(bool(unequal))


if __name__ == "__main__":
    main()
