"""Every error that glow_bt raises on purpose.

::

    GlowError
    ├── ConfigError (ValueError)        a setting that cannot work
    ├── DataError (ValueError)          bars that break the contract of glow_bt.ohlcv
    │   └── TooFewBarsError             not enough bars for what was asked
    ├── FeatureError (ValueError)       a market state that cannot be computed or scaled
    ├── FlowError (ValueError)          a flow fed with the wrong shape or with NaN
    ├── TrainingError                   training that produced no usable model
    ├── ArtifactError                   a model folder that cannot be used
    │   └── LookAheadError              scoring bars that the model was trained on
    ├── ResultsError                    a results folder that cannot be written or read
    ├── MissingExtraError (ImportError) an optional library that is not installed
    └── FeedError                       the exchange's answer cannot be used
        ├── SymbolError                 the exchange does not know the symbol
        └── TransientFeedError          worth asking again

Each message says what was expected, what was found and what to do.
"""

__all__ = [
    "ArtifactError",
    "ConfigError",
    "DataError",
    "FeatureError",
    "FeedError",
    "FlowError",
    "GlowError",
    "LookAheadError",
    "MissingExtraError",
    "ResultsError",
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
