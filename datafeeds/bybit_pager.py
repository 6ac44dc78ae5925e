"""Complete history out of an interface that answers a thousand bars at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from datafeeds.bybit_klines import Klines, merge_klines, parse_klines
from datafeeds.bybit_markets import Market
from datafeeds.bybit_retry import RetryPolicy
from datafeeds.bybit_time import Timeframe, windows
from glow_bt.errors import TransientFeedError

__all__ = ["MAX_BARS", "Ask", "KlinePager"]

MAX_BARS = 1000
"""Bybit's largest answer, in bars."""

Ask = Callable[[dict[str, str | int]], object]
"""Sends the parameters of one kline request and returns the answer as JSON."""


@dataclass(frozen=True)
class KlinePager:
    """Asks for the bars of one instrument, window by window.

    Each window holds at most `MAX_BARS` and is asked for with both its ends. What Bybit
    returns when more bars than its limit lie between them (the earliest or the latest) is
    documented both ways; this way it does not matter.

    Attributes:
        ask: sends one request.
        retry: when to send it again.
        market: the instrument.
        timeframe: length of its bars.
        now_ms: the exchange's clock, in epoch milliseconds.
    """

    ask: Ask
    retry: RetryPolicy
    market: Market
    timeframe: Timeframe
    now_ms: int

    def pages(self, opens: range) -> Iterator[tuple[range, Klines]]:
        """Fetch bars by their opens, all of them closed.

        Yields:
            Windows of the opens in ascending order with the bars that the exchange has of them.
            Windows before the first bar ever and after the last are left out.

        Raises:
            TransientFeedError: when a window cannot be had within the policy's limits.
            FeedError: when the exchange refuses.
        """
        resume = opens.start
        for window in windows(opens, MAX_BARS):
            if window[-1] < resume:
                continue
            page = self.retry.call(partial(self._whole, window))
            if len(page):
                yield window, page
                continue
            found = self.retry.call(partial(self._first_bar_after, window))
            if found is None:
                return
            resume = found

    def _whole(self, window: range) -> Klines:
        """One window; bars that are missing from the answer are asked for once more."""
        page = self._klines(window)
        if len(page) < len(window):
            page = merge_klines(page, self._klines(window))
        return page

    def _first_bar_after(self, window: range) -> int | None:
        """Open of the first closed bar after a window without bars, None if there is none.

        Asked with a start alone, the exchange answers with the first bar from there on. As
        this is documented by third parties only, the window before that bar must be empty;
        if it is not, nothing is skipped.
        """
        forming = self.timeframe.floor(self.now_ms)
        rest = range(window.stop, forming, window.step)
        if not rest:
            return None
        # Asked from the empty window on and up to the forming bar, which may be all there is.
        asked = range(window.start, forming + window.step, window.step)
        answer = self.ask(self._params(start=asked.start, limit=1))
        found = parse_klines(answer, self.market, asked).stamps[:1].tolist()
        if not found or found[0] == forming:
            return None
        if found[0] in window:
            raise TransientFeedError(
                f"expected no bar of {self.market.symbol} in a window that was empty before, "
                "found one; ask again"
            )
        before = rest[: rest.index(found[0])][-MAX_BARS:]
        is_first = not before or not len(self._whole(before))
        return found[0] if is_first else rest.start

    def _klines(self, window: range) -> Klines:
        # The end lies inside the last bar: it is in whether the exchange takes ends as
        # inclusive or not, and the bar after it is out.
        end = window[-1] + window.step - 1
        params = self._params(start=window.start, end=end, limit=MAX_BARS)
        return parse_klines(self.ask(params), self.market, window)

    def _params(self, **span: int) -> dict[str, str | int]:
        return {
            "category": self.market.category,
            "symbol": self.market.id,
            "interval": self.timeframe.code,
            **span,
        }
