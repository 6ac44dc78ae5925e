"""Scoring bar by bar with a recalibration that remembers, across restarts too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.fused.corrected_nodes import prepare
from glow_bt.risk.recalibrated_bar import CorrectedTail, corrected_tail
from glow_bt.risk.recalibration import Recalibration
from glow_bt.scoring.last_bar import LastBar
from glow_bt.scoring.risk_lines import Forecaster
from glow_bt.scoring.scorer import ScheduledScorer, Scorer

__all__ = ["ScoreStream", "StreamState"]

Floats = npt.NDArray[np.float64]
Stamps = npt.NDArray[np.int64]

# Forecasts kept for each bar of the horizon: bars that form leave some that never come due.
_REMEMBERED = 4


@dataclass(frozen=True)
class StreamState:
    """How far a stream has come: all that a restart needs.

    Attributes:
        recalibration: as it stands after the last bar.
        stamp_ns: open stamp of that bar; None before the first.
        horizon: bars ahead of the forecasts that it followed.
    """

    recalibration: Recalibration
    stamp_ns: int | None = None
    horizon: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON values; `from_dict` gets every bit of it back."""
        return {
            "recalibration": self.recalibration.to_dict(),
            "stamp_ns": self.stamp_ns,
            "horizon": self.horizon,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StreamState:
        """Rebuild a state from `to_dict`.

        Raises:
            ConfigError: if the values are incomplete or cannot be a state's.
        """
        if set(values) != {"recalibration", "stamp_ns", "horizon"}:
            raise ConfigError(
                "expected the state of a stream, recalibration and stamp_ns with a horizon, found "
                f"{sorted(values)}; start anew"
            )
        stamp, horizon = values["stamp_ns"], values["horizon"]
        if type(horizon) is not int or type(stamp) not in {int, type(None)}:
            raise ConfigError(
                "expected a stamp in whole nanoseconds and a horizon in whole bars, found "
                f"{stamp!r} and {horizon!r}; start anew"
            )
        return cls(Recalibration.from_dict(values["recalibration"]), stamp, horizon)


class _Made(NamedTuple):
    """A forecast, what was read off it, and the recalibration that was used."""

    forecaster: Forecaster | None
    tail: CorrectedTail | None = None
    recalibration: Recalibration | None = None


class ScoreStream:
    """Scores one bar after another as its scorer does the whole history.

    Bars up to the stamp of a state that is gone on from are not counted again, so that a restart
    may be given its warm-up; those before it have no VaR and CVaR (NaN), as the state knows how
    they turned out. A bar that is scored again while it forms is counted once, as it was scored
    last.

    Args:
        scorer: one that recalibrates.
        state: how an earlier stream stood. Default: the start.

    Raises:
        ConfigError: if the scorer does not recalibrate, or the state is of another horizon.
    """

    def __init__(self, scorer: Scorer | ScheduledScorer, state: StreamState | None = None) -> None:
        if scorer.recalibration is None:
            raise ConfigError(
                "expected a scorer that recalibrates, found recalibrate=False; without it every "
                "bar is scored by itself"
            )
        if state is not None and state.horizon != scorer.horizon:
            raise ConfigError(
                f"expected the state of a stream over {scorer.horizon} bars, found one over "
                f"{state.horizon}; go on with the horizon that it was saved with"
            )
        prepare()
        self.scorer = scorer
        self._before = state or StreamState(scorer.recalibration, horizon=scorer.horizon)
        self._after = self._before
        self._made: dict[int, tuple[bytes, _Made]] = {}

    @property
    def state(self) -> StreamState:
        """How the stream stands after the last bar."""
        return self._after

    def score(self, stamps_ns: Stamps, bars: Floats) -> Floats:
        """Return the scores (7,) alone of `last_bar`.

        Raises:
            As `last_bar` does.
        """
        return self.last_bar(stamps_ns, bars).scores

    def last_bar(self, stamps_ns: Stamps, bars: Floats) -> LastBar:
        """Score the last of `scorer.min_bars` bars or more.

        Args:
            stamps_ns: (N,) bar opens.
            bars: (N, 5), or as `scorer.columns` says.

        Raises:
            TooFewBarsError: if there are fewer bars.
            LookAheadError: if the bar is one that the model was trained on.
        """
        scorer, last = self.scorer, len(bars) - 1
        if last + 1 < scorer.min_bars:
            raise TooFewBarsError(scorer.min_bars, last + 1, "scoring a bar")
        window = slice(last + 1 - scorer.min_bars, None)
        stamps_ns, bars, last = stamps_ns[window], bars[window], scorer.min_bars - 1
        first = scorer.first_scored(stamps_ns)
        self._count(stamps_ns, bars)
        own = self._forecast_at(stamps_ns, bars)
        states = scorer.state_scores(stamps_ns, bars, first)[-1]
        reached = self._before.stamp_ns
        tail, now = None, self._after.recalibration
        if own is not None and (reached is None or stamps_ns[-1] >= reached):
            tail = corrected_tail(own.distribution, now, scorer.var_level)
        self._remember(stamps_ns, bars, _Made(own, tail, now))
        risk = (np.nan, np.nan) if tail is None else (tail.quantile, tail.shortfall)
        scores = np.concatenate([states, risk])
        return LastBar(scores, own, scorer.var_level, scorer.horizon)

    def _count(self, stamps_ns: Stamps, bars: Floats) -> None:
        """Take in how the forecast has turned out that comes due at the last bar.

        What is counted anew and what again hangs on the stamp of the bar before: a bar that is
        replayed from shorter ones has a later stamp whenever it has grown.
        """
        preceding, stamp_ns = stamps_ns[-2:].tolist()
        reached = self._before.stamp_ns
        if reached is not None and preceding < reached:
            return
        if self._after.stamp_ns is not None and preceding >= self._after.stamp_ns:
            self._before = self._after
        recalibration = self._before.recalibration
        due = self._due(stamps_ns, bars)
        if due.forecaster is not None:
            close = bars[:, 3]
            came_true = np.log(close[-1:] / close[-1 - self.scorer.horizon])
            if due.tail is not None and due.recalibration is recalibration:
                below = [float(came_true[0]) < value for value in due.tail.followed]
            else:
                latent = due.forecaster.distribution.latent(came_true)
                below = recalibration.below(float(latent[0]))
            recalibration = recalibration.after(below)
        self._after = replace(self._before, recalibration=recalibration, stamp_ns=stamp_ns)

    def _due(self, stamps_ns: Stamps, bars: Floats) -> _Made:
        """Return the forecast that comes due at the last bar: the one that was made, if it stands.

        A bar that has changed since, or was never scored here, is forecast anew.
        """
        past = slice(None, -self.scorer.horizon)
        stamps_ns, bars = stamps_ns[past], bars[past]
        seen, made = self._made.get(int(stamps_ns[-1]), (b"", None))
        if made is not None and seen == _seen(stamps_ns, bars):
            return made
        return _Made(self._forecast_at(stamps_ns, bars))

    def _forecast_at(self, stamps_ns: Stamps, bars: Floats) -> Forecaster | None:
        """Forecast at the last bar alone."""
        # The scorer begins a horizon early, to see the forecast that comes due.
        first = len(bars) - 1 + self.scorer.horizon
        found = self.scorer.forecasters(stamps_ns, bars, first)
        return found[-1] if found else None

    def _remember(self, stamps_ns: Stamps, bars: Floats, made: _Made) -> None:
        """Keep what was said of the last bar until it comes due."""
        horizon = self.scorer.horizon
        self._made[int(stamps_ns[-1])] = (_seen(stamps_ns[horizon:], bars[horizon:]), made)
        while len(self._made) > _REMEMBERED * horizon:
            del self._made[next(iter(self._made))]


def _seen(stamps_ns: Stamps, bars: Floats) -> bytes:
    """Return all that a forecast at the last bar is made from."""
    return stamps_ns.tobytes() + bars.tobytes()
