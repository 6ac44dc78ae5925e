"""Histories that an exchange gives and a store keeps: bars, mark price, funding, open interest.

Spans of a history are ranges of epoch milliseconds on its grid, such as
``range(first_open, end, step)``: the end is left out.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from glow_bt.errors import ConfigError
from glow_bt.ohlcv import BAR_COLUMNS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "FUNDING_STEP_MS",
    "KINDS",
    "Page",
    "SeriesKey",
    "SeriesKind",
    "ceil_ms",
    "floor_ms",
    "kind_of",
]

FUNDING_STEP_MS = 3_600_000
"""Grid of funding histories: intervals between payments are whole hours, and change."""


def floor_ms(stamp_ms: int, step_ms: int, offset_ms: int) -> int:
    """Return the last stamp at or before a moment, of a grid that far from the epoch's."""
    return stamp_ms - (stamp_ms - offset_ms) % step_ms


def ceil_ms(stamp_ms: int, step_ms: int, offset_ms: int) -> int:
    """Return the first stamp at or after a moment, of a grid that far from the epoch's."""
    return stamp_ms + (offset_ms - stamp_ms) % step_ms


class SeriesKind(NamedTuple):
    """What a history consists of.

    Attributes:
        name: bars, mark, funding_rate or open_interest.
        columns: names of the values.
        regular: whether every stamp of the grid has a value unless the exchange lacks it.
    """

    name: str
    columns: tuple[str, ...]
    regular: bool


class SeriesKey(NamedTuple):
    """What one history is of.

    Attributes:
        exchange: such as ``bybit``.
        symbol: in ccxt's notation.
        kind: a name of `KINDS`.
        timeframe: such as ``1h``; empty for funding rates, which have none.
    """

    exchange: str
    symbol: str
    kind: str
    timeframe: str


class Page(NamedTuple):
    """What the exchange has of one span.

    Attributes:
        window: the span, which is settled by this: what is not here the exchange lacks.
        stamps: epoch milliseconds within the window, ascending, int64 of shape (N,).
        values: float64 of shape (N, C), in the order of the kind's columns.
    """

    window: range
    stamps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


KINDS: MappingProxyType[str, SeriesKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            SeriesKind("bars", BAR_COLUMNS, regular=True),
            SeriesKind("mark", BAR_COLUMNS[:4], regular=True),
            SeriesKind("funding_rate", ("funding_rate",), regular=False),
            SeriesKind("open_interest", ("open_interest",), regular=True),
        )
    }
)
"""The kinds of history by name."""


def kind_of(name: str) -> SeriesKind:
    """Look a kind up.

    Raises:
        ConfigError: naming the kinds there are, if it is none of them.
    """
    if name not in KINDS:
        raise ConfigError(f"expected a kind among {', '.join(KINDS)}, found {name!r}")
    return KINDS[name]
