"""A small market and a model of plain arithmetic, so that a bar too late or early shows."""

import functools

import backtrader as bt
import numpy as np
import pandas as pd

from glow_bt.bt import GlowIndicator
from glow_bt.bt.feed import ArrayFeed
from glow_bt.training import TrainConfig, train

WINDOW = 7
HOUR_NS = 3_600_000_000_000


def random_bars(num_bars=300, seed=0, freq="h", start="2024-01-01", volatility=0.01):
    """Bars with gaps between close and open, and prices that differ within each bar."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, volatility, num_bars)))
    open_ = np.r_[100.0, close[:-1]] * np.exp(rng.normal(0.0, volatility / 10, num_bars))
    spread = np.exp(np.abs(rng.normal(0.0, volatility / 2, (2, num_bars))))
    return pd.DataFrame(
        {
            "open": open_,
            "high": np.maximum(open_, close) * spread[0],
            "low": np.minimum(open_, close) / spread[1],
            "close": close,
            "volume": rng.lognormal(0.0, 0.5, num_bars),
        },
        index=pd.date_range(start, periods=num_bars, freq=freq, tz="UTC", name="timestamp"),
    )


class WindowScorer:
    """Scores from the last `min_bars` bars and the stamp alone; every input matters."""

    var_level = 0.05

    def __init__(self, min_bars=WINDOW):
        self.min_bars = min_bars
        self.num_calls = 0

    def score_arrays(self, stamps_ns, bars):
        self.num_calls += 1
        scores = np.full((len(bars), 7), np.nan)
        if len(bars) >= self.min_bars:
            windows = np.lib.stride_tricks.sliding_window_view(bars, self.min_bars, axis=0)
            hour = stamps_ns[self.min_bars - 1 :] // HOUR_NS % 24
            scores[self.min_bars - 1 :] = score_windows(windows, hour)
        return scores


class PeekingScorer(WindowScorer):
    """The same, but row t sees bar t + 1 where there is one."""

    def score_arrays(self, stamps_ns, bars):
        shifted = np.concatenate([bars[1:], bars[-1:]])
        return super().score_arrays(stamps_ns, shifted)


def score_windows(windows, hour):
    """Score windows (N, 5, W) whose last bars open at `hour` (N,)."""
    open_, high, low, close, volume = windows.transpose(1, 0, 2)
    returns = np.diff(np.log(close), axis=1)
    volatility = np.sqrt((returns**2).mean(axis=1))
    last = returns[:, -1] / volatility
    inside_bar = (high / low).mean(axis=1) + (close / open_)[:, 0] + volume.mean(axis=1)
    return np.column_stack(
        [
            -0.5 * last**2 - np.log(volatility) + inside_bar + hour / 24,
            np.exp(-0.25 * last**2),
            np.abs(last) < 1.5,
            np.tanh(returns.sum(axis=1) / volatility),
            volatility > 0.01,
            -1.6 * volatility,
            -2.1 * volatility,
        ]
    )


def scores_of(bars, scorer=None):
    """Scores of a bar frame, straight from the scorer."""
    stamps = bars.index.as_unit("ns").asi8
    columns = bars[["open", "high", "low", "close", "volume"]].to_numpy()
    return (scorer or WindowScorer()).score_arrays(stamps, columns)


class LineProbe(bt.Strategy):
    """Writes down the indicator's lines whenever `next` is called."""

    params = (("model", None), ("on", 0), ("glow", {}))

    def __init__(self):
        self.glow = GlowIndicator(self.datas[self.p.on], model=self.p.model, **self.p.glow)
        self.seen = []
        self.num_prenext = 0

    def prenext(self):
        self.num_prenext += 1

    def next(self):
        values = [line[0] for line in self.glow.lines]
        self.seen.append((self.datas[self.p.on].datetime.datetime(0), *values))

    def table(self):
        frame = pd.DataFrame(self.seen, columns=range(8)).set_index(0).astype(float)
        return frame.set_axis(pd.DatetimeIndex(frame.index).tz_localize("UTC"))


def cerebro_over(bars, **kwargs):
    """Cerebro without observers, over one feed or several."""
    cerebro = bt.Cerebro(stdstats=False, **kwargs)
    for frame in bars if isinstance(bars, list) else [bars]:
        cerebro.adddata(ArrayFeed(dataname=frame))
    return cerebro


def run_strategy(cerebro, strategy, **params):
    """Add a strategy, run, and return its instance."""
    cerebro.addstrategy(strategy, **params)
    return cerebro.run()[0]


@functools.cache
def trained_model():
    """A really trained, tiny model for 1 and 5 bars, and 361 bars after its training."""
    bars = random_bars(1061, seed=11)
    config = TrainConfig(
        fractions=(0.7, 0.3, 0.0),
        max_epochs=2,
        num_levels=2,
        num_steps=2,
        hidden_dim=8,
        return_hidden_dim=8,
        return_members=2,
        return_horizons=(1, 5),
    )
    return train(bars[:700], config), bars[700:]
