"""Pages of a history, several requests in flight."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from datafeeds.series import Page
from glow_bt.errors import ConfigError, FeedError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from datafeeds.bybit_draft import Draft
    from datafeeds.bybit_pager import Pager

__all__ = ["closed_meanwhile", "fetch_pages"]

T = TypeVar("T")

# Windows asked for at once before any row came: they may all lie before the first.
_CAUTIOUS = 3
# Windows with something missing that are kept until the others are in.
_MOST_WAITING = 32
# The pause before those are asked for again is that after so many failures in a row.
_PAUSE_FAILURES = 2
# Seconds between two looks at what is being broken off.
_LOOK_S = 0.05


def fetch_pages(
    pager: Pager, windows: Iterable[range], executor: Executor, in_flight: int
) -> Generator[Page, None, None]:
    """Ask for windows and give pages as they arrive, in any order.

    Args:
        pager: asks for one.
        windows: spans of the series' grid of at most its limit of steps, best in ascending
            order; what lies in the future is left out.
        executor: runs the questions.
        in_flight: how many at once.

    Yields:
        Pages. Windows that follow each other before the first row ever come as one page
        without rows; those after the last row do not come. The page of a window whose newest
        row is not final yet ends before it.

    Raises:
        FeedError: the first one, when the pages that had arrived are out.
        ConfigError: if a window is too long or off the grid.
    """
    run, at_once = _Run(pager, executor, in_flight), False
    try:
        yield from run.pages(_cut(pager, windows))
    except KeyboardInterrupt:
        at_once = True
        raise
    finally:
        run.stop(at_once)


class _Run:
    """One call's windows: those asked for, those to ask again, those before the first row."""

    def __init__(self, pager: Pager, executor: Executor, in_flight: int) -> None:
        self._pager, self._executor, self._most = pager, executor, in_flight
        self._allowed = min(_CAUTIOUS, in_flight)
        self._running: dict[Future[Draft], range] = {}
        self._waiting: list[Draft] = []
        self._early: list[range] = []
        self._is_past_first = False

    def pages(self, windows: Iterator[range]) -> Iterator[Page]:
        more = True
        while more or self._running or self._waiting:
            more = more and self._ask_for(windows)
            yield from self._before_first(done=not more)
            if self._running:
                yield from self._arrived()
            if len(self._waiting) >= _MOST_WAITING or not (more or self._running):
                self._ask_again()
        yield from self._before_first(done=True)

    def stop(self, at_once: bool) -> None:
        """Drop what was not begun, and wait for what was, or break that off."""
        if self._running:
            source = self._pager.source
            source.errand.stop.set()
            for future in self._running:
                future.cancel()
            while at_once and wait(self._running, timeout=_LOOK_S).not_done:
                source.break_off()  # anew: a request may have been just about to begin
            wait(self._running)

    def _ask_for(self, windows: Iterator[range]) -> bool:
        """Ask for as many windows as may be in flight; return whether there may be more."""
        edges = self._pager.edges
        while len(self._running) < self._allowed and not (edges.busy and self._running):
            window = next(windows, None)
            if window is None:
                return False
            if edges.before(window):
                self._early.append(window)
            elif not edges.after(window):
                self._submit(self._pager.look, window, window)
                self._is_past_first = edges.beginning is not None
        return True

    def _ask_again(self) -> None:
        """Ask once more for windows that lack something, after a pause."""
        if self._waiting:
            source = self._pager.source
            source.retry.wait(source.retry.delay(_PAUSE_FAILURES), source.errand)
        for draft in self._waiting:
            self._submit(self._pager.look_again, draft, draft.window)
        self._waiting = []

    def _submit(self, look: Callable[[T], Draft], subject: T, window: range) -> None:
        try:
            self._running[self._executor.submit(look, subject)] = window
        except RuntimeError as error:
            raise closed_meanwhile() from error

    def _arrived(self) -> Iterator[Page]:
        """Pages of the windows that are done, one of which is waited for."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        failure = yield from self._taken(done)
        if failure is not None:
            self.stop(at_once=False)
            yield from self._taken(set(self._running))
            raise failure

    def _taken(self, done: Iterable[Future[Draft]]) -> Generator[Page, None, FeedError | None]:
        """Pages of windows that are done, and the first error among them."""
        failure: FeedError | None = None
        # In the order of the questions.
        for future in [one for one in self._running if one in done]:
            del self._running[future]
            try:
                draft = future.result()
            except CancelledError:
                failure = failure or closed_meanwhile()
            except FeedError as error:
                failure = failure or error
            else:
                yield from self._settled(draft)
        return failure

    def _settled(self, draft: Draft) -> Iterator[Page]:
        edges = self._pager.edges
        if len(draft.rows):
            self._allowed = min(self._allowed + 1, self._most)
        if edges.before(draft.window):
            self._early.append(draft.window)
        elif draft.is_confirmed or edges.after(draft.window) or self._pager.complete(draft):
            page = draft.page(edges.last_ms)
            if page is not None:
                yield page
        else:
            self._waiting.append(draft)

    def _before_first(self, *, done: bool) -> Iterator[Page]:
        """One page for each span before the first row, once all of it has been asked for."""
        self._early = _joined(self._early)
        underway = any(map(self._pager.edges.before, self._running.values()))
        if underway or not (done or self._is_past_first):
            return
        columns = len(self._pager.source.series.kind.columns)
        for span in self._early:
            yield Page(span, np.empty(0, dtype=np.int64), np.empty((0, columns)))
        self._early = []


def _cut(pager: Pager, windows: Iterable[range]) -> Iterator[range]:
    """Windows without what lies in the future, a full one at the present in two.

    The answer to the last window is to show the forming row too, and a full one has no room.
    """
    series = pager.source.series
    for window in windows:
        on_grid = window.step == series.step_ms and window.start == series.floor(window.start)
        if not on_grid or len(window) > series.limit:
            raise ConfigError(
                f"expected windows of at most {series.limit} steps of {series.step_ms} ms on the "
                f"grid of {series.key}, found {window}"
            )
        due = range(window.start, min(window.stop, series.due(pager.source.now())), window.step)
        if not due:
            continue
        due = range(due.start, due[-1] + due.step, due.step)
        is_full = len(due) == series.limit == series.most
        if is_full and pager.reaches_present(due):
            yield due[:-1]
            yield due[-1:]
        else:
            yield due


def _joined(spans: list[range]) -> list[range]:
    """Spans in order, those that follow each other as one."""
    joined: list[range] = []
    for span in sorted(spans, key=lambda span: span.start):
        if joined and joined[-1].stop == span.start:
            joined[-1] = range(joined[-1].start, span.stop, span.step)
        else:
            joined.append(span)
    return joined


def closed_meanwhile() -> FeedError:
    """Return the error of a question that was under way when its client was closed."""
    return FeedError("expected an open client, found it closed while it fetched; fetch again")
