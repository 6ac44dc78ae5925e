import numpy as np

from datafeeds.bybit_time import timeframe_of
from datafeeds.series import Page, SeriesKey
from tests.datafeeds.random_bars import make_bars

KEY = SeriesKey("bybit", "BTC/USDT:USDT", "bars", "1h")
STEP = timeframe_of("1h").step_ms
PART_STEPS = 40


def make_history(count, lacking=(), seed=0):
    """Return the window, stamps and values of bars some of which the exchange lacks."""
    bars = make_bars(count, seed=seed)
    stamps = bars.index.as_unit("ms").asi8
    present = ~np.isin(np.arange(count), list(lacking))
    window = range(int(stamps[0]), int(stamps[-1]) + STEP, STEP)
    return Page(window, stamps[present], bars.to_numpy()[present])


def page_of(history, window):
    """Return what the exchange answers when it is asked for a window."""
    rows = (history.stamps >= window.start) & (history.stamps < window.stop)
    return Page(window, history.stamps[rows], history.values[rows])


def fetch(store, history, limit=15, order=None, told=None):
    """Fetch what is missing, the windows in some order; return which were fetched."""
    with store.writer(KEY, STEP) as writer:
        windows = writer.missing(history.window, limit)
        for window in windows if order is None else order(windows):
            writer.add(page_of(history, window))
            if told is not None:
                told(window)
    return windows


def tree(root):
    """Return all files under a folder, by their relative names."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
