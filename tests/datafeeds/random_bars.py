import numpy as np
import pandas as pd


def make_bars(count, freq="h", start="2024-01-01", seed=0, step=0.01):
    """Random bars with prices of one cent and volumes of one thousandth, as exchanges have."""
    rng = np.random.default_rng(seed)
    close = np.round(100.0 * np.exp(np.cumsum(step * rng.standard_normal(count))), 2)
    open_ = np.r_[100.0, close[:-1]]
    spread = np.round(rng.exponential(0.5, (2, count)), 2)
    bars = {
        "open": open_,
        "high": np.round(np.maximum(open_, close) + spread[0], 2),
        "low": np.round(np.minimum(open_, close) - spread[1], 2),
        "close": close,
        "volume": np.round(rng.exponential(50.0, count), 3),
    }
    index = pd.date_range(start, periods=count, freq=freq, tz="UTC", name="timestamp", unit="us")
    frame = pd.DataFrame(bars, index=index)
    frame.index.freq = None
    return frame
