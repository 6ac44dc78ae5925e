"""Every error that glow_bt raises on purpose.

::

    GlowError
    ├── ConfigError (ValueError)        a setting that cannot work
    ├── DataError (ValueError)          bars that break the contract of glow_bt.ohlcv
    │   ├── TooFewBarsError             not enough bars for what was asked
    │   └── StoreError                  stored bars that cannot be read or written
    │       ├── DamagedPartError        a file of theirs is damaged; the others are good
    │       └── StoreLockedError        another process is writing them
    ├── FeatureError (ValueError)       a market state that cannot be computed or scaled
    ├── FlowError (ValueError)          a flow fed with the wrong shape or with NaN
    ├── TrainingError                   training that produced no usable model
    ├── ArtifactError                   a model folder that cannot be used
    │   └── LookAheadError              scoring bars that the model was trained on
    ├── ResultsError                    a results folder that cannot be written or read
    ├── MissingExtraError (ImportError) an optional library that is not installed
    └── FeedError                       the exchange's answer cannot be used
        ├── SymbolError                 the exchange does not know the symbol
        ├── RegionError                 it does not serve this country
        ├── AccessError                 it refuses the key
        └── TransientFeedError          worth asking again
            ├── RateLimitError          asked too often
            ├── ClockSkewError          the request's time is not the exchange's
            ├── MaintenanceError        the exchange is down for now
            └── MalformedAnswerError    the answer was damaged on its way

Each message says what was expected, what was found and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "AccessError",
    "ArtifactError",
    "ClockSkewError",
    "ConfigError",
    "DamagedPartError",
    "DataError",
    "FeatureError",
    "FeedError",
    "FlowError",
    "GlowError",
    "LookAheadError",
    "MaintenanceError",
    "MalformedAnswerError",
    "MissingExtraError",
    "RateLimitError",
    "RegionError",
    "ResultsError",
    "StoreError",
    "StoreLockedError",
    "SymbolError",
    "TooFewBarsError",
    "TrainingError",
    "TransientFeedError",
]


class GlowError(Exception):
    """Root of all errors of this package."""


class ConfigError(GlowError, ValueError):
    """A setting is outside what can work."""


class DataError(GlowError, ValueError):
    """Bars break the contract of `glow_bt.ohlcv`."""


class TooFewBarsError(DataError):
    """There are fewer bars than the request needs."""

    def __init__(self, needed: int, found: int, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs at least {needed} bars, found {found}; "
            f"give {needed - found} more bars of history"
        )
        self.needed = needed
        self.found = found


class StoreError(DataError):
    """Stored bars cannot be read or written."""


class DamagedPartError(StoreError):
    """A file of stored bars is damaged; the others are good.

    Attributes:
        part: the file.
    """

    def __init__(self, part: Path, what: str) -> None:
        super().__init__(
            f"expected an intact file of bars, found {part} damaged ({what}); "
            "`glow-bt data repair` fetches its bars again and keeps the rest"
        )
        self.part = part


class StoreLockedError(StoreError):
    """Another process is writing the same bars."""


class FeatureError(GlowError, ValueError):
    """The market state cannot be computed or scaled."""


class FlowError(GlowError, ValueError):
    """A flow was given the wrong shape or a value that is not finite."""


class TrainingError(GlowError):
    """Training ended without a usable model."""


class ArtifactError(GlowError):
    """A model folder is missing, damaged or of another kind."""


class LookAheadError(ArtifactError):
    """Bars inside a model's training interval were to be scored."""


class ResultsError(GlowError):
    """A results folder cannot be written or read."""


class MissingExtraError(GlowError, ImportError):
    """An optional library is needed and not installed."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {library}, found it not installed; "
            f"pip install 'glow-bt[{extra}]'"
        )


class FeedError(GlowError):
    """The exchange's answer cannot be used."""


class SymbolError(FeedError):
    """The exchange does not know the symbol."""


class TransientFeedError(FeedError):
    """The exchange failed in a way that is worth asking again."""


class RegionError(FeedError):
    """The exchange does not serve this country or region."""


class AccessError(FeedError):
    """The exchange refuses the key, or what it may do."""


class RateLimitError(TransientFeedError):
    """The exchange was asked too often."""


class ClockSkewError(TransientFeedError):
    """The exchange says that a request came with the wrong time."""


class MaintenanceError(TransientFeedError):
    """The exchange does not work for now."""


class MalformedAnswerError(TransientFeedError):
    """An answer was damaged on its way, or holds what cannot be."""
