"""What the model says about each bar, as Backtrader lines."""

from __future__ import annotations

from array import array
from typing import Any, ClassVar

import backtrader as bt
import numpy as np
import numpy.typing as npt

from glow_bt.bt.parameters import refuse_unknown
from glow_bt.bt.stamps import to_nanoseconds
from glow_bt.errors import ConfigError
from glow_bt.ohlcv import BAR_COLUMNS
from glow_bt.scoring import (
    SCORE_COLUMNS,
    ScheduledScorer,
    Scorer,
    check_interval,
    open_scorer,
)

__all__ = ["GlowIndicator", "find_indicator"]

_INPUTS = ("datetime", *BAR_COLUMNS)
# Lines of one scale share the picture; the others can be switched on with `plotlines`.
_UNPLOTTED = {"_plotskip": True}


class GlowIndicator(bt.Indicator):
    """Likelihood, filter, direction, regime and VaR of every closed bar of one data feed.

    Under runonce the whole history is scored in one call, else one window of bars a bar; both
    give the same values (to 1e-9). A value depends on the last ``min_bars`` bars of the model
    alone, so it may be asked for repeatedly: a bar that is still forming (replay) is scored
    anew whenever it changes. With fewer bars than that the lines stay NaN and a strategy stays
    in ``prenext``.

    Lines:
        log_prob: log density of the market state.
        confidence: its rank among held-out states, in [0, 1].
        in_distribution: 1 inside the likelihood filter, 0 outside.
        direction: in [-1, 1].
        regime: number of the regime, from 0.
        var: ``var_level`` quantile of the next bar's log return, a negative number.
        cvar: mean log return below it.

    Args:
        data: a data feed (not a single line), resampled or replayed ones included.
        model: an artifact or its folder, a walk-forward schedule (list of valid-from stamp and
            artifact or folder), or a scorer. In ``optstrategy`` wrap a schedule in a list.
        var_level: probability of a loss beyond VaR; a scorer given as the model keeps its own.
        allow_training_bars: score bars the model was trained on too.

    Raises:
        ConfigError: if the model is missing or the data is no feed of bars.
        ArtifactError: if the model cannot be used, was trained on bars of another interval, or
            (LookAheadError) on these bars.
    """

    lines: ClassVar[Any] = SCORE_COLUMNS
    params: ClassVar[Any] = (("model", None), ("var_level", 0.01), ("allow_training_bars", False))
    plotinfo: ClassVar[dict[str, Any]] = {
        "subplot": True,
        "plotname": "GLOW",
        "plotyhlines": [0.0],
        "plotlinelabels": True,
    }
    plotlines: ClassVar[dict[str, Any]] = {
        "confidence": {"color": "tab:blue", "alpha": 0.6},
        "in_distribution": {"color": "tab:gray", "drawstyle": "steps-post", "alpha": 0.5},
        "direction": {"color": "tab:orange"},
        "log_prob": _UNPLOTTED,
        "regime": _UNPLOTTED,
        "var": _UNPLOTTED,
        "cvar": _UNPLOTTED,
    }

    def __init__(self, *args: object, **kwargs: object) -> None:
        refuse_unknown(self, args, kwargs)
        super().__init__()
        self._inputs = _bar_lines(self.data)
        if self.p.model is None:
            raise ConfigError(
                "expected model=<artifact folder, schedule or scorer>, found none; "
                "train one with `glow-bt train BARS --out DIR`"
            )
        self.scorer = open_scorer(
            self.p.model,
            var_level=self.p.var_level,
            allow_training_bars=self.p.allow_training_bars,
        )
        self._min_bars = self.scorer.min_bars
        self._interval_checked = False
        self._scored_bar: tuple[float, ...] | None = None
        self._scores: list[float] = []
        self.addminperiod(self._min_bars)

    @property
    def var_level(self) -> float:
        """Probability of a loss beyond the line ``var``."""
        return float(getattr(self.scorer, "var_level", self.p.var_level))

    def oncestart(self, start: int, end: int) -> None:
        """Leave the first full bar to `once`, which scores all of them together."""

    def once(self, start: int, end: int) -> None:
        """Score the whole history in one call."""
        if end < self._min_bars:
            return
        history = np.array([line.array[:end] for line in self._inputs])
        for line, values in zip(self.lines, self._score(history).T, strict=True):
            line.array[:end] = array("d", values.tobytes())

    def next(self) -> None:
        """Score the current bar."""
        bar = (len(self.data), *(line[0] for line in self._inputs))
        if bar != self._scored_bar:
            window = np.array([line.get(size=self._min_bars) for line in self._inputs])
            self._scores = self._score(window)[-1].tolist()
            self._scored_bar = bar
        for line, value in zip(self.lines, self._scores, strict=True):
            line[0] = value

    def _plotlabel(self) -> list[str]:
        # By default every parameter's text, the model's too.
        return [f"VaR at {self.var_level:.3g}"]

    def _score(self, inputs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Score (6, N) stamps and bars in the order of `_INPUTS`."""
        stamps = to_nanoseconds(inputs[0])
        if not self._interval_checked and isinstance(self.scorer, Scorer | ScheduledScorer):
            # The first window only, whatever the mode: a hole later on stops no strategy.
            check_interval(stamps[: self._min_bars], self.scorer.bar_seconds)
        self._interval_checked = True
        return self.scorer.score_arrays(stamps, np.ascontiguousarray(inputs[1:].T))


def find_indicator(strategy: bt.Strategy, data: bt.AbstractDataBase) -> GlowIndicator | None:
    """Return the strategy's GlowIndicator on a data feed, or None."""
    for indicator in strategy.getindicators():
        if isinstance(indicator, GlowIndicator) and indicator.data is data:
            return indicator
    return None


def _bar_lines(data: bt.LineSeries) -> tuple[bt.LineBuffer, ...]:
    missing = [name for name in _INPUTS if not hasattr(data.lines, name)]
    if missing:
        raise ConfigError(
            f"expected a data feed with lines {', '.join(_INPUTS)}, found none of "
            f"{', '.join(missing)}; give self.data, not a line such as self.data.close"
        )
    return tuple(getattr(data.lines, name) for name in _INPUTS)
