"""Whether a feed's bars come as they close, and strategies that act on such bars only."""

from __future__ import annotations

import types
from typing import Any

import backtrader as bt

__all__ = ["FeedStatus", "live_only"]


class FeedStatus:
    """The last status of each feed, as Backtrader notifies it.

    A live feed says LIVE before the first bar that comes as it closes; history and bars that
    come late, after a drop, are DELAYED. A feed of a file has no such status and never waits.
    """

    def __init__(self) -> None:
        self._last: dict[int, int] = {}

    def note(self, data: bt.AbstractDataBase, status: int) -> None:
        """Take in what `notify_data` was told."""
        self._last[id(data)] = status

    def is_current(self, data: bt.AbstractDataBase) -> bool:
        """Return whether orders may follow the feed's bars: it is LIVE, or a file."""
        return not data.islive() or self._last.get(id(data)) == data.LIVE


def live_only(strategy: type[bt.Strategy]) -> type[bt.Strategy]:
    """Return the strategy, made to sleep through bars that come late.

    Its ``prenext``, ``nextstart`` and ``next`` are called only while every feed is current
    (`FeedStatus`); indicators see every bar.
    """

    def notify_data(
        self: Any,  # noqa: ANN401
        data: bt.AbstractDataBase,
        status: int,
        *args: object,
        **kwargs: object,
    ) -> None:
        statuses = self.__dict__.setdefault("_feed_status", FeedStatus())
        statuses.note(data, status)
        strategy.notify_data(self, data, status, *args, **kwargs)

    def is_current(self: Any) -> bool:  # noqa: ANN401
        statuses = self.__dict__.setdefault("_feed_status", FeedStatus())
        return all(statuses.is_current(data) for data in self.datas)

    def awake(name: str) -> Any:  # noqa: ANN401
        act = getattr(strategy, name)

        def method(self: Any) -> None:  # noqa: ANN401
            if is_current(self):
                act(self)

        return method

    methods = {name: awake(name) for name in ("prenext", "nextstart", "next")}
    body = {"__doc__": strategy.__doc__, "__module__": strategy.__module__, **methods}
    body["notify_data"] = notify_data
    return types.new_class(strategy.__name__, (strategy,), exec_body=lambda own: own.update(body))
