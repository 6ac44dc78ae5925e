"""Complete windows out of answers that may be short, stale or empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from datafeeds.bybit_draft import ANSWERS_THAT_AGREE, Draft
from glow_bt.errors import TransientFeedError

if TYPE_CHECKING:
    from datafeeds.bybit_edges import Edges
    from datafeeds.bybit_source import Source

__all__ = ["Pager"]


@dataclass(frozen=True)
class Pager:
    """Asks for one window of a series until it is complete or its holes are confirmed.

    Rows that an answer lacks are asked for twice more at once, and once more when the other
    windows are in (`look_again`): what no answer has is lacking. What lies before the first
    row ever or after the last is no hole (`Edges`).

    Attributes:
        source: answers the questions.
        edges: where the history begins and ends.
    """

    source: Source
    edges: Edges

    def reaches_present(self, window: range) -> bool:
        """Whether the step after a window may be forming now."""
        return window.stop >= self.source.series.floor(self.source.now())

    def complete(self, draft: Draft) -> bool:
        """Whether a window lacks nothing."""
        return draft.answers > 0 and not len(self.edges.missing(draft))

    def look(self, window: range) -> Draft:
        """Ask for a window, up to three times.

        Raises:
            TransientFeedError: when an answer cannot be had within the policy's limits.
            FeedError: when the exchange refuses.
        """
        with self.edges.asking(window):
            return self._look(window)

    def _look(self, window: range) -> Draft:
        edges, draft = self.edges, Draft(self.source.series, window)
        if edges.presumed_before(window):
            edges.find_first(window, draft.rows)
            if edges.before(window):
                return draft
        self._ask(draft)
        if len(draft.rows) and not self.complete(draft):
            self._ask(draft)
        if not self.complete(draft):
            edges.find_around(draft)
        while not self.complete(draft) and draft.answers < ANSWERS_THAT_AGREE:
            if edges.before(window) or edges.after(window):
                break
            self._ask(draft)
        return draft

    def look_again(self, draft: Draft) -> Draft:
        """Ask once more for a window that lacks something: what it lacks then is lacking.

        Raises:
            TransientFeedError: as `look`; also if the window stays empty although the exchange
                has a bar in it when asked in another way.
            FeedError: as `look`.
        """
        self._ask(draft)
        is_empty = not (len(draft.rows) or draft.is_unsure or self.complete(draft))
        if is_empty and self.source.series.has_first_from:
            self._check_empty(draft)
        draft.is_confirmed = True
        return draft

    def _check_empty(self, draft: Draft) -> None:
        source = self.source
        found = source.first_from(draft.window.start)
        forming = source.series.floor(source.now())
        if found is not None and found in draft.window and found < forming:
            raise TransientFeedError(
                f"expected the bars of {source.series.key.symbol} from {found} ms on that "
                f"Bybit has, found none in {draft.answers} answers; fetch again later"
            )

    def _ask(self, draft: Draft) -> None:
        """Ask for a window, and for the step after it if that may be forming and fits."""
        window, reaches = draft.window, self.reaches_present(draft.window)
        span = window
        missing = self.edges.missing(draft)
        if draft.answers and len(missing) and not self.source.series.kind.regular:
            # Only where something may be missing, for a whole window may take many questions.
            span = range(int(missing[0]), int(missing[-1]) + window.step, window.step)
        elif reaches and len(window) < self.source.series.limit:
            span = range(window.start, window.stop + window.step, window.step)
        self.source.between(
            span, lambda rows, at_ms: draft.take(rows, at_ms, reaches_present=reaches)
        )
        self.edges.note(draft.rows)
        draft.accept_last(self.edges.last_ms)
