"""Rows of one series, out of single answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from datafeeds.bybit_answers import answer_time_ms
from datafeeds.bybit_klines import Klines, merge_klines, parse_rows

if TYPE_CHECKING:
    from datafeeds.bybit_retry import Errand, RetryPolicy
    from datafeeds.bybit_series import BybitSeries, Question

__all__ = ["Ask", "SeenClock", "Source"]

T = TypeVar("T")

Ask = Callable[["Question"], object]
"""Sends one question and returns the answer as JSON."""


class SeenClock:
    """The exchange's clock as far as its answers have shown: late, never ahead.

    Args:
        now_ms: what it showed first, in epoch milliseconds.
    """

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._lock = threading.Lock()

    def now(self) -> int:
        """Return the latest moment seen."""
        return self._now_ms

    def note(self, now_ms: int) -> None:
        """Take note of what an answer shows; an old answer changes nothing."""
        with self._lock:
            self._now_ms = max(now_ms, self._now_ms)


@dataclass(frozen=True)
class Source:
    """Asks for rows of one series, and again as the policy says.

    Attributes:
        series: what is asked for.
        ask: sends a question.
        retry: when to send it again.
        errand: the call that the questions belong to.
        clock: the exchange's.
        break_off: ends the questions that are under way.
    """

    series: BybitSeries
    ask: Ask
    retry: RetryPolicy
    errand: Errand
    clock: SeenClock
    break_off: Callable[[], object] = lambda: None

    def now(self) -> int:
        """Return the exchange's clock in epoch milliseconds, as far as it has shown."""
        return self.clock.now()

    def between(self, span: range, take: Callable[[Klines, int], T]) -> T:
        """Ask for the rows of a span, and hand them on with the exchange's clock.

        Both ends are given. What Bybit returns when more rows than its limit lie between them
        (the earliest or the latest) is documented both ways; this way it does not matter.

        Raises:
            TransientFeedError: if the policy's limits are reached; also if ``take`` goes on
                finding fault with the rows.
            FeedError: when the exchange refuses.
        """

        def ask() -> tuple[T] | None:
            # The end lies inside the last step: its row is in whether the exchange takes ends
            # as inclusive or not, and the next one is out.
            end = span[-1] + span.step - 1
            rows, at_ms = self._rows(span, most, start_ms=span.start, end_ms=end)
            is_full = len(rows) >= most and len(span) > most
            return None if is_full else (take(rows, at_ms),)

        most = self.series.most
        answered = self.retry.call(ask, self.errand)
        if answered is not None:
            return answered[0]
        # A full answer may be cut off, so the halves are asked for.
        half = len(span) // 2
        left, left_ms = self.between(span[:half], lambda *found: found)
        right, right_ms = self.between(span[half:], lambda *found: found)
        return take(merge_klines(left, right), min(left_ms, right_ms))

    def first_from(self, start_ms: int) -> int | None:
        """Return the stamp of the first row from a moment on, None if there is none.

        Asked with a start alone, the exchange answers so. As third parties only document it,
        what follows from it is to be checked.
        """

        def ask() -> int | None:
            rows, _ = self._rows(self._up_to_now(start_ms), start_ms=start_ms)
            return int(rows.stamps[0]) if len(rows) else None

        return self.retry.call(ask, self.errand)

    def newest(self) -> tuple[int | None, int]:
        """Return the stamp of the newest row, forming ones included, and the exchange's clock."""

        def ask() -> tuple[int | None, int]:
            rows, at_ms = self._rows(self._up_to_now())
            return (int(rows.stamps[-1]) if len(rows) else None), at_ms

        return self.retry.call(ask, self.errand)

    def latest_before(self, stamp: int) -> Klines:
        """Return rows that precede a stamp, none if there are none.

        For bars: of the window before it. For others the latest, which may come out later than
        asked: an end alone may be ignored.
        """
        series = self.series
        if series.has_first_from:
            before = range(stamp - series.limit * series.step_ms, stamp, series.step_ms)
            return self.between(before, lambda rows, _: rows)
        return self.retry.call(
            lambda: self._rows(self._up_to_now(), end_ms=stamp - 1)[0], self.errand
        )

    def _rows(
        self,
        span: range,
        limit: int = 1,
        *,
        start_ms: int | None = None,
        end_ms: int | None = None,
    ) -> tuple[Klines, int]:
        series = self.series
        answer = self.ask(series.question(limit, start_ms, end_ms))
        at_ms = answer_time_ms(answer)
        if at_ms is not None:
            self.clock.note(at_ms)
        rows = parse_rows(answer, series.market, span, series.kind.name)
        return rows, self.now() if at_ms is None else at_ms

    def _up_to_now(self, start_ms: int = 0) -> range:
        """The grid up to the step that may be forming and one more, for the clock goes on."""
        series = self.series
        step = series.step_ms
        return range(series.ceil(start_ms), series.floor(self.now()) + 2 * step, step)
