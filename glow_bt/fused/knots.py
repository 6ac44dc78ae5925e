"""One rational-quadratic spline in numpy; see `glow_bt.flows.spline` for formulas and source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["KnotSpline"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class KnotSpline:
    """A monotone map of numbers, the identity outside its knots.

    Attributes:
        x: (K,) ascending abscissas of the knots.
        y: (K,) ascending ordinates, with y = x at both ends.
        slope: (K,) slopes at the knots, 1 at both ends.
    """

    x: Floats
    y: Floats
    slope: Floats

    def forward(self, x: Floats) -> tuple[Floats, Floats]:
        """Return y of any shape, and log dy/dx."""
        inside = (x > self.x[0]) & (x < self.x[-1])
        y, log_slopes = np.array(x), np.zeros_like(x)
        at = y[inside]
        x0, width, y0, height, d0, d1 = self._bin_of(at, self.x)
        slope = height / width
        t = (at - x0) / width
        u = t * (1 - t)
        denominator = slope + (d0 + d1 - 2 * slope) * u
        y[inside] = y0 + height * (slope * t * t + d0 * u) / denominator
        log_slopes[inside] = _log_slope(t, u, slope, d0, d1, denominator)
        return y, log_slopes

    def inverse(self, y: Floats) -> Floats:
        """Return x of any shape."""
        inside = (y > self.y[0]) & (y < self.y[-1])
        x = np.array(y)
        at = x[inside]
        x0, width, y0, height, d0, d1 = self._bin_of(at, self.y)
        slope = height / width
        rise = at - y0
        bend = rise * (d0 + d1 - 2 * slope)
        a = height * (slope - d0) + bend
        b = height * d0 - bend
        c = -slope * rise
        t = 2 * c / (-b - np.sqrt(np.maximum(b * b - 4 * a * c, 0.0)))
        x[inside] = x0 + t * width
        return x

    def _bin_of(self, at: Floats, searched: Floats) -> tuple[Floats, ...]:
        """Return left end, width, lower end, height and both slopes of the bin that holds `at`."""
        left = np.searchsorted(searched[1:-1], at, side="right")
        ends = (self.x, np.diff(self.x), self.y, np.diff(self.y), self.slope, self.slope[1:])
        return tuple(values[left] for values in ends)


def _log_slope(
    t: Floats, u: Floats, slope: Floats, d0: Floats, d1: Floats, denominator: Floats
) -> Floats:
    numerator = d1 * t * t + 2 * slope * u + d0 * (1 - t) ** 2
    log_slope: Floats = 2 * np.log(slope) + np.log(numerator) - 2 * np.log(denominator)
    return log_slope
