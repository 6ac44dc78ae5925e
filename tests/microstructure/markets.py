"""Trades and books written down in a test, and random ones."""

import numpy as np

from glow_bt.microstructure import BookReplay, BookStates, BookUpdate, Trades

NAN = float("nan")


def trades_of(*rows):
    """Trades from (ms, "buy" or "sell", price, amount)."""
    stamps, sides, prices, amounts = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Trades(
        np.array(stamps, np.int64),
        np.array(prices, float),
        np.array(amounts, float),
        np.array([1 if side == "buy" else -1 for side in sides], np.int8),
    )


def states_of(*rows, levels=1):
    """States from (ms, bids, asks), each a list of (price, size); None for a book not known."""

    def side(rows):
        filled = [
            [*(levels_of or []), *[(NAN, NAN)] * (levels - len(levels_of or []))]
            for levels_of in rows
        ]
        return np.array(filled, float).reshape(len(rows), levels, 2)

    return BookStates(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] is not None for row in rows], bool),
        side([row[1] for row in rows]),
        side([row[2] for row in rows]),
    )


def mirrored(states):
    """The same book with bids and asks swapped, prices reflected about 500."""
    flip = np.array([-1.0, 1.0]), np.array([1000.0, 0.0])
    return BookStates(
        states.stamps,
        states.valid,
        states.asks * flip[0] + flip[1],
        states.bids * flip[0] + flip[1],
    )


def random_trades(seed, count, span_ms, start_ms=0):
    rng = np.random.default_rng(seed)
    return Trades(
        start_ms + np.sort(rng.integers(0, span_ms, count)),
        np.round(100 * np.exp(np.cumsum(rng.normal(0, 1e-3, count))), 2),
        np.round(rng.exponential(1, count) + 0.001, 3),
        rng.choice(np.array([-1, 1], np.int8), count),
    )


def random_updates(seed, count, span_ms, start_ms=0, losses=0.0):
    """A snapshot and deltas about a moving mid; some are lost, and a snapshot comes later."""
    rng = np.random.default_rng(seed)
    stamps = start_ms + np.sort(rng.integers(0, span_ms, count))
    bids, asks, mid, lost = {}, {}, 1000, True
    for number, stamp in enumerate(stamps.tolist(), start=7):
        mid += int(rng.integers(-1, 2))
        old_bids, old_asks = dict(bids), dict(asks)
        bids = {k: v for k, v in bids.items() if k < mid}
        asks = {k: v for k, v in asks.items() if k > mid}
        for _ in range(3):
            bids[mid - int(rng.integers(1, 8))] = int(rng.integers(1, 99))
            asks[mid + int(rng.integers(1, 8))] = int(rng.integers(1, 99))
        if rng.random() < losses:
            lost = True
            continue
        snapshot = lost and (number == 7 or rng.random() < 0.5)
        lost = lost and not snapshot
        yield BookUpdate(
            snapshot,
            stamp,
            number,
            _changes({} if snapshot else old_bids, bids),
            _changes({} if snapshot else old_asks, asks),
        )


def random_states(seed, count, span_ms, levels=3, **settings):
    replay = BookReplay(levels)
    for update in random_updates(seed, count, span_ms, **settings):
        replay.push(update)
    return replay.take()


def _changes(old, new):
    gone = [[f"{key / 10:.1f}", "0"] for key in old if key not in new]
    return gone + [[f"{k / 10:.2f}", str(v)] for k, v in new.items() if old.get(k) != v]
