"""States as a run records them, made up."""

import numpy as np
import pandas as pd


def made_up_states(num_bars, *, num_regimes=3, warm_up=0, freq="h", seed=0):
    """A random walk with a known 5 % VaR; NaN scores for the bars before the first model."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2020-01-01", periods=num_bars, freq=freq, tz="UTC", name="timestamp")
    log_prob = -20.0 - rng.gamma(2.0, 2.0, num_bars)
    exposure = np.where(rng.random(num_bars) < 0.3, 0.0, rng.uniform(-1.0, 1.0, num_bars))
    states = pd.DataFrame(
        {
            "close": 100.0 * np.exp(np.cumsum(0.01 * rng.standard_normal(num_bars))),
            "exposure": exposure,
            "equity": 10_000.0 * np.exp(np.cumsum(0.004 * rng.standard_normal(num_bars))),
            "log_prob": log_prob,
            "confidence": rng.random(num_bars),
            "in_distribution": (log_prob > -30.0).astype(float),
            "direction": rng.uniform(-1.0, 1.0, num_bars),
            "regime": rng.integers(0, num_regimes, num_bars).astype(float),
            "var": np.full(num_bars, -0.01645),
            "cvar": np.full(num_bars, -0.02063),
            "filter_low": np.full(num_bars, -30.0),
            "filter_high": np.full(num_bars, -20.0),
        },
        index=index,
    )
    states.iloc[:warm_up, 3:] = np.nan
    return states


def made_up_latents(states, *, num_latents=4, seed=1):
    values = np.random.default_rng(seed).standard_normal((len(states), num_latents))
    latents = pd.DataFrame(
        values, index=states.index, columns=[f"z{i + 1}" for i in range(num_latents)]
    )
    return latents.assign(regime=states["regime"])


def made_up_training(num_folds, *, num_epochs=12):
    epochs = np.arange(num_epochs)
    return [
        {
            "label": f"fold {fold + 1}",
            "train_nll": (14.0 + 90.0 * np.exp(-2.0 * epochs) - 0.05 * epochs).tolist(),
            "validation_nll": (15.0 + fold + 0.02 * (epochs - 7.0) ** 2).tolist(),
        }
        for fold in range(num_folds)
    ]
