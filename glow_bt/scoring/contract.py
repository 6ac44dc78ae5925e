"""What the Backtrader adapters need of a model, and what of the bars that it is given."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from glow_bt.errors import ArtifactError, ConfigError

__all__ = ["SCORE_COLUMNS", "BarScorer", "check_interval", "check_level"]

SCORE_COLUMNS = (
    "log_prob",
    "confidence",
    "in_distribution",
    "direction",
    "regime",
    "var",
    "cvar",
)

Floats = npt.NDArray[np.float64]
Stamps = npt.NDArray[np.int64]

# Bars need not come at even intervals, but not at other ones than the model knows.
_INTERVAL_TOLERANCE = 1.5
_UNITS = {"day": 86_400.0, "hour": 3_600.0, "minute": 60.0, "second": 1.0}


@runtime_checkable
class BarScorer(Protocol):
    """What the Backtrader adapters need of a model.

    Attributes:
        min_bars: bars that a row depends on, itself included.
    """

    @property
    def min_bars(self) -> int:
        """Bars that a row depends on, itself included."""
        ...

    def score_arrays(self, stamps_ns: Stamps, bars: Floats) -> Floats:
        """Score bars (N, 5) open, high, low, close, volume with open stamps (N,).

        Returns:
            (N, 7) in the order of `SCORE_COLUMNS`; NaN for the first min_bars - 1 rows and
            where no model is valid.
        """
        ...


def check_level(level: float) -> None:
    """Refuse what is no level of a lower tail.

    Raises:
        ConfigError: if it is outside (0, 0.5].
    """
    if not 0 < level <= 0.5:
        raise ConfigError(
            f"expected a VaR level inside (0, 0.5], found {level}; give such as 0.01"
        )


def check_interval(stamps_ns: Stamps, bar_seconds: float) -> None:
    """Refuse bars of another interval than a model's.

    The lower quartile of the steps counts, so that holes are no reason to refuse a history.

    Args:
        stamps_ns: (N,) stamps of neighbouring bars, at least two.
        bar_seconds: interval of the bars that the model was trained on.

    Raises:
        ArtifactError: if the steps differ by more than half.
    """
    step = float(np.quantile(np.diff(stamps_ns), 0.25)) / 1e9
    if not 1 / _INTERVAL_TOLERANCE < step / bar_seconds < _INTERVAL_TOLERANCE:
        trained, found = (_in_words(seconds) for seconds in (bar_seconds, step))
        raise ArtifactError(
            f"expected bars every {trained}, as the model was trained on, found bars every "
            f"{found}; train a model on such bars"
        )


def _in_words(seconds: float) -> str:
    """Return a length of time such as 1 hour, 15 minutes or 1.5 days."""
    unit = next((unit for unit in _UNITS if seconds >= _UNITS[unit]), "second")
    count = f"{seconds / _UNITS[unit]:.10g}"
    return f"{count} {unit}" if count == "1" else f"{count} {unit}s"
