"""A live feed out of a list: history, then bars that come as they close, with lulls."""

from collections import deque

import backtrader as bt

from glow_bt.bt.stamps import from_index


class LiveFeed(bt.feed.DataBase):
    """Plays events: a status, a row of a frame, None for a lull, or a callable to call."""

    lines = ("funding_rate",)
    params = (
        ("events", ()),
        ("timeframe", bt.TimeFrame.Minutes),
        ("compression", 60),
        ("qcheck", 0.0),
    )
    stopped = 0

    def islive(self):
        return True

    def start(self):
        super().start()
        self._events = deque(self.p.events)

    def stop(self):
        self.stopped += 1

    def _load(self):
        while self._events:
            event = self._events.popleft()
            if event is None:
                return None
            if callable(event):
                event()
            elif isinstance(event, int):
                self.put_notification(event)
            else:
                self._fill(event)
                return True
        return False

    def _fill(self, bar):
        self.lines.datetime[0] = from_index(bar.name_index)[0]
        for name in ("open", "high", "low", "close", "volume"):
            getattr(self.lines, name)[0] = float(bar.values[name])
        self.lines.openinterest[0] = 0.0
        self.lines.funding_rate[0] = float(bar.values.get("funding_rate", float("nan")))


class Bar:
    """One row of a frame."""

    def __init__(self, bars, number):
        self.name_index = bars.index[number : number + 1]
        self.values = bars.iloc[number].to_dict()


def history(bars, first, stop):
    """Bars that closed long ago."""
    return [bt.feed.DataBase.DELAYED, *(Bar(bars, i) for i in range(first, stop))]


def live(bars, first, stop):
    """Bars as they close, after a lull each."""
    events = [bt.feed.DataBase.LIVE]
    for i in range(first, stop):
        events += [None, Bar(bars, i)]
    return events


def late(bars, first, stop):
    """Bars that are fetched after a drop."""
    return [bt.feed.DataBase.CONNBROKEN, None, *history(bars, first, stop)]
