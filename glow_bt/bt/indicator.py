"""What the model says about each bar, as Backtrader lines."""

from __future__ import annotations

import math
from array import array
from typing import Any, ClassVar, cast

import backtrader as bt
import numpy as np
import numpy.typing as npt

from glow_bt.bt.parameters import refuse_unknown
from glow_bt.bt.stamps import to_nanoseconds
from glow_bt.errors import ConfigError
from glow_bt.ohlcv import BAR_COLUMNS
from glow_bt.scoring import (
    SCORE_COLUMNS,
    BarScorer,
    LastBar,
    ScheduledScorer,
    Scorer,
    ScoreStream,
    StreamState,
    check_interval,
    open_scorer,
)

__all__ = ["GlowIndicator", "find_indicator"]

Floats = npt.NDArray[np.float64]

_INPUTS = ("datetime", *BAR_COLUMNS)
# Lines of one scale share the picture; the others can be switched on with `plotlines`.
_UNPLOTTED = {"_plotskip": True}


class GlowIndicator(bt.Indicator):
    """Likelihood, filter, direction, regime and VaR of every closed bar of one data feed.

    Under runonce the whole history is scored in one call, else one window of bars a bar; both
    give the same values (to 1e-9). A value depends on the last ``min_bars`` bars of the model
    alone, unless it is recalibrated. It may be asked for repeatedly: a bar that is still forming
    (replay) is scored anew whenever it changes. With fewer bars than that the lines stay NaN and
    a strategy stays in ``prenext``.

    Lines:
        log_prob: log density of the market state.
        confidence: its rank among held-out states, in [0, 1].
        in_distribution: 1 inside the likelihood filter, 0 outside.
        direction: in [-1, 1].
        regime: number of the regime, from 0.
        var: ``var_level`` quantile of the log return over the horizon, a negative number.
        cvar: mean log return below it.

    Args:
        data: a data feed (not a single line), resampled or replayed ones included.
        model: an artifact or its folder, a walk-forward schedule (list of valid-from stamp and
            artifact or folder), or a scorer. In ``optstrategy`` wrap a schedule in a list.
        var_level: probability of a loss beyond VaR; a scorer given as the model keeps its own,
            and so for the next two.
        horizon: bars ahead that VaR and CVaR are for, one that the model was trained for.
        recalibrate: correct VaR and CVaR by how earlier forecasts turned out.
        state: where an earlier run's recalibration stood (its `stream_state`), to go on from.
        allow_training_bars: score bars the model was trained on too.

    Raises:
        ConfigError: if the model is missing or the data is no feed of bars.
        ArtifactError: if the model cannot be used, was trained on bars of another interval, or
            (LookAheadError) on these bars.
    """

    lines: ClassVar[Any] = SCORE_COLUMNS
    params: ClassVar[Any] = (
        ("model", None),
        ("var_level", 0.01),
        ("horizon", 1),
        ("recalibrate", False),
        ("state", None),
        ("allow_training_bars", False),
    )
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
        self._buffers: tuple[bt.LineBuffer, ...] = tuple(self.lines)
        _bar_lines(self.data, _INPUTS)
        if self.p.model is None:
            raise ConfigError(
                "expected model=<artifact folder, schedule or scorer>, found none; "
                "train one with `glow-bt train BARS --out DIR`"
            )
        self.scorer = open_scorer(
            self.p.model,
            var_level=self.p.var_level,
            horizon=self.p.horizon,
            recalibrate=self.p.recalibrate or self.p.state is not None,
            allow_training_bars=self.p.allow_training_bars,
        )
        columns = getattr(self.scorer, "columns", BAR_COLUMNS)
        self._inputs = _bar_lines(self.data, ("datetime", *columns))
        self._stream = _stream_of(self.scorer, self.p.state)
        self._min_bars = self.scorer.min_bars
        self._interval_checked = False
        self._scored_bar: tuple[float, ...] | None = None
        self._scores: list[float] = []
        self._last: LastBar | None = None
        self._history: Floats | None = None
        self._errors: array[float] | None = None
        self.addminperiod(self._min_bars)

    @property
    def var_level(self) -> float:
        """Probability of a loss beyond the line ``var``."""
        return float(getattr(self.scorer, "var_level", self.p.var_level))

    @property
    def horizon(self) -> int:
        """Bars ahead that the lines ``var`` and ``cvar`` are for."""
        return int(getattr(self.scorer, "horizon", self.p.horizon))

    @property
    def stream_state(self) -> StreamState | None:
        """How the recalibration stands after the current bar; None without one.

        Bar by bar only (live, or ``runonce=False``), at a bar's close.

        Raises:
            ConfigError: after a run in one call, which leaves no such state.
        """
        if self._stream is not None and self._history is not None and self.p.state is None:
            raise ConfigError(
                "expected a run bar by bar to have a state, found one in one call; ask the scorer "
                "for `recalibrated(bars)`, or run Cerebro with runonce=False"
            )
        return None if self._stream is None else self._stream.state

    def var_error(self) -> float:
        """Return the standard error of the current bar's VaR; 0 for a scorer that knows none.

        After `once` those of the whole history are found in one call, when first asked for.
        """
        errors = self._errors
        if errors is None:
            if not isinstance(self.scorer, Scorer | ScheduledScorer):
                return 0.0
            if self._history is None:
                return math.nan if self._last is None else self._last.var_error()
            found = self.scorer.var_error(*self._arrays(self._history))
            errors = self._errors = array("d", found.tobytes())
        return errors[len(self) - 1]

    def current_scores(self) -> list[float]:
        """Return the lines' values at the current bar, in their order; one look-up for all."""
        return [line.array[line._idx] for line in self._buffers]

    # What follows does to the lines what Backtrader does, with fewer calls: at seven lines a bar
    # that is felt.

    def __len__(self) -> int:
        """Return how many bars there have been."""
        return int(self.lines.lines[0].lencount)

    def advance(self, size: int = 1) -> None:
        """Move on by some bars, which are there already."""
        if self._buffers[0].mode != bt.LineBuffer.UnBounded:
            super().advance(size)
            return
        for line in self._buffers:
            line._idx += size
            line.lencount += size

    def forward(self, value: float = math.nan, size: int = 1) -> None:
        """Move on by some bars, and make room for them."""
        if size == 1 or self._buffers[0].mode != bt.LineBuffer.UnBounded:
            super().forward(value, size)
            return
        room = array("d", [value]) * size
        for line in self._buffers:
            line.array.extend(room)
        self.advance(size)

    def oncestart(self, start: int, end: int) -> None:
        """Leave the first full bar to `once`, which scores all of them together."""

    def once(self, start: int, end: int) -> None:
        """Score the whole history in one call."""
        if end < self._min_bars:
            return
        history = self._history = np.array([line.array[:end] for line in self._inputs])
        # A state that is gone on from knows which bars it has seen: it goes bar by bar.
        score = self._score if self.p.state is None else self._score_each
        for line, values in zip(self.lines, score(history).T, strict=True):
            line.array[:end] = array("d", values.tobytes())

    def next(self) -> None:
        """Score the current bar."""
        bar = (len(self.data), *(line[0] for line in self._inputs))
        if bar != self._scored_bar:
            window = np.array([line.get(size=self._min_bars) for line in self._inputs])
            self._scores = self._score_last(window).tolist()
            self._scored_bar = bar
        for line, value in zip(self.lines, self._scores, strict=True):
            line[0] = value

    def _plotlabel(self) -> list[str]:
        # By default every parameter's text, the model's too.
        return [f"VaR at {self.var_level:.3g}"]

    def _score(self, inputs: Floats) -> Floats:
        """Score (6, N) stamps and bars in the order of the scorer's columns: (N, 7)."""
        return self.scorer.score_arrays(*self._arrays(inputs))

    def _score_last(self, inputs: Floats) -> Floats:
        """Score the last of min_bars bars: (7,)."""
        scorer = self._stream or self.scorer
        if not isinstance(scorer, ScoreStream | Scorer | ScheduledScorer):
            own: Floats = self._score(inputs)[-1]
            return own
        self._last = scorer.last_bar(*self._arrays(inputs))
        return self._last.scores

    def _score_each(self, inputs: Floats) -> Floats:
        """Score (6, N) one after another: (N, 7)."""
        scores = np.full((inputs.shape[1], len(SCORE_COLUMNS)), np.nan)
        for stop in range(self._min_bars, inputs.shape[1] + 1):
            scores[stop - 1] = self._score_last(inputs[:, stop - self._min_bars : stop])
        return scores

    def _arrays(self, inputs: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
        stamps = to_nanoseconds(inputs[0])
        if not self._interval_checked and isinstance(self.scorer, Scorer | ScheduledScorer):
            # The first window only, whatever the mode: a hole later on stops no strategy.
            check_interval(stamps[: self._min_bars], self.scorer.bar_seconds)
        self._interval_checked = True
        return stamps, np.ascontiguousarray(inputs[1:].T)


def _stream_of(scorer: BarScorer, state: StreamState | None) -> ScoreStream | None:
    recalibrates = (
        isinstance(scorer, Scorer | ScheduledScorer) and scorer.recalibration is not None
    )
    if not recalibrates:
        if state is not None:
            raise ConfigError(
                "expected a scorer that recalibrates to go on from a state, found one that does "
                "not; give recalibrate=True or no state"
            )
        return None
    return ScoreStream(cast("Scorer | ScheduledScorer", scorer), state)


def find_indicator(strategy: bt.Strategy, data: bt.AbstractDataBase) -> GlowIndicator | None:
    """Return the strategy's GlowIndicator on a data feed, or None."""
    for indicator in strategy.getindicators():
        if isinstance(indicator, GlowIndicator) and indicator.data is data:
            return indicator
    return None


def _bar_lines(data: bt.LineSeries, names: tuple[str, ...]) -> tuple[bt.LineBuffer, ...]:
    missing = [name for name in names if not hasattr(data.lines, name)]
    if missing:
        raise ConfigError(
            f"expected a data feed with lines {', '.join(names)}, found none of "
            f"{', '.join(missing)}; give self.data, not a line such as self.data.close, of a feed "
            "with all that the model was trained with"
        )
    return tuple(getattr(data.lines, name) for name in names)
