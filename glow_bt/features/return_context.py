"""The context of the next return from past returns alone, for many paths at once.

What `glow_bt.features.context.context_rows` says of closes, without bars around them: for
simulation, where a bar is a return that was just drawn. A test holds both against each other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from glow_bt.errors import ConfigError
from glow_bt.features.context import ContextRows, ContextSpec

__all__ = ["ReturnContext", "returns_only"]

Floats = npt.NDArray[np.float64]

# As in glow_bt.features.context.
_BEND = 3.0


def returns_only(spec: ContextSpec) -> ContextSpec:
    """Return a spec without the numbers that need more than closes."""
    return replace(spec, range_half_lives=(), volume=False, calendar=False, funding=False)


class ReturnContext:
    """Maps windows of log returns to contexts.

    Args:
        spec: one that `returns_only` would leave as it is.

    Raises:
        ConfigError: if the spec asks for ranges, volumes, the calendar or funding.
    """

    def __init__(self, spec: ContextSpec) -> None:
        if spec != returns_only(spec):
            raise ConfigError(
                "expected a context of past closes alone, found one with "
                f"{', '.join(sorted(set(spec.names) - set(returns_only(spec).names)))}; "
                "leave out ranges, volume, calendar and funding (returns_only)"
            )
        self.spec = spec
        lasting = (spec.window / 4, spec.reference_half_life, spec.downside_half_life)
        self._square_weights = _weights((*lasting, *spec.half_lives), spec.window)
        self._fall_weights = _weights((spec.downside_half_life,), spec.window)[0]
        self._return_weights = _weights(spec.return_half_lives, spec.window)
        self._spans = np.sqrt(2 * np.asarray(spec.return_half_lives))[:, None]

    def __call__(self, returns: Floats) -> ContextRows:
        """Return the contexts of K paths given their last `window` log returns.

        Args:
            returns: (window, K), oldest first.
        """
        spec = self.spec
        square = returns * returns
        long, reference, around, *variances = self._square_weights @ square
        margin = spec.variance_margin * long + spec.least_volatility**2
        reference = reference + margin
        volatility = np.sqrt(reference)
        last = _bent(returns[-1] / volatility)
        falls = self._fall_weights @ np.where(returns < 0, square, 0.0)
        means = self._return_weights @ returns * self._spans / volatility
        rows = [
            *np.log((np.array(variances) + margin) / reference),
            (2 * falls - around) / (around + margin),
            *_bent(means),
            last,
            np.sqrt(np.maximum(-last, 0.0)),
            np.log((square[-1] + margin) / reference),
        ]
        return ContextRows(np.column_stack(rows), volatility)


def _weights(half_lives: tuple[float, ...], window: int) -> Floats:
    """Return (H, window) weights of exponential means, oldest first, each row of sum 1."""
    ages = np.arange(window)[::-1]
    weights = 0.5 ** (ages / np.asarray(half_lives)[:, None])
    normed: Floats = weights / weights.sum(axis=1, keepdims=True)
    return normed


def _bent(values: Floats) -> Floats:
    bent: Floats = _BEND * np.tanh(values / _BEND)
    return bent
