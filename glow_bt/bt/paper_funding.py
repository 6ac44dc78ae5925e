"""Funding of a paper account: every rate is charged, also one that is listed late."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from glow_bt.errors import TransientFeedError

__all__ = ["ListedRates", "PaperFunding", "Payment"]

_MINUTE_NS = 60_000_000_000
_OFTEN_NS = 5 * _MINUTE_NS
# No instrument pays less often than every 8 hours: what is not listed after three is none.
_GIVEN_UP_NS = 24 * 60 * _MINUTE_NS


class ListedRates(Protocol):
    """Who tells which rates an exchange has listed; all moments in epoch nanoseconds."""

    @property
    def seen_ns(self) -> int:
        """The exchange's clock at the last answer; 0 before the first."""

    def stamps_between(self, before_ns: int, now_ns: int) -> Sequence[int]:
        """Return the stamps after `before_ns` up to `now_ns` that may have a rate."""

    def listed_between(self, before_ns: int, now_ns: int) -> Mapping[int, float]:
        """Return the rates, by stamp, that are listed of those."""


class Payment(NamedTuple):
    """What a position paid at one stamp.

    Attributes:
        stamp_ns: when it was due, in epoch nanoseconds.
        size: signed size of the position that was held then.
        mark: its price.
        rate: a fraction.
    """

    stamp_ns: int
    size: float
    mark: float
    rate: float

    @property
    def paid(self) -> float:
        """Money that left the account."""
        return self.size * self.mark * self.rate


class PaperFunding:
    """Rates for ``BybitPerpetual(funding=...)`` under a `glow_bt.bt.paper_broker.PaperBroker`.

    A commission scheme asks for a span's rates once, when its bar has closed. Here a stamp that
    had none then is remembered with the position that was held, and asked for again: with every
    bar while it is younger than 5 minutes by the exchange's clock, then whenever a later stamp
    passes, until it is a day old. When its rate is listed the broker charges it, whatever is
    held by then.

    Args:
        rates: of one instrument, as the exchange lists them.
    """

    def __init__(self, rates: ListedRates) -> None:
        self._rates = rates
        self._awaited: dict[int, tuple[float, float]] = {}
        self._span: Sequence[int] = ()
        self._listed: Mapping[int, float] = {}
        self._asked_ns = 0

    def rates_between(self, before_ns: int, now_ns: int) -> list[float]:
        """Return the rates that are listed of a span (`glow_bt.bt.funding.FundingRates`).

        Raises:
            FeedError: if they cannot be had.
        """
        self._span = self._rates.stamps_between(before_ns, now_ns)
        self._listed = self._ask(now_ns) if self._span else {}
        return [self._listed[stamp] for stamp in self._span if stamp in self._listed]

    def settle(self, now_ns: int, size: float, mark: float) -> tuple[list[Payment], list[Payment]]:
        """Close a bar, after the scheme asked for its rates (it does if a position is open).

        Args:
            now_ns: open of the bar.
            size: position that came into it.
            mark: its price.

        Returns:
            What the scheme has charged, and what is to be charged now: the late ones.

        Raises:
            FeedError: if the exchange refuses to tell the late ones.
        """
        span, listed = self._span, self._listed
        self._span, self._listed = (), {}
        if not span and self._is_time(now_ns):
            # The next bar asks again.
            with contextlib.suppress(TransientFeedError):
                listed = self._ask(now_ns)
        late = [
            Payment(stamp, *self._awaited.pop(stamp), listed[stamp])
            for stamp in sorted(self._awaited.keys() & listed.keys())
        ]
        charged = [Payment(stamp, size, mark, listed[stamp]) for stamp in span if stamp in listed]
        self._awaited |= {stamp: (size, mark) for stamp in span if stamp not in listed}
        # By bars, not by clocks: so that a run in pieces has the state of one in one go.
        oldest = now_ns - _GIVEN_UP_NS
        self._awaited = {s: held for s, held in self._awaited.items() if s > oldest}
        return charged, late

    def awaited(self) -> list[tuple[int, float, float]]:
        """Return stamp, size and price of what may yet be listed, as JSON values."""
        return [(stamp, *held) for stamp, held in self._awaited.items()]

    def restore(self, awaited: Iterable[tuple[int, float, float]]) -> None:
        """Take up what `awaited` returned."""
        self._awaited = {stamp: (size, mark) for stamp, size, mark in awaited}

    def _is_time(self, now_ns: int) -> bool:
        if not self._awaited:
            return False
        is_fresh = self._rates.seen_ns < max(self._awaited) + _OFTEN_NS
        return is_fresh or len(self._rates.stamps_between(self._asked_ns, now_ns)) > 0

    def _ask(self, now_ns: int) -> Mapping[int, float]:
        first = min([*self._awaited, *self._span])
        listed = self._rates.listed_between(first - 1, now_ns)
        self._asked_ns = now_ns
        return listed
