"""Fetches that are killed at random instants and called again: is anything lost or asked twice?

    python -m tests.datafeeds.kill_study --kills 200

Each trial fetches 20,000 bars into a store of its own in a process of its own, which SIGKILL ends
at a random instant; another goes on. The store must then equal, byte for byte, that of a fetch
that nobody killed, and no page may have been asked for more than twice.
"""

import argparse
import collections
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np

from datafeeds.bybit_client import BybitClient
from datafeeds.bybit_history import fetch_histories
from datafeeds.ohlcv_store import OhlcvStore
from tests.datafeeds.bybit_server import BybitServer
from tests.datafeeds.random_bars import make_bars
from tests.datafeeds.store_trees import tree_of

SYMBOL = "BTC/USDT:USDT"
# Seconds before each answer: a fetch lasts long enough to be killed anywhere in it.
LATENCY = 0.02


def run_trials(kills, num_bars=20_000, seed=0):
    """Kill so many fetches once; return facts on each trial."""
    rng = np.random.default_rng(seed)
    bars = make_bars(num_bars + 1, "min")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    now = bars.index[-1].tz_localize(None)
    with (
        BybitServer(now=now, latency=LATENCY) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        server.add_bars("BTCUSDT", "1m", bars)
        root = Path(folder)
        begun = time.monotonic()
        fetch_minutes(server.url, root / "clean", bars.index[0])
        seconds = time.monotonic() - begun
        clean = tree_of(root / "clean")
        return [
            run_trial(context, server, root / str(trial), bars.index[0], clean, rng, seconds)
            for trial in range(kills)
        ]


def run_trial(context, server, folder, since, clean, rng, seconds):
    server.requests.clear()
    started = context.Event()
    killed = context.Process(target=fetch_minutes, args=(server.url, folder, since, started))
    killed.start()
    if not started.wait(60):
        raise RuntimeError("expected a process to start within a minute")
    instant = rng.uniform(0.0, 1.1 * seconds)
    killed.join(instant)
    was_running = killed.is_alive()
    killed.kill()
    killed.join()
    there = len(server.requests)
    again = context.Process(target=fetch_minutes, args=(server.url, folder, since))
    again.start()
    again.join(60)
    asked = collections.Counter(
        (query.get("start"), query.get("end"))
        for endpoint, query in server.requests
        if endpoint == "kline"
    )
    return {
        "killed": was_running,
        "instant": instant / seconds,
        "requests_before": there,
        "finished": again.exitcode == 0,
        "equal": tree_of(folder) == clean,
        "most_asked": max(asked.values()),
        "asked_again": sum(asked.values()) - len(asked),
    }


def fetch_minutes(url, folder, since, started=None):
    with BybitClient(url, throttle=False) as client:
        series = client.series(SYMBOL, timeframe="1m")
        if started is not None:
            started.set()
        fetch_histories(client, OhlcvStore(folder), [series], since)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begun = time.monotonic()
    trials = run_trials(options.kills, seed=options.seed)
    bad = [i for i, t in enumerate(trials) if not (t["finished"] and t["equal"])]
    print(f"{len(trials)} fetches of 20,000 bars, {time.monotonic() - begun:.0f} s")
    print(f"killed before they were done: {sum(t['killed'] for t in trials)}")
    print(f"unequal or unfinished afterwards: {bad or 'none'}")
    print(f"most often that a page was asked for: {max(t['most_asked'] for t in trials)}")
    print(f"pages asked for again a kill: {np.mean([t['asked_again'] for t in trials]):.1f}")
    raise SystemExit(bool(bad) or max(t["most_asked"] for t in trials) > 2)


if __name__ == "__main__":
    main()
