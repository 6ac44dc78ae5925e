"""Scorers: bars in, what one model or a schedule of models says of them out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.artifact import Artifact, model_inputs
from glow_bt.errors import ConfigError, LookAheadError, TooFewBarsError
from glow_bt.ohlcv import BAR_COLUMNS, utc_stamp, validate_bars
from glow_bt.risk.forecasts import ReturnDistribution
from glow_bt.risk.recalibration import Recalibration
from glow_bt.scoring.contract import SCORE_COLUMNS, check_interval, check_level
from glow_bt.scoring.last_bar import LastBar
from glow_bt.scoring.risk_lines import Forecaster, RiskLines, contexts_of
from glow_bt.scoring.states import Segment, readings, state_scores_of

__all__ = ["ScheduledScorer", "Scorer"]

Floats = npt.NDArray[np.float64]
Stamps = npt.NDArray[np.int64]


class _ModelScorer:
    """What a scorer of one model and one of several have in common.

    Args:
        artifacts: in order of time.
        starts_ns: stamp from which on each is valid.
        var_level: see `Scorer`; so for the rest.
    """

    def __init__(
        self,
        artifacts: Sequence[Artifact],
        starts_ns: Stamps,
        *,
        var_level: float,
        horizon: int,
        recalibrate: bool | Recalibration,
        allow_training_bars: bool,
    ) -> None:
        check_level(var_level)
        for artifact in artifacts:
            artifact.returns.fused(horizon)  # refuses a horizon that was not trained
        self.artifacts = list(artifacts)
        self.var_level = var_level
        self.horizon = horizon
        self.recalibration = _recalibration_of(recalibrate)
        self.allow_training_bars = allow_training_bars
        self._starts_ns = starts_ns
        late = 0 if self.recalibration is None else horizon
        self._min_bars = late + max(artifact.min_bars for artifact in artifacts)

    @property
    def min_bars(self) -> int:
        """Bars that a row depends on, itself included: the most that any model needs.

        A recalibrated row depends on all bars before it; it needs one horizon more, to see how
        the forecast turned out that has just come due.
        """
        return self._min_bars

    @property
    def bar_seconds(self) -> float:
        """Interval of the bars that the first model was trained on."""
        return self.artifacts[0].training.bar_seconds

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the bars that are read, in order."""
        funding = any(artifact.returns.spec.funding for artifact in self.artifacts)
        return (*BAR_COLUMNS, "funding_rate") if funding else BAR_COLUMNS

    def score(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Score a bar frame; rows of the warm-up and before the first model are NaN.

        Raises:
            DataError: if the bars break the contract of `glow_bt.ohlcv`.
            TooFewBarsError: if there are fewer bars than one row needs.
            ArtifactError: if the bars come at another interval than the model's.
            LookAheadError: if a bar after the warm-up is one that the model was trained on.
        """
        stamps, array, index = self._arrays_of(bars)
        scores = self.score_arrays(stamps, array)
        return pd.DataFrame(scores, index=index, columns=list(SCORE_COLUMNS))

    def score_arrays(self, stamps_ns: Stamps, bars: Floats) -> Floats:
        """Score bars (N, 5), or as `columns` says, with open stamps (N,); see `BarScorer`.

        Raises:
            LookAheadError: if a bar after the warm-up is one that the model was trained on.
        """
        return self._scored(stamps_ns, bars)[0]

    def last_bar(self, stamps_ns: Stamps, bars: Floats) -> LastBar:
        """Score the last of at least `min_bars` bars, by itself.

        Raises:
            TooFewBarsError: if there are fewer bars.
            As `score_arrays` does.
        """
        if len(bars) < self.min_bars:
            raise TooFewBarsError(self.min_bars, len(bars), "scoring a bar")
        window = slice(len(bars) - self.min_bars, None)
        scores, forecasters = self._scored(stamps_ns[window], bars[window])
        own = forecasters[-1] if forecasters else None
        return LastBar(scores[-1], own, self.var_level, self.horizon)

    def _scored(self, stamps_ns: Stamps, bars: Floats) -> tuple[Floats, list[Forecaster]]:
        scores = np.full((len(bars), len(SCORE_COLUMNS)), np.nan)
        if len(bars) < self.min_bars:
            return scores, []
        first = self.first_scored(stamps_ns)
        scores[:, :-2] = self.state_scores(stamps_ns, bars, first)
        forecasters = self.forecasters(stamps_ns, bars, first)
        if forecasters:
            lines = RiskLines(forecasters, bars[:, 3], self.horizon, self.recalibration)
            for column, measure in ((-2, lines.quantile), (-1, lines.shortfall)):
                start = max(first, lines.first)
                scores[start:, column] = measure(self.var_level)[start - lines.first :]
        return scores, forecasters

    def state_scores(self, stamps_ns: Stamps, bars: Floats, first: int) -> Floats:
        """Return the scores (N, 5) that are read off market states, NaN before `first`."""
        scores = np.full((len(bars), len(SCORE_COLUMNS) - 2), np.nan)
        for segment in self._segments(stamps_ns, first):
            rows = scores[segment.first : segment.stop]
            for part, reading in readings(segment.artifact, bars, segment):
                rows[part] = state_scores_of(segment.artifact, reading)
        return scores

    def forecasters(self, stamps_ns: Stamps, bars: Floats, first: int) -> list[Forecaster]:
        """Return who forecasts which bars from position `first` on.

        With a recalibration from a horizon earlier on, as far as no model was trained on those
        bars: the forecast that comes due at `first` was made then.
        """
        if self.recalibration is not None:
            first -= self.horizon
            if not self.allow_training_bars:
                until = self.artifacts[0].training.trained_until.value
                first = max(first, int(np.searchsorted(stamps_ns, until, side="right")))
        return [
            Forecaster.over(
                segment.artifact.returns,
                bars,
                stamps_ns,
                segment.first,
                segment.stop,
                self.horizon,
            )
            for segment in self._segments(stamps_ns, first)
        ]

    def first_scored(self, stamps_ns: Stamps) -> int:
        """Return the position of the first bar that may be scored, if a model is valid there.

        Raises:
            LookAheadError: if it is one that the model was trained on.
        """
        return self.min_bars - 1

    def value_at_risk(self, bars: pd.DataFrame, levels: Sequence[float]) -> pd.DataFrame:
        """Return the VaR of the horizon's log return at each level, one column a level.

        Levels above one half are upper tails. Rows of the warm-up are NaN.

        Raises:
            ConfigError: if a level is outside (0, 1).
            As `score` does.
        """
        for level in levels:
            if not 0 < level < 1:
                raise ConfigError(
                    f"expected a level inside (0, 1), found {level}; give such as 0.01"
                )
        stamps, array, index = self._arrays_of(bars)
        first = self.first_scored(stamps)
        table = np.full((len(index), len(levels)), np.nan)
        lines = self._risk_lines(stamps, array, first)
        if lines is not None:
            start = max(first, lines.first)
            for column, level in enumerate(levels):
                table[start:, column] = lines.quantile(level)[start - lines.first :]
        return pd.DataFrame(table, index=index, columns=list(levels))

    def recalibrated(self, bars: pd.DataFrame) -> Recalibration:
        """Return how the recalibration stands at the last bar, to be saved and gone on from.

        Raises:
            ConfigError: if the scorer does not recalibrate.
            As `score` does.
        """
        if self.recalibration is None:
            raise ConfigError("expected a scorer that recalibrates, found recalibrate=False")
        stamps, array, _ = self._arrays_of(bars)
        lines = self._risk_lines(stamps, array, self.first_scored(stamps))
        if lines is None or lines.recalibration is None:
            return self.recalibration
        return lines.recalibration

    def var_error(self, stamps_ns: Stamps, bars: Floats) -> Floats:
        """Return (N,) the standard error of the estimated VaR; NaN where there is none.

        That of the model's estimation, see `glow_bt.fused.FusedUnivariate.quantile_error`;
        what a recalibration may be wrong by is not in it.
        """
        errors = np.full(len(bars), np.nan)
        if len(bars) < self.min_bars:
            return errors
        for segment in self._segments(stamps_ns, self.first_scored(stamps_ns)):
            model = segment.artifact.returns
            for start, rows in contexts_of(model, bars, stamps_ns, segment.first, segment.stop):
                error = model.quantile_error(rows, self.var_level, self.horizon)
                errors[start : start + len(error)] = error
        return errors

    def _segments(self, stamps_ns: Stamps, first: int) -> list[Segment]:
        borders = np.append(np.searchsorted(stamps_ns, self._starts_ns), len(stamps_ns))
        segments = [
            Segment(artifact, max(int(start), first), int(stop))
            for artifact, (start, stop) in zip(self.artifacts, pairwise(borders), strict=True)
        ]
        return [segment for segment in segments if segment.first < segment.stop]

    def _risk_lines(self, stamps_ns: Stamps, bars: Floats, first: int) -> RiskLines | None:
        """Return VaR and CVaR from position `first` on, or None where no model is valid."""
        forecasters = self.forecasters(stamps_ns, bars, first)
        if not forecasters:
            return None
        return RiskLines(forecasters, bars[:, 3], self.horizon, self.recalibration)

    def _arrays_of(self, bars: pd.DataFrame) -> tuple[Stamps, Floats, pd.DatetimeIndex]:
        frame = validate_bars(bars)
        if len(frame) < self.min_bars:
            raise TooFewBarsError(self.min_bars, len(frame), "scoring")
        array, stamps = model_inputs(frame, self.columns)
        check_interval(stamps, self.bar_seconds)
        return stamps, array, cast("pd.DatetimeIndex", frame.index)


class Scorer(_ModelScorer):
    """One artifact, ready to score.

    Args:
        artifact: the model.
        var_level: probability of a loss beyond VaR, inside (0, 0.5].
        horizon: bars ahead that VaR and CVaR are for, one that the model was trained for.
        recalibrate: correct VaR and CVaR by how earlier forecasts turned out, starting at the
            first bar that is scored; or how a recalibration stood there (`recalibrated`).
        allow_training_bars: score bars that the model was trained on too; what is read there
            is in sample and flatters.

    Raises:
        ConfigError: if var_level is outside (0, 0.5], or the horizon was not trained.

    Example:
        >>> scorer = Scorer(load_artifact("model"), var_level=0.01)  # doctest: +SKIP
        >>> scores = scorer.score(bars)  # doctest: +SKIP
    """

    def __init__(
        self,
        artifact: Artifact,
        *,
        var_level: float = 0.01,
        horizon: int = 1,
        recalibrate: bool | Recalibration = False,
        allow_training_bars: bool = False,
    ) -> None:
        super().__init__(
            [artifact],
            np.array([np.iinfo(np.int64).min]),
            var_level=var_level,
            horizon=horizon,
            recalibrate=recalibrate,
            allow_training_bars=allow_training_bars,
        )
        self.artifact = artifact

    def distribution(self, bars: pd.DataFrame) -> ReturnDistribution:
        """Return the distribution of the log return over the horizon at each bar.

        That of bars min_bars - 1, min_bars, ...; `glow_bt.risk` reads VaR and CVaR at any level
        and the probability of a loss off it.

        Raises:
            As `score` does.
        """
        stamps, array, _ = self._arrays_of(bars)
        first = self.first_scored(stamps)
        forecasters = self.forecasters(stamps, array, first)
        lines = RiskLines(forecasters, array[:, 3], self.horizon, self.recalibration)
        return lines.distributions[0].rows(slice(first - lines.first, None))

    def latents(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Return the latents z1, z2, ... of each bar after the warm-up.

        Raises:
            As `score` does.
        """
        stamps, array, index = self._arrays_of(bars)
        segment = Segment(self.artifact, self.first_scored(stamps), len(index))
        z = np.concatenate(
            [reading.latents for _, reading in readings(self.artifact, array, segment)]
        )
        columns = [f"z{i + 1}" for i in range(z.shape[1])]
        return pd.DataFrame(z, index=index[segment.first :], columns=columns)

    def _segments(self, stamps_ns: Stamps, first: int) -> list[Segment]:
        count = len(stamps_ns)
        return [Segment(self.artifact, first, count)] if first < count else []

    def first_scored(self, stamps_ns: Stamps) -> int:
        """Return the position of the first bar that may be scored.

        Raises:
            LookAheadError: if it is one that the model was trained on.
        """
        position = self.min_bars - 1
        until = self.artifact.training.trained_until
        first = int(stamps_ns[position])
        if first <= until.value and not self.allow_training_bars:
            raise LookAheadError(
                f"expected bars after {until}, the last that the model was trained on, found "
                f"{pd.Timestamp(first, tz='UTC')}; begin {position} bars of warm-up "
                "before the first new bar, or allow training bars"
            )
        return position


class ScheduledScorer(_ModelScorer):
    """Several artifacts, each from its own stamp on (walk-forward).

    A bar is scored by the model whose valid_from is the latest at or before the bar's stamp;
    bars before the first are NaN. A recalibration goes on from model to model.

    Args:
        schedule: valid_from and artifact, in ascending order.
        var_level: see `Scorer`; so for the rest.

    Raises:
        ConfigError: if the schedule is empty or not in ascending order, or as `Scorer`.
        LookAheadError: if a model was trained on bars at or after its valid_from.
    """

    def __init__(
        self,
        schedule: Sequence[tuple[pd.Timestamp, Artifact]],
        *,
        var_level: float = 0.01,
        horizon: int = 1,
        recalibrate: bool | Recalibration = False,
        allow_training_bars: bool = False,
    ) -> None:
        if not schedule:
            raise ConfigError("expected a schedule of at least one model, found none")
        starts = [utc_stamp(stamp) for stamp, _ in schedule]
        if any(b <= a for a, b in pairwise(starts)):
            raise ConfigError(
                f"expected a schedule in ascending order, found {[str(s) for s in starts]}"
            )
        for start, (_, artifact) in zip(starts, schedule, strict=True):
            until = artifact.training.trained_until
            if until >= start and not allow_training_bars:
                raise LookAheadError(
                    f"expected a model trained before its valid_from {start}, found one trained "
                    f"until {until}; move valid_from or train on less"
                )
        seconds = sorted({artifact.training.bar_seconds for _, artifact in schedule})
        if len(seconds) > 1:
            raise ConfigError(
                f"expected models of bars of one interval, found intervals of {seconds} seconds; "
                "train them on the same bars"
            )
        super().__init__(
            [artifact for _, artifact in schedule],
            np.array([s.value for s in starts], dtype=np.int64),
            var_level=var_level,
            horizon=horizon,
            recalibrate=recalibrate,
            allow_training_bars=allow_training_bars,
        )
        self.starts = starts


def _recalibration_of(recalibrate: bool | Recalibration) -> Recalibration | None:
    if not isinstance(recalibrate, bool | Recalibration):
        raise ConfigError(
            f"expected recalibrate=True, False or a Recalibration, found {recalibrate!r}"
        )
    if isinstance(recalibrate, Recalibration):
        return recalibrate
    return Recalibration() if recalibrate else None
