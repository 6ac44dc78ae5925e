"""A day of live bars in half a minute, with everything that goes wrong in a year.

A loopback exchange publishes bars while its clock runs fast. Connections break, fall silent and
stay down; messages are lost, doubled, late and damaged; answers fail; the local wall clock is set
and the machine sleeps. A strategy in a real Cerebro keeps what it is shown and when. Every closed
bar must come once, in order, with the server's values, and not before its close::

    python -m tests.datafeeds.live_study --hours 24 --drops 50

prints what was found for both transports as JSON.
"""

import argparse
import json
import random
import time

import numpy as np

from tests.datafeeds.bybit_faults import FAULTS
from tests.datafeeds.bybit_sockets import down, drop, orderly_drop, silence
from tests.datafeeds.live_exchange import COLUMNS, LiveExchange, live_threads
from tests.datafeeds.random_bars import make_bars

MINUTE_MS = 60_000
HISTORY = 30
NOISE = {
    "lost": 0.02, "double": 0.02, "late": 0.02, "no_data": 0.01, "no_stamp": 0.01, "nan": 0.01,
    "text": 0.01, "null": 0.01, "early": 0.02, "off_grid": 0.01, "far_stamp": 0.01,
    "early_far": 0.01, "truncated": 0.002,
}  # fmt: skip
ANSWERS = (
    "http_503", "server_timeout", "rate_limit", "truncated", "html", "null_list", "reset",
    "duplicate_rows", "unordered_rows", "nan", "short_page", "no_rows", "forming_bar",
)  # fmt: skip


def run_study(*, hours, drops, jumps=2, websocket=True, pace=3000.0, seed=0, faulty_answers=0.05):
    """Run one day, and return what was found.

    Raises:
        AssertionError: if a bar is missing, double, early, unordered or differs.
    """
    rng = random.Random(seed)
    count = HISTORY + round(hours * 60)
    bars = make_bars(count + 30, "min", seed=seed)
    stamps = bars.index.as_unit("ms").asi8
    first_ms, last_ms = int(stamps[HISTORY]), int(stamps[count - 30])
    noise = NOISE if websocket else {}
    exchange = LiveExchange(bars, HISTORY, pace=pace, noise=noise, seed=seed)
    fast, server, sockets = exchange.time, exchange.server, exchange.sockets
    answers = (rng.choice(ANSWERS) if rng.random() < faulty_answers else None
               for _ in range(10 * count))  # fmt: skip
    server.script("kline", [FAULTS.get(name) for name in answers])
    breaks = [*(_breaks(rng) if websocket else []), lambda: _outage(rng, server)]
    moments = [rng.randint(first_ms, last_ms) for _ in range(drops)]
    faults = [(moment, rng.choice(breaks)()) for moment in moments]
    faults += _jumps(rng, fast, first_ms, last_ms, jumps)
    with exchange, fast.wall_clock():
        began, processor = time.monotonic(), time.process_time()
        feed = exchange.feed(last=count - 1, websocket=websocket)
        # A feed that finds no exchange at its start gives up, so it has one until it is live.
        strategy = exchange.run(feed, when_live=lambda: sockets.script(faults))
        elapsed, processor = time.monotonic() - began, time.process_time() - processor
        assert not live_threads()
    _assert_all(strategy, bars.iloc[:count])
    closes = np.array([stamp + MINUTE_MS for stamp in stamps[HISTORY:count]])
    lags = (np.array(strategy.seen_ms[HISTORY:]) - closes) / 1000.0
    return {
        "transport": "websocket" if websocket else "polling",
        "hours": hours, "bars": len(strategy.rows), "pace": pace, "seed": seed,
        "drops": drops, "clock_jumps": jumps, "faults": dict(sockets.faults),
        "connections": sockets.opened, "requests": len(server.requests),
        "lag_s": {f"q{q}": round(float(np.quantile(lags, q)), 1) for q in (0, 0.5, 0.99, 1)},
        "told": {name: strategy.told.count(name) for name in sorted(set(strategy.told))},
        "elapsed_s": round(elapsed, 1), "processor_s": round(processor, 1),
    }  # fmt: skip


def _breaks(rng):
    """Ways in which a websocket breaks."""
    return [
        lambda: drop,
        lambda: orderly_drop,
        lambda: down(rng.uniform(20, 600)),
        lambda: silence(rng.uniform(60, 600)),
    ]


def _outage(rng, server):
    """Questions are not answered for a while."""
    return lambda _sockets: server.script("time", [FAULTS["reset"]] * rng.randint(1, 30))


def _jumps(rng, fast, first_ms, last_ms, count):
    """The wall clock is set an hour back or forth, and the machine sleeps for some minutes."""

    def jump(sign):
        def happen(_server):
            fast.set_wall(sign * 3600.0)
            fast.sleep(rng.uniform(120, 420))

        return happen

    moments = sorted(rng.randint(first_ms, last_ms) for _ in range(count))
    return [(moment, jump((-1.0) ** k)) for k, moment in enumerate(moments)]


def _assert_all(strategy, bars):
    expected = list(bars.index.tz_localize(None).to_pydatetime())
    assert strategy.stamps == expected, _difference(strategy.stamps, expected)
    np.testing.assert_array_equal(np.array(strategy.rows), bars[COLUMNS].to_numpy())
    closes = bars.index.as_unit("ms").asi8 + MINUTE_MS
    assert (np.array(strategy.seen_ms) >= closes).all()
    assert strategy.told[0] == "DELAYED"
    assert strategy.told[-1] == "DISCONNECTED"
    assert "LIVE" in strategy.told


def _difference(found, expected):
    twice = [stamp for stamp in set(found) if found.count(stamp) > 1]
    return {"missing": sorted(set(expected) - set(found))[:5], "twice": sorted(twice)[:5]}


def main():
    parser = argparse.ArgumentParser(description="Live bars through everything that goes wrong.")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--drops", type=int, default=50)
    parser.add_argument("--jumps", type=int, default=2)
    parser.add_argument("--pace", type=float, default=3000.0)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    for websocket in (True, False):
        print(json.dumps(run_study(websocket=websocket, **options)), flush=True)


if __name__ == "__main__":
    main()
