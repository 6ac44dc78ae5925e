"""Funding rates as time goes on, for the broker's cost model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from datafeeds.bybit_retry import RetryPolicy
from datafeeds.bybit_time import to_epoch_ms, windows
from glow_bt.errors import TransientFeedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pandas as pd

    from datafeeds.bybit_series import BybitSeries
    from datafeeds.series import Page

__all__ = ["BybitFunding"]

_MS_NS = 1_000_000
# An answer that shows the payment before needs no second one to say that no other is there.
_LEAD_MS = 8 * 3_600_000


class _Client(Protocol):
    def series(self, symbol: str, kind: str = ..., timeframe: str = ...) -> BybitSeries: ...

    def server_time(self) -> pd.Timestamp: ...

    def pages(self, series: BybitSeries, windows: Iterable[range]) -> Iterator[Page]: ...


class BybitFunding:
    """Asks the exchange for the rates of a span when the span has passed.

    For ``BybitPerpetual(funding=...)`` on a live feed: Bybit lists a rate within moments of its
    stamp, and a bar's stamps are asked for when the bar has closed. A rate that is listed later
    is charged in paper trading (`glow_bt.bt.paper_funding.PaperFunding`).

    Args:
        client: a `datafeeds.bybit_client.BybitClient`.
        symbol: a linear or inverse perpetual.
        patient: called with the reason when the exchange is away for longer than the client
            waits; whether to go on waiting, for what a position pays cannot be told without it.
            None: never.
        retry: gives the waits between such questions.

    Raises:
        ConfigError: if the symbol is spot, which pays no funding.
        SymbolError: if the exchange does not list it.
        FeedError: if it cannot be asked.
    """

    def __init__(
        self,
        client: _Client,
        symbol: str,
        *,
        patient: Callable[[str], bool] | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._client = client
        self._patient = patient
        self._retry = retry or RetryPolicy(first_delay=1.0, max_delay=10.0)
        self._series = client.series(symbol, "funding_rate")
        self._seen_ns = 0

    @property
    def seen_ns(self) -> int:
        """The exchange's clock at the last answer, epoch nanoseconds; 0 before the first."""
        return self._seen_ns

    def stamps_between(self, before_ns: int, now_ns: int) -> range:
        """Return the stamps after `before_ns` up to `now_ns` that may have a rate."""
        first_ms = self._series.floor(before_ns // _MS_NS) + self._series.step_ms
        return range(first_ms * _MS_NS, now_ns + 1, self._series.step_ms * _MS_NS)

    def rates_between(self, before_ns: int, now_ns: int) -> list[float]:
        """Return the rates of the stamps after `before_ns` up to `now_ns`, epoch nanoseconds.

        Raises:
            FeedError: as `listed_between`.
        """
        return list(self.listed_between(before_ns, now_ns).values())

    def listed_between(self, before_ns: int, now_ns: int) -> dict[int, float]:
        """Return the rates of the stamps after `before_ns` up to `now_ns`, in order, by stamp.

        Raises:
            TransientFeedError: if the exchange is away, and nobody is patient.
            FeedError: if it refuses.
        """
        stamps = self.stamps_between(before_ns, now_ns)
        if not stamps:
            return {}
        failures = 0
        while True:
            try:
                return self._ask(stamps)
            except TransientFeedError as error:
                if self._patient is None or not self._patient(str(error)):
                    raise
            failures += 1
            self._retry.wait(self._retry.delay(failures))

    def _ask(self, stamps: range) -> dict[int, float]:
        # An answer is cut off where the exchange's clock stood when it was last seen.
        seen = self._client.server_time()
        step_ms = self._series.step_ms
        asked = range(stamps[0] // _MS_NS - _LEAD_MS, stamps[-1] // _MS_NS + step_ms, step_ms)
        pages = self._client.pages(self._series, windows(asked, self._series.limit))
        rates = {
            stamp * _MS_NS: rate
            for page in pages
            for stamp, rate in zip(page.stamps.tolist(), page.values[:, 0].tolist(), strict=True)
        }
        self._seen_ns = to_epoch_ms(seen) * _MS_NS
        return {stamp: rates[stamp] for stamp in sorted(rates) if stamp in stamps}
