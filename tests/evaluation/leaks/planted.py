"""Targets that look ahead, each in a line marked so, and targets that do not."""

import itertools

import backtrader as bt
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler

LATE = 500


def shifted(bars):
    out = pd.DataFrame({"trend": bars["close"].rolling(5).mean()})
    following = bars["close"].shift(-1)  # leaks
    out["gain"] = following / bars["close"]
    return out


def scaled_by_everything(bars):
    returns = bars[["close"]].pct_change().fillna(0.0)
    scaler = StandardScaler()
    scaler.fit(returns)  # leaks
    return scaler.transform(returns)


def normalised(bars):
    volume = np.log1p(bars["volume"])
    mean, spread = volume.mean(), volume.std()  # leaks
    return (volume - mean) / spread


def centred(bars):
    return bars["close"].rolling(5, center=True).mean()  # leaks


def filled_backwards(bars):
    known = bars["close"].where(np.arange(len(bars)) % 3 == 0)
    return known.bfill()  # leaks


def interpolated(bars):
    known = bars["close"].where(np.arange(len(bars)) % 4 == 0)
    return known.interpolate()  # leaks


def left_labelled(bars):
    hours4 = bars["close"].resample("4h").last()  # leaks
    return hours4.reindex(bars.index, method="ffill")


def wrapped_index(bars):
    closes, gains = bars["close"].to_numpy(), []
    for row, close in enumerate(closes):
        gains.append(close / closes[row - 5])  # leaks
    return gains


def against_the_last(bars):
    last = bars["close"].iloc[-1]  # leaks
    return bars["close"] / last


def ranked(bars):
    return bars["close"].rank(pct=True)  # leaks


def target_encoded(bars):
    gains = bars["close"].pct_change().fillna(0.0)
    hours = bars.index.hour
    return gains.groupby(hours).transform("mean")  # leaks


def above_a_quantile(bars):
    threshold = bars["close"].quantile(0.5)  # leaks
    return bars["close"] > threshold


def late_leak(bars):
    trend = bars["close"].rolling(3).mean()
    trend.iloc[LATE:] = trend.shift(-1).iloc[LATE:]  # leaks
    return trend


def volume_only(bars):
    volume = bars["volume"]
    following = volume.shift(-1)  # leaks
    return following > volume.rolling(20).mean()


def inner(prices):
    return prices.shift(-2)  # leaks


def through_a_helper(bars):
    out = bars[["close"]].pct_change()
    out["later"] = inner(bars["close"])
    return out


def trained_on_everything(bars):
    gains = bars["close"].pct_change().fillna(0.0)
    known = np.column_stack([gains.shift(k).fillna(0.0) for k in range(3)])
    rises = (gains.shift(-1) > 0).astype(float)
    model = LinearRegression()
    model.fit(known, rises)  # leaks
    return model.predict(known)


def rolled_round(bars):
    closes = bars["close"].to_numpy()
    following = np.roll(closes, -1)  # leaks
    return following / closes


FUNCTIONS = {
    shifted: 1,
    scaled_by_everything: "end",
    normalised: "end",
    centred: 2,
    filled_backwards: (1, 2),
    interpolated: (1, 2, 3),
    left_labelled: (1, 2, 3),
    wrapped_index: None,
    against_the_last: "end",
    ranked: "end",
    target_encoded: None,
    above_a_quantile: None,
    late_leak: 1,
    volume_only: 1,
    through_a_helper: 2,
    trained_on_everything: "end",
    rolled_round: 1,
}


class NextClose(bt.Strategy):
    def next(self):
        if len(self.data) == self.data.buflen():
            return
        if self.data.close[1] > self.data.close[0]:  # leaks
            self.buy()
        elif self.position:
            self.close()


class Unguarded(bt.Strategy):
    def next(self):
        if self.data.close[2] > self.data.close[0]:  # leaks
            self.buy()


class WrappedIndex(bt.Strategy):
    def next(self):
        if self.data.close[0] > self.data.close[-5]:  # leaks
            self.buy()


