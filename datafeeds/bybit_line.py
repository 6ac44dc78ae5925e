"""What one live feed is handed: bars with what was known beside them, phases, the end."""

from __future__ import annotations

import math
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from datafeeds.bybit_live import LiveSeries, PhaseChange
from datafeeds.bybit_topics import LiveBar, kline_topic

if TYPE_CHECKING:
    from datafeeds.bybit_known import LastKnown
    from datafeeds.bybit_series import BybitSeries
    from datafeeds.bybit_time import Timeframe
    from glow_bt.errors import FeedError

__all__ = ["LiveEnd", "LiveItem", "LiveLine", "LiveRow"]

_EXTRAS = ("funding_rate", "open_interest")


class LiveRow(NamedTuple):
    """A closed bar with what was known beside it at its close; NaN where nothing was.

    Attributes:
        bar: its open and its values.
        funding_rate: the last rate stamped before its close.
        open_interest: the last open interest stamped before its close.
    """

    bar: LiveBar
    funding_rate: float
    open_interest: float


class LiveEnd(NamedTuple):
    """There will be no more bars.

    Attributes:
        error: why; None if the last bar that was ordered has been delivered.
    """

    error: FeedError | None


LiveItem = LiveRow | PhaseChange | LiveEnd
"""What a feed is handed."""


class LiveLine:
    """One feed's share of a hub.

    Attributes:
        items: what the feed has not taken yet, in order.
    """

    def __init__(self, series: BybitSeries, timeframe: Timeframe, bars: LiveSeries) -> None:
        self.items: SimpleQueue[LiveItem] = SimpleQueue()
        self.series = series
        self.timeframe = timeframe
        self.bars = bars
        self.address: str | None = None
        self.topic = kline_topic(series.market, timeframe)
        self.extras: dict[str, LastKnown] = {}
        self.ended = False
        self._raw: deque[LiveBar | PhaseChange | LiveEnd] = deque()
        self._complete = False

    @property
    def unfinished(self) -> bool:
        """Whether bars wait for values that the hub's thread has to look up."""
        return bool(self._raw) and not self.ended

    def collect(self) -> None:
        """Take what is ready, and hand it over if nothing has to be looked up."""
        self._raw.extend(self.bars.take())
        if self.bars.done and not self._complete:
            self._complete = True
            self._raw.append(LiveEnd(None))
        if not self.extras:
            self.finish()

    def finish(self) -> None:
        """Hand over what is ready, with the values known at each close."""
        while self._raw and not self.ended:
            item = self._raw.popleft()
            if isinstance(item, LiveEnd):
                self.end(item.error)
            else:
                self.items.put(item if isinstance(item, PhaseChange) else self._row(item))

    def end(self, error: FeedError | None) -> None:
        """Hand over that there is no more."""
        if not self.ended:
            self.ended = True
            self.items.put(LiveEnd(error))

    def _row(self, bar: LiveBar) -> LiveRow:
        close = bar.open_ms + self.timeframe.step_ms
        known = {name: extra.before(close) for name, extra in self.extras.items()}
        return LiveRow(bar, *(known.get(name, math.nan) for name in _EXTRAS))
