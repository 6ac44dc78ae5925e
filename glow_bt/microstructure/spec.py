"""What the bars of microstructure features are to hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from glow_bt.errors import ConfigError

__all__ = ["DAY_MS", "MicrostructureSpec", "step_of"]

DAY_MS = 86_400_000
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS}
# Longest bar, so that no arithmetic on stamps leaves 64 bits.
_LONGEST_MS = 366 * DAY_MS


def step_of(text: str, what: str = "a length of bars") -> int:
    """Return the milliseconds of a text such as 500ms, 10s, 1m, 4h or 1d.

    Args:
        text: the text.
        what: what it is to be, for the message.

    Raises:
        ConfigError: on another text, or more than a year.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,8})(ms|s|m|h|d)", text)
    step_ms = int(match[1]) * _UNITS_MS[match[2]] if match else 0
    if not 0 < step_ms <= _LONGEST_MS:
        raise ConfigError(f"expected {what} such as 500ms, 10s, 1m, 4h or 1d, found {text!r}")
    return step_ms


@dataclass(frozen=True)
class MicrostructureSpec:
    """Settings of the bars.

    Attributes:
        step_ms: length of a bar; opens are multiples of it since the epoch.
        levels: how many levels of the book count in order flow and depth imbalance.
        vwap_reference: what the volume-weighted price is compared with: the last trade's price
            (``close``) or the mid at the bar's close (``mid``, which needs a book).
        interval_ms: length of the intervals that Kyle's lambda is regressed over, and that bulk
            classification takes together; it divides the bar. Default: the bar.
        window: how many intervals up to a bar's close these two look back on.
        impact: ``linear`` for Kyle's lambda, ``sqrt`` for Hasbrouck's.
        classification: whose trades VPIN takes for buys: those of buying takers (``sides``), or
            a share of each interval's volume by its price change (``bulk``).
        bucket_volume: volume of VPIN's buckets, in the trades' unit. Default: the volume of the
            record's first day over `buckets`; VPIN then starts after that day.
        buckets: how many of them VPIN is the mean over.
    """

    step_ms: int
    levels: int = 5
    vwap_reference: Literal["close", "mid"] = "close"
    interval_ms: int | None = None
    window: int = 60
    impact: Literal["linear", "sqrt"] = "linear"
    classification: Literal["sides", "bulk"] = "sides"
    bucket_volume: float | None = None
    buckets: int = 50

    def __post_init__(self) -> None:
        for name, least in (("step_ms", 1), ("levels", 1), ("window", 3), ("buckets", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"expected {name} from {least} on, found {getattr(self, name)}")
        choices = {
            "vwap_reference": ("close", "mid"),
            "impact": ("linear", "sqrt"),
            "classification": ("sides", "bulk"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"expected {name} among {', '.join(known)}, found {getattr(self, name)!r}"
                )
        interval = self.interval
        if interval < 1 or self.step_ms % interval:
            raise ConfigError(
                f"expected interval_ms to divide bars of {self.step_ms} ms, found {interval}"
            )
        volume = self.bucket_volume
        if volume is not None and not 0 < volume < float("inf"):
            raise ConfigError(f"expected a bucket_volume above 0, found {volume}")

    @property
    def interval(self) -> int:
        """Length of an interval in milliseconds."""
        return self.step_ms if self.interval_ms is None else self.interval_ms

    @property
    def intervals_per_bar(self) -> int:
        """How many intervals a bar consists of."""
        return self.step_ms // self.interval

    @property
    def trade_columns(self) -> tuple[str, ...]:
        """Names of the features that trades give."""
        return (
            "trade_count",
            "buy_volume",
            "sell_volume",
            "signed_volume",
            "vwap",
            "vwap_deviation_bps",
            "vpin",
            "vpin_buckets",
            "kyle_lambda",
            "kyle_lambda_se",
        )

    @property
    def book_columns(self) -> tuple[str, ...]:
        """Names of the features that a book gives."""
        return (
            "book_valid_share",
            "book_updates",
            "spread_bps",
            "mid",
            "microprice",
            "depth_imbalance",
            "depth_imbalance_close",
            *(f"ofi_{level}" for level in range(1, self.levels + 1)),
        )
