"""Input of the statistics: finite numbers in order of time, settings that can work."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from glow_bt.errors import ConfigError, DataError, TooFewBarsError

__all__ = ["NO_RISK", "check_draws", "check_share", "checked_columns", "checked_returns"]

Floats = npt.NDArray[np.float64]

# A standard deviation, downside or drawdown below this is rounding: ratios to it are undefined.
NO_RISK = 1e-12


def checked_returns(
    values: ArrayLike, *, min_bars: int, purpose: str, what: str = "returns"
) -> Floats:
    """Return values as a float64 array (N,).

    Raises:
        DataError: if they have another shape or one of them is not finite.
        TooFewBarsError: if there are fewer than min_bars.
    """
    checked = np.asarray(values, dtype=np.float64)
    if checked.ndim != 1:
        raise DataError(f"expected {what} of shape (N,), found {checked.shape}; give one series")
    _check_bars(checked, min_bars, purpose, what)
    return checked


def checked_columns(values: ArrayLike, *, min_bars: int, purpose: str, what: str) -> Floats:
    """Return values as a float64 array (N, K).

    Raises:
        DataError: if they have another shape or one of them is not finite.
        TooFewBarsError: if there are fewer than min_bars rows.
    """
    checked = np.asarray(values, dtype=np.float64)
    if checked.ndim != 2 or not checked.shape[1]:
        raise DataError(
            f"expected {what} of shape (N, K), one column each, found {checked.shape}; stack them"
        )
    _check_bars(checked, min_bars, purpose, what)
    return checked


def check_draws(draws: int, block_length: float | None) -> None:
    """Refuse a bootstrap that cannot tell anything.

    Raises:
        ConfigError: on fewer than 20 draws or a mean block below one bar.
    """
    if draws < 20:
        raise ConfigError(f"expected at least 20 draws, found {draws}; 2000 are usual")
    if block_length is not None and not 1 <= block_length < np.inf:
        raise ConfigError(
            f"expected a mean block of at least 1 bar, found {block_length}; leave it out to have "
            "it chosen"
        )


def check_share(share: float, what: str) -> None:
    """Raise ConfigError unless a share lies inside (0, 1)."""
    if not 0 < share < 1:
        raise ConfigError(f"expected {what} inside (0, 1), found {share}; 0.95 is usual")


def _check_bars(values: Floats, min_bars: int, purpose: str, what: str) -> None:
    if len(values) < min_bars:
        raise TooFewBarsError(min_bars, len(values), purpose)
    bad = ~np.isfinite(values)
    if bad.any():
        raise DataError(
            f"expected finite {what}, found {int(bad.sum())} that are not, the first at bar "
            f"{int(np.argwhere(bad)[0, 0])}; cut to the bars that were recorded"
        )
