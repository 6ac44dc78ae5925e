"""Brings the columns of the market state to a common scale, with numbers of the past only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from glow_bt.errors import FeatureError
from glow_bt.features.windows import FloatArray

__all__ = ["Scaler"]

# Interquartile range of a standard normal distribution.
_NORMAL_IQR = 1.3489795003921634
# A spread that is a smaller share of the values than this is the rounding of a constant.
_LEAST_RELATIVE_SPREAD = 1e-10


@dataclass(frozen=True)
class Scaler:
    """z = (x - centre) / scale, column by column: median and normalised interquartile range.

    Both are blind to how extreme the extremes are, and nothing is clipped: a crash keeps its
    size. The density in units of x is that of z times exp(log_det).

    Attributes:
        names: D column names.
        centre: D medians.
        scale: D spreads, in the same units as x, above 0.
    """

    names: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        widths = {len(self.names), len(self.centre), len(self.scale)}
        if len(widths) != 1:
            raise FeatureError(
                f"expected as many centres and scales as names, found {len(self.names)} names, "
                f"{len(self.centre)} centres and {len(self.scale)} scales; fit the scaler again"
            )
        for name, centre, scale in zip(self.names, self.centre, self.scale, strict=True):
            if not (math.isfinite(centre) and 0.0 < scale < math.inf):
                raise FeatureError(
                    f"expected a finite centre and a scale above 0, found column {name} with "
                    f"centre {centre} and scale {scale}; fit the scaler again"
                )

    @classmethod
    def fit(cls, features: FloatArray | pd.DataFrame, names: Sequence[str]) -> Scaler:
        """Measure centre and spread of every column.

        Args:
            features: (N, D) rows of the training block only, without warm-up rows.
            names: D column names.

        Returns:
            Scaler with centre = median and scale = interquartile range / 1.349, which is the
            standard deviation of a normal sample; where at least half of a column is one value,
            that range is 0 and the standard deviation is taken.

        Raises:
            FeatureError: if the shape is another, a value is not finite or a column constant.
        """
        rows = np.asarray(features, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(names) or len(rows) < 2:
            raise FeatureError(
                f"expected at least 2 rows of {len(names)} features, found shape {rows.shape}; "
                "give one row a bar and one column a name"
            )
        for name, column in zip(names, rows.T, strict=True):
            if not np.isfinite(column).all():
                raise FeatureError(
                    f"expected finite features, found {int((~np.isfinite(column)).sum())} values "
                    f"of {name} that are not; leave the warm-up rows out"
                )
        lower, centre, upper = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
        spread = np.where(upper > lower, (upper - lower) / _NORMAL_IQR, rows.std(axis=0))
        constant = spread <= _LEAST_RELATIVE_SPREAD * np.abs(rows).max(axis=0)
        if constant.any():
            column = int(constant.argmax())
            raise FeatureError(
                f"expected features that vary, found {names[column]} at {centre[column]:g} in "
                f"all {len(rows)} training rows; check that column of the bars (a feed without "
                "volume?) or train on a longer history"
            )
        return cls(tuple(names), tuple(centre.tolist()), tuple(spread.tolist()))

    @property
    def log_det(self) -> float:
        """Log determinant of x -> z, the same for every row: -sum ln scale."""
        return -math.fsum(map(math.log, self.scale))

    def transform(self, x: FloatArray) -> FloatArray:
        """Scale features (..., D) to z (..., D)."""
        return (np.asarray(x, dtype=np.float64) - self.centre) / self.scale

    def inverse(self, z: FloatArray) -> FloatArray:
        """Bring z (..., D) back to features (..., D)."""
        return np.asarray(z, dtype=np.float64) * self.scale + self.centre

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON values; `from_dict` gets every bit of them back."""
        return {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> Scaler:
        """Rebuild a scaler from `to_dict`.

        Raises:
            FeatureError: if the numbers are incomplete or cannot be a scaler's.
        """
        wanted = {"names", "centre", "scale"}
        if set(numbers) != wanted:
            raise FeatureError(
                f"expected a scaler of {sorted(wanted)}, found {sorted(numbers)}; train again"
            )
        return cls(
            names=tuple(map(str, numbers["names"])),
            centre=tuple(map(float, numbers["centre"])),
            scale=tuple(map(float, numbers["scale"])),
        )
