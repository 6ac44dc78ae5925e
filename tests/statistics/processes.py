"""Returns whose dependence is known."""

import numpy as np
from scipy.signal import lfilter


def autoregressive(rng, rows, length, persistence):
    """Normal AR(1) of variance 1."""
    noise = rng.standard_normal((rows, length + 100)) * np.sqrt(1 - persistence**2)
    return lfilter([1.0], [1.0, -persistence], noise, axis=1)[:, 100:]


def garch(rng, rows, length):
    """Normal GARCH(1, 1) of variance 1, persistence 0.98."""
    noise = rng.standard_normal((length + 200, rows))
    variance = np.ones(rows)
    for values in noise:
        values *= np.sqrt(variance)
        variance = 0.02 + 0.08 * values**2 + 0.9 * variance
    return noise[200:].T
