import numpy as np
import pandas as pd
import pytest
from arch.data import nasdaq, sp500


def from_arch(dataset):
    frame = dataset.load()[["Open", "High", "Low", "Close", "Volume"]].astype(float)
    frame.columns = ["open", "high", "low", "close", "volume"]
    return frame.tz_localize("UTC").rename_axis("timestamp")


def simulate_gapless(count=6000, steps=24, seed=7):
    """Bars whose open is the close before, with GARCH(1,1) volatility."""
    rng = np.random.default_rng(seed)
    variance = np.empty(count)
    moves = np.empty((count, steps))
    variance[0] = 1e-4
    for t in range(count):
        if t:
            variance[t] = 2e-6 + 0.1 * moves[t - 1].sum() ** 2 + 0.88 * variance[t - 1]
        moves[t] = rng.standard_normal(steps) * np.sqrt(variance[t] / steps)
    path = 100.0 * np.exp(np.cumsum(moves.ravel()).reshape(count, steps))
    open_ = np.append(100.0, path[:-1, -1])
    log_volume = 0.5 * np.log(variance) + 0.5 * rng.standard_normal(count)
    bars = {
        "open": open_,
        "high": np.maximum(path.max(axis=1), open_),
        "low": np.minimum(path.min(axis=1), open_),
        "close": path[:, -1],
        "volume": np.exp(log_volume),
    }
    index = pd.date_range("2020-01-01", periods=count, freq="h", tz="UTC", name="timestamp")
    return pd.DataFrame(bars, index=index)


@pytest.fixture(scope="session")
def markets():
    """Bars of two real markets and of a simulated one without gaps."""
    return {
        "sp500": from_arch(sp500),
        "nasdaq": from_arch(nasdaq),
        "gapless": simulate_gapless(),
    }


@pytest.fixture(params=["sp500", "nasdaq", "gapless"])
def market(request, markets):
    return markets[request.param]
