"""How fast a fetch is against the rate limit, and what memory a long one takes.

python -m tests.datafeeds.load_study rate --latency 0.25
python -m tests.datafeeds.load_study memory --bars 1000000
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import pandas as pd

from datafeeds.bybit_client import BybitClient
from datafeeds.bybit_history import fetch_histories
from datafeeds.ohlcv_store import OhlcvStore
from tests.datafeeds.bybit_server import BybitServer
from tests.datafeeds.random_bars import make_bars

SYMBOL = "BTC/USDT:USDT"
LIMIT = 10.0  # requests a second, the client's default


def fetch_all(url, folder, since, timeframe, throttle, facts):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with BybitClient(url, throttle=throttle) as client:
        series = client.series(SYMBOL, timeframe=timeframe)
        begun = time.monotonic()
        [fetched] = fetch_histories(client, OhlcvStore(folder), [series], since)
        seconds = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts.put({"seconds": seconds, "rows": fetched.rows, "before": before, "peak": peak})


def measure(num_bars, timeframe, latency, *, throttle):
    """Fetch so many bars in a process of its own; seconds, rows, requests, memory in kB."""
    bars = make_bars(num_bars + 1, {"1h": "h", "1m": "min"}[timeframe], "2018-05-15", step=0.0005)
    context = multiprocessing.get_context("spawn")
    facts = context.Queue()
    now = bars.index[-1].tz_localize(None)
    with BybitServer(now=now, latency=latency) as server, tempfile.TemporaryDirectory() as folder:
        server.add_bars("BTCUSDT", timeframe, bars)
        since = pd.Timestamp(bars.index[0])
        args = (server.url, Path(folder), since, timeframe, throttle, facts)
        process = context.Process(target=fetch_all, args=args)
        process.start()
        found = facts.get(timeout=1200)
        process.join()
        return found | {"requests": server.count("kline") + server.count("time")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["rate", "memory"])
    parser.add_argument("--bars", type=int)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    options = parser.parse_args()
    if options.what == "rate":
        bars = options.bars or 33_259
        facts = measure(bars, "1h", options.latency, throttle=True)
        least = -(-bars // 1000)
        share = least / LIMIT / facts["seconds"]
        print(
            f"{facts['rows']} bars, latency {options.latency} s: {facts['requests']} requests "
            f"in {facts['seconds']:.2f} s; {least} pages at {LIMIT:.0f} a second: {share:.1%} of "
            "what the limit permits"
        )
        return
    facts = measure(options.bars or 1_000_000, "1m", options.latency, throttle=False)
    print(
        f"{facts['rows']} bars in {facts['seconds']:.0f} s, {facts['requests']} requests; memory "
        f"{facts['before'] / 1024:.0f} MB before, at most {facts['peak'] / 1024:.0f} MB"
    )


if __name__ == "__main__":
    main()
