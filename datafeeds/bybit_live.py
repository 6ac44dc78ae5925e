"""Closed bars, each once and in order, out of a stream that drops and questions that fail.

Pure: told what happened and when, it says which bars are ready and when to ask. No clock, no
thread, no connection.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from datafeeds.bybit_retry import RetryPolicy
from datafeeds.bybit_topics import LiveBar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from datafeeds.bybit_time import Timeframe

__all__ = ["LiveSeries", "Phase", "PhaseChange"]

_POLL_AFTER_MS = 500
_MISSED_AFTER_MS = 3_000
_ASKED_FOR_HOLE = 5


class Phase(Enum):
    """How the bars stand.

    Attributes:
        DELAYED: bars that closed earlier are being delivered.
        LIVE: every closed bar is delivered.
        BROKEN: the connection is lost.
    """

    DELAYED = "delayed"
    LIVE = "live"
    BROKEN = "broken"


class PhaseChange(NamedTuple):
    """A phase that is entered.

    Attributes:
        phase: which.
        reason: why the connection is lost; else empty.
    """

    phase: Phase
    reason: str = ""


class LiveSeries:
    """Puts the closed bars of one instrument in order, whatever way they come.

    Bars come from a stream (`confirmed`) and as answers to questions (`answered`). One that comes
    before its predecessor waits for it. A bar is asked for

    - at once, if a later one is known or it closed while the stream was down;
    - 0.5 s after its close, if there is no stream;
    - 3 s after its close, if the stream should have brought it;

    and again after growing waits. A bar that five answers lack, though they have
    later ones, is one that the exchange lacks: it is left out.

    All moments are the exchange's time in epoch milliseconds.

    Args:
        timeframe: length of the bars.
        first_ms: open of the first bar to deliver, or any moment after the open before it.
        last_ms: open of the last bar to deliver, or any moment before the open after it; None:
            there is none.
        retry: gives the waits between questions (`RetryPolicy.delay`).
    """

    def __init__(
        self,
        timeframe: Timeframe,
        first_ms: int,
        last_ms: int | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._timeframe = timeframe
        self._step = timeframe.step_ms
        self._last_ms = last_ms
        self._retry = retry or RetryPolicy(first_delay=0.5, max_delay=30.0)
        self._ready: deque[LiveBar | PhaseChange] = deque([PhaseChange(Phase.DELAYED)])
        self._held: dict[int, LiveBar] = {}
        self._up_since: int | None = None
        self._was_down = False
        self._vain = 0  # questions in a row that brought nothing
        self._holes = 0  # answers in a row with bars beyond the next one only
        self._not_before = 0
        self.phase = Phase.DELAYED
        self.next_ms = timeframe.ceil(first_ms)

    @property
    def done(self) -> bool:
        """Whether the last bar is ready or was taken."""
        return self._last_ms is not None and self.next_ms > self._last_ms

    @property
    def vain(self) -> int:
        """How many questions in a row brought nothing."""
        return self._vain

    def take(self) -> list[LiveBar | PhaseChange]:
        """Return what is ready, in order: bars, and the phases entered between them."""
        ready = list(self._ready)
        self._ready.clear()
        return ready

    def confirmed(self, bars: Iterable[LiveBar], now_ms: int) -> None:
        """Take note of bars that the stream says are final."""
        for bar in bars:
            if self.next_ms <= bar.open_ms <= now_ms - self._step:
                self._held.setdefault(bar.open_ms, bar)
        self._deliver(now_ms)

    def answered(self, bars: Iterable[LiveBar], now_ms: int) -> None:
        """Take note of the answer to a question for the closed bars from `next_ms` on.

        Whoever asked sees to it that the answer holds closed bars only.
        """
        asked = self.next_ms
        answer = {bar.open_ms: bar for bar in bars if bar.open_ms >= asked}
        self._held |= answer
        now_ms = max([now_ms, *(open_ms + self._step for open_ms in answer)])
        if answer and asked not in self._held:
            self._holes += 1
            if self._holes >= _ASKED_FOR_HOLE:
                self.next_ms = min(self._held)
        self._enter_if_broken()
        self._deliver(now_ms)
        self._wait_again(now_ms, brought=self.next_ms > asked)

    def failed(self, now_ms: int, reason: str = "") -> None:
        """Take note that a question got no answer."""
        self._wait_again(now_ms, brought=False)
        if self._up_since is None:
            self._enter(Phase.BROKEN, reason)

    def stream_up(self, now_ms: int) -> None:
        """Take note that the stream brings bars from now on."""
        self._up_since = now_ms
        self._enter_if_broken()
        self._note_phase(now_ms)

    def stream_down(self, reason: str = "") -> None:
        """Take note that the stream was lost, or could not be had (again)."""
        if self._up_since is not None or not self._was_down:
            self._enter(Phase.BROKEN, reason)
        self._up_since, self._was_down = None, True

    def due_ms(self) -> int | None:
        """Return when to ask for the bars from `next_ms` on; None if there are none to come."""
        if self.done:
            return None
        close = self.next_ms + self._step
        if self._held:
            due = 0
        elif self._up_since is not None and self._up_since < close:
            due = close + _MISSED_AFTER_MS
        else:
            due = close + _POLL_AFTER_MS
        return max(due, self._not_before)

    def _deliver(self, now_ms: int) -> None:
        before = self.next_ms
        while not self.done and (bar := self._held.pop(self.next_ms, None)) is not None:
            if self.phase is Phase.BROKEN or self._is_behind(now_ms):
                self._enter(Phase.DELAYED)
            self._ready.append(bar)
            self.next_ms += self._step
        if self.next_ms != before:
            self._holes = self._vain = self._not_before = 0
        self._note_phase(now_ms)

    def _is_behind(self, now_ms: int) -> bool:
        """Whether a later bar than the next one is closed too."""
        return self.next_ms + 2 * self._step <= now_ms

    def _note_phase(self, now_ms: int) -> None:
        if self.phase is Phase.DELAYED and self.next_ms + self._step > now_ms:
            self._enter(Phase.LIVE)
        elif self.phase is Phase.LIVE and (self._held or self._is_behind(now_ms)):
            self._enter(Phase.DELAYED)

    def _enter_if_broken(self) -> None:
        if self.phase is Phase.BROKEN:
            self._enter(Phase.DELAYED)

    def _enter(self, phase: Phase, reason: str = "") -> None:
        if phase is not self.phase:
            self.phase = phase
            self._ready.append(PhaseChange(phase, reason))

    def _wait_again(self, now_ms: int, *, brought: bool) -> None:
        self._vain = 0 if brought else self._vain + 1
        wait = self._retry.delay(self._vain) if self._vain else 0.0
        self._not_before = now_ms + round(wait * 1000.0) if self._vain else 0