class ReadInInit(bt.Strategy):
    def __init__(self):
        self.top = max(self.data.close.array)  # leaks

    def next(self):
        if self.data.close[0] > 0.99 * self.top:
            self.sell()


class NegativeDelay(bt.Strategy):
    def __init__(self):
        self.ahead = self.data.close(1)  # leaks
        self.average = bt.ind.SMA(self.data, period=3)

    def next(self):
        if self.average[0] < self.ahead[0]:
            self.buy()


class LateVolume(bt.Strategy):
    """Acts late in the history, on volume alone."""

    def next(self):
        if 150 < len(self) < self.data.buflen():
            following = self.data.volume.array[len(self)]  # leaks
            if following > self.data.volume[0]:
                self.buy(size=2)


class PeekingOnce(bt.Indicator):
    lines = ("ahead",)

    def once(self, start, end):
        source, made = self.data.close.array, self.lines.ahead.array
        for row in range(start, end):
            made[row] = source[min(row + 1, end - 1)]  # leaks

    def next(self):
        self.lines.ahead[0] = self.data.close[0]


class PeekingNext(bt.Indicator):
    lines = ("ahead",)

    def next(self):
        row = len(self.data) - 1
        later = self.data.close.array[min(row + 3, self.data.buflen() - 1)]  # leaks
        self.lines.ahead[0] = later - self.data.close[0]


class ScaledLine(bt.Indicator):
    lines = ("z",)

    def once(self, start, end):
        closes = np.array(self.data.close.array)
        scores = (closes - closes.mean()) / closes.std()  # leaks
        for row in range(start, end):
            self.lines.z.array[row] = scores[row]


class Peaks(bt.Indicator):
    """Knows a peak one bar early, but not at the end, whatever another future brings."""

    lines = ("peak",)

    def __init__(self):
        self.addminperiod(3)

    def once(self, start, end):
        highs, made = self.data.high.array, self.lines.peak.array
        for row in range(start, end - 1):
            made[row] = float(highs[row - 1] < highs[row] > highs[row + 1])  # leaks

    def next(self):
        self.lines.peak[0] = 0.0


class Repainting(bt.Indicator):
    """Writes its past, which a strategy sees under runonce."""

    lines = ("turn",)

    def __init__(self):
        self.addminperiod(3)

    def next(self):
        if self.data.close[-1] > max(self.data.close[0], self.data.close[-2]):
            self.lines.turn[-1] = self.data.close[-1]  # leaks


class Crossover(bt.Strategy):
    def __init__(self):
        self.fast = bt.ind.SMA(self.data, period=5)
        self.slow = bt.ind.SMA(self.data, period=15)
        self.cross = bt.ind.CrossOver(self.fast, self.slow)

    def next(self):
        print("a strategy that talks")
        if self.cross[0] > 0:
            self.buy(exectype=bt.Order.Limit, price=self.data.close[0])
        elif self.cross[0] < 0:
            self.close()


def expanding_score(bars):
    closes = bars["close"]
    return (closes - closes.expanding().mean()) / closes.expanding().std()


def four_hours_known(bars):
    """A higher timeframe, known when its last hour closes."""
    hours4 = bars["close"].resample("4h", closed="left", label="right").last()
    hours4.index = hours4.index - pd.Timedelta(hours=1)
    return hours4.reindex(bars.index, method="ffill")


def words(bars):
    return pd.Series(np.where(bars["close"].diff() > 0, "up", "down"), bars.index)


_calls = itertools.count()


def drawn_by_chance(bars):
    return bars["close"] + next(_calls)


def failing(bars):
    return bars["clsoe"]


def too_short(bars):
    return bars["close"].tail(3).to_numpy()


def needs_many(bars):
    return bars["close"].rolling(10_000).mean()


class NeedsMany(bt.Strategy):
    def __init__(self):
        self.average = bt.ind.SMA(self.data, period=5000)


_kept = {}


def kept_between_runs(bars):
    return _kept.setdefault("gain", bars["close"].pct_change())


def with_an_argument(bars, window):
    return bars["close"].rolling(window).mean()


class WithAnArgument(bt.Strategy):
    def __init__(self, threshold):
        self.threshold = threshold
