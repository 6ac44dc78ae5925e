"""Complete history out of an interface that answers a thousand bars at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
        resume: int | None = opens.start
        for window in windows(opens, MAX_BARS):
            if resume is None:
                return
            if window[-1] < resume:
                continue
            page, resume = self._page(window)
            if len(page):
                yield window, page

    def _page(self, window: range) -> tuple[Klines, int | None]:
        """One window, and where to go on: None if the exchange has no later bar."""
        page = self._whole(window)
        if len(page):
            return page, window.stop
        found = self._first_bar_from(window)
        if found is None or found not in window:
            return page, found
        page = self._whole(window)
        if not len(page):
            raise TransientFeedError(
                f"expected the bars of {self.market.symbol} from {found} ms on that Bybit has, "
                "found none in four answers; fetch again later"
            )
        return page, window.stop

    def _whole(self, window: range) -> Klines:
        """One window; bars that are missing from the answer are asked for once more."""
        page = self._klines(window)
        return page if len(page) == len(window) else self._klines(window, known=page)

    def _first_bar_from(self, window: range) -> int | None:
        """Open of the first closed bar from an empty window on, None if there is none.

        Asked with a start alone, the exchange answers with the first bar from there on. As
        this is documented by third parties only, the window before that bar must be empty;
        if it is not, nothing is skipped.
        """
        forming = self.timeframe.floor(self.now_ms)
        rest = range(window.stop, forming, window.step)
        if not rest:
            return None
        # Up to the forming bar, which may be all there is.
        asked = range(window.start, forming + window.step, window.step)
        first = self._asked(asked, self._params(start=asked.start, limit=1)).stamps[:1].tolist()
        if not first or first[0] == forming:
            return None
        if first[0] in window:
            return int(first[0])
        before = rest[: rest.index(first[0])][-MAX_BARS:]
        is_first = not before or not len(self._whole(before))
        return int(first[0]) if is_first else rest.start

    def _klines(self, window: range, known: Klines | None = None) -> Klines:
        # The end lies inside the last bar: it is in whether the exchange takes ends as
        # inclusive or not, and the bar after it is out.
        end = window[-1] + window.step - 1
        return self._asked(
            window, self._params(start=window.start, end=end, limit=MAX_BARS), known
        )

    def _asked(
        self, window: range, params: dict[str, str | int], known: Klines | None = None
    ) -> Klines:
        """One answer, with the bars known already, which it may not contradict."""

        def ask() -> Klines:
            found = parse_klines(self.ask(params), self.market, window)
            return found if known is None else merge_klines(known, found)

        return self.retry.call(ask)

    def _params(self, **span: int) -> dict[str, str | int]:
        return {
            "category": self.market.category,
            "symbol": self.market.id,
            "interval": self.timeframe.code,
            **span,
        }
