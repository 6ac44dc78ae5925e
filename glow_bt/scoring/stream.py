"""Scoring bar by bar with a recalibration that remembers, across restarts too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.risk.recalibration import Recalibrated, Recalibration
from glow_bt.scoring.last_bar import LastBar
from glow_bt.scoring.risk_lines import Forecaster
from glow_bt.scoring.scorer import ScheduledScorer, Scorer

__all__ = ["ScoreStream", "StreamState"]

Floats = npt.NDArray[np.float64]
Stamps = npt.NDArray[np.int64]


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
        self.scorer = scorer
        self._before = state or StreamState(scorer.recalibration, horizon=scorer.horizon)
        self._after = self._before

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
        forecasters = scorer.forecasters(stamps_ns, bars, first)
        self._count(stamps_ns[-2:].tolist(), forecasters, bars[:, 3])
        states = scorer.state_scores(stamps_ns, bars, first)[-1]
        reached = self._before.stamp_ns
        last_one = forecasters[-1] if forecasters else None
        if last_one is None or (reached is not None and stamps_ns[-1] < reached):
            scores = np.concatenate([states, [np.nan, np.nan]])
            return LastBar(scores, last_one, scorer.var_level, scorer.horizon)
        offsets = np.array([self._after.recalibration.offsets])
        own = Recalibrated(
            last_one.distribution.rows(slice(-1, None)),
            offsets,
            self._after.recalibration.levels,
        )
        risk = [own.quantile(scorer.var_level)[0], own.shortfall(scorer.var_level)[0]]
        scores = np.concatenate([states, risk])
        return LastBar(scores, last_one, scorer.var_level, scorer.horizon)

    def _count(self, last_stamps: list[int], forecasters: list[Forecaster], close: Floats) -> None:
        """Take in how the forecast has turned out that comes due at the last bar.

        What is counted anew and what again hangs on the stamp of the bar before: a bar that is
        replayed from shorter ones has a later stamp whenever it has grown.
        """
        preceding, stamp_ns = last_stamps
        reached = self._before.stamp_ns
        if reached is not None and preceding < reached:
            return
        if self._after.stamp_ns is not None and preceding >= self._after.stamp_ns:
            self._before = self._after
        recalibration = self._before.recalibration
        made = len(close) - 1 - self.scorer.horizon
        for own in forecasters:
            row = made - own.first
            if 0 <= row < len(own.distribution):
                came_true = np.log(close[-1:] / close[made])
                latent = own.distribution.rows(slice(row, row + 1)).latent(came_true)
                recalibration = recalibration.follow(latent)[1]
        self._after = replace(self._before, recalibration=recalibration, stamp_ns=stamp_ns)
