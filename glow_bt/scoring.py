"""Scoring: bars in, what the model says of them out; a whole history or the latest bar.

Row t depends on bars t - min_bars + 1 to t alone. Returns are log returns; `var` is the
`var_level` quantile of the next bar's log return (a negative number) and `cvar` the mean below.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.artifact import Artifact, Reading, load_artifact
from glow_bt.errors import ArtifactError, ConfigError, LookAheadError, TooFewBarsError
from glow_bt.features import feature_array, last_features, volatility_array
from glow_bt.ohlcv import BAR_COLUMNS, utc_stamp, validate_bars

__all__ = [
    "SCORE_COLUMNS",
    "BarScorer",
    "Model",
    "ScheduledScorer",
    "Scorer",
    "check_interval",
    "open_scorer",
]

SCORE_COLUMNS = (
    "log_prob",
    "confidence",
    "in_distribution",
    "direction",
    "regime",
    "var",
    "cvar",
)

Floats = npt.NDArray[np.float64]
Stamps = npt.NDArray[np.int64]
ModelSource = str | os.PathLike[str] | Artifact
Schedule = Sequence[tuple[pd.Timestamp, ModelSource]]

# Longer inputs fall out of the processor's cache.
_BLOCK_ROWS = 4096
# Bars need not come at even intervals, but not at other ones than the model knows.
_INTERVAL_TOLERANCE = 1.5


@runtime_checkable
class BarScorer(Protocol):
    """What the Backtrader adapters need of a model.

    Attributes:
        min_bars: bars that a row depends on, itself included.
    """

    @property
    def min_bars(self) -> int:
        """Bars that a row depends on, itself included."""
        ...

    def score_arrays(self, stamps_ns: Stamps, bars: Floats) -> Floats:
        """Score bars (N, 5) open, high, low, close, volume with open stamps (N,).

        Returns:
            (N, 7) in the order of `SCORE_COLUMNS`; NaN for the first min_bars - 1 rows and
            where no model is valid.
        """
        ...


class Scorer:
    """One artifact, ready to score.

    Args:
        artifact: the model.
        var_level: probability of a loss beyond VaR, inside (0, 0.5].
        allow_training_bars: score bars that the model was trained on too; what is read there
            is in sample and flatters.

    Raises:
        ConfigError: if var_level is outside (0, 0.5].

    Example:
        >>> scorer = Scorer(load_artifact("model"), var_level=0.01)  # doctest: +SKIP
        >>> scores = scorer.score(bars)  # doctest: +SKIP
    """

    def __init__(
        self, artifact: Artifact, *, var_level: float = 0.01, allow_training_bars: bool = False
    ) -> None:
        _check_level(var_level)
        self.artifact = artifact
        self.var_level = var_level
        self.allow_training_bars = allow_training_bars
        self._trained_until_ns = artifact.training.trained_until.value
        self._standard_var = artifact.return_flow.standard_quantile(var_level)
        self._standard_cvar = artifact.return_flow.standard_shortfall(var_level)

    @property
    def min_bars(self) -> int:
        """Bars that a row depends on, itself included."""
        return self.artifact.spec.min_bars

    @property
    def bar_seconds(self) -> float:
        """Interval of the bars that the model was trained on."""
        return self.artifact.training.bar_seconds

    def score(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Score a bar frame; rows of the warm-up are NaN.

        Raises:
            DataError: if the bars break the contract of `glow_bt.ohlcv`.
            TooFewBarsError: if there are fewer bars than one state needs.
            ArtifactError: if the bars come at another interval than the model's.
            LookAheadError: if a bar after the warm-up is one that the model was trained on.
        """
        stamps, array, index = _arrays_of(bars, self.min_bars, self.bar_seconds)
        scores = self.score_arrays(stamps, array)
        return pd.DataFrame(scores, index=index, columns=list(SCORE_COLUMNS))

    def score_arrays(self, stamps_ns: Stamps, bars: Floats) -> Floats:
        """Score bars (N, 5) with open stamps (N,); see `BarScorer`.

        Raises:
            LookAheadError: if a bar after the warm-up is one that the model was trained on.
        """
        warm_up = self.min_bars - 1
        scores = np.full((len(bars), len(SCORE_COLUMNS)), np.nan)
        if len(bars) <= warm_up:
            return scores
        self._refuse_training_bars(stamps_ns)
        x, volatility = self._states(bars)
        scored = scores[warm_up:]
        for rows, reading in self._readings(x):
            scored[rows] = self._scores(reading, volatility[rows])
        return scores

    def latents(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Return the latents z1, z2, ... of each bar after the warm-up.

        Raises:
            As `score` does.
        """
        x, _, index = self._states_of(bars)
        z = np.concatenate([reading.latents for _, reading in self._readings(x)])
        columns = [f"z{i + 1}" for i in range(z.shape[1])]
        return pd.DataFrame(z, index=index[self.min_bars - 1 :], columns=columns)

    def value_at_risk(self, bars: pd.DataFrame, levels: Sequence[float]) -> pd.DataFrame:
        """Return the next bar's VaR (a log return) at each level, one column a level.

        Rows of the warm-up are NaN.

        Raises:
            ConfigError: if a level is outside (0, 0.5].
            As `score` does.
        """
        for level in levels:
            _check_level(level)
        x, volatility, index = self._states_of(bars)
        spread = np.concatenate([reading.spread for _, reading in self._readings(x)])
        table = np.full((len(index), len(levels)), np.nan)
        for column, level in enumerate(levels):
            standard = self.artifact.return_flow.standard_quantile(level)
            table[self.min_bars - 1 :, column] = self._next_return(spread, volatility, standard)
        return pd.DataFrame(table, index=index, columns=list(levels))

    def _states_of(self, bars: pd.DataFrame) -> tuple[Floats, Floats, pd.DatetimeIndex]:
        stamps, array, index = _arrays_of(bars, self.min_bars, self.bar_seconds)
        self._refuse_training_bars(stamps)
        return *self._states(array), index

    def _states(self, bars: Floats) -> tuple[Floats, Floats]:
        """Return scaled states and volatility of each bar after the warm-up."""
        spec = self.artifact.spec
        warm_up = self.min_bars - 1
        if len(bars) == self.min_bars:
            features = last_features(bars, spec)[None, :]
            volatility = volatility_array(bars[1:, 3], spec)[-1:]
        else:
            features = feature_array(bars, spec)[warm_up:]
            volatility = volatility_array(bars[:, 3], spec)[warm_up:]
        return self.artifact.scaler.transform(features), volatility

    def _readings(self, x: Floats) -> Iterator[tuple[slice, Reading]]:
        """Read scaled states (N, D) block by block."""
        for start in range(0, len(x), _BLOCK_ROWS):
            rows = slice(start, min(start + _BLOCK_ROWS, len(x)))
            yield rows, self.artifact.read(x[rows])

    def _scores(self, reading: Reading, volatility: Floats) -> Floats:
        model = self.artifact
        log_prob = reading.log_prob + model.scaler.log_det
        return np.column_stack(
            [
                log_prob,
                model.likelihood.confidence(log_prob),
                model.likelihood.contains(log_prob),
                reading.direction,
                reading.regime,
                self._next_return(reading.spread, volatility, self._standard_var),
                self._next_return(reading.spread, volatility, self._standard_cvar),
            ]
        )

    def _next_return(self, spread: Floats, volatility: Floats, standard: float) -> Floats:
        """Bring a number of the return flow's standard shape to next bars' log returns."""
        location = float(self.artifact.return_flow.location)
        return (location + spread * standard) * volatility

    def _refuse_training_bars(self, stamps_ns: Stamps) -> None:
        first = int(stamps_ns[self.min_bars - 1])
        until = self.artifact.training.trained_until
        if first <= self._trained_until_ns and not self.allow_training_bars:
            raise LookAheadError(
                f"expected bars after {until}, the last that the model was trained on, found "
                f"{pd.Timestamp(first, tz='UTC')}; begin {self.min_bars - 1} bars of warm-up "
                "before the first new bar, or allow training bars"
            )


class ScheduledScorer:
    """Several artifacts, each from its own stamp on (walk-forward).

    A bar is scored by the model whose valid_from is the latest at or before the bar's stamp;
    bars before the first are NaN.

    Raises:
        ConfigError: if the schedule is empty or not in ascending order.
        LookAheadError: if a model was trained on bars at or after its valid_from.
    """

    def __init__(
        self,
        schedule: Sequence[tuple[pd.Timestamp, Artifact]],
        *,
        var_level: float = 0.01,
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
        # Each model scores only rows from its own start on, so the check above is the check.
        self.scorers = [
            Scorer(artifact, var_level=var_level, allow_training_bars=True)
            for _, artifact in schedule
        ]
        self.starts = starts
        self.var_level = var_level
        self._starts_ns = np.array([s.value for s in starts], dtype=np.int64)

    @property
    def min_bars(self) -> int:
        """Bars that a row depends on, itself included: the most that any model needs."""
        return max(scorer.min_bars for scorer in self.scorers)

    @property
    def bar_seconds(self) -> float:
        """Interval of the bars that the first model was trained on."""
        return self.scorers[0].bar_seconds

    def score(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Score a bar frame; rows of the warm-up and before the first model are NaN."""
        stamps, array, index = _arrays_of(bars, self.min_bars, self.bar_seconds)
        scores = self.score_arrays(stamps, array)
        return pd.DataFrame(scores, index=index, columns=list(SCORE_COLUMNS))

    def score_arrays(self, stamps_ns: Stamps, bars: Floats) -> Floats:
        """Score bars (N, 5) with open stamps (N,); see `BarScorer`."""
        scores = np.full((len(bars), len(SCORE_COLUMNS)), np.nan)
        borders = np.append(np.searchsorted(stamps_ns, self._starts_ns), len(bars))
        for scorer, (start, stop) in zip(self.scorers, pairwise(borders), strict=True):
            first = max(int(start), self.min_bars - 1)
            if first < stop:
                history = slice(first - scorer.min_bars + 1, int(stop))
                rows = scorer.score_arrays(stamps_ns[history], bars[history])
                scores[first:stop] = rows[scorer.min_bars - 1 :]
        return scores


Model = ModelSource | Schedule | BarScorer


def open_scorer(
    model: Model, *, var_level: float = 0.01, allow_training_bars: bool = False
) -> BarScorer:
    """Return a scorer for whatever names a model.

    Args:
        model: an artifact or its folder; a walk-forward schedule, i.e. a list of (valid_from,
            artifact or folder); or a scorer, which is returned as it is.
        var_level: see `Scorer`.
        allow_training_bars: see `Scorer`.

    Raises:
        ConfigError: if `model` is none of these.
        ArtifactError: if a folder holds no usable model.
    """
    if isinstance(model, BarScorer):
        return model
    if isinstance(model, str | os.PathLike | Artifact):
        return Scorer(
            _artifact_of(model), var_level=var_level, allow_training_bars=allow_training_bars
        )
    try:
        schedule = [(pd.Timestamp(start), _artifact_of(source)) for start, source in model]
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "expected model= an artifact folder, an Artifact, a list of (valid_from, artifact or "
            f"folder) or a scorer, found {reprlib.repr(model)}"
        ) from error
    return ScheduledScorer(schedule, var_level=var_level, allow_training_bars=allow_training_bars)


def _check_level(level: float) -> None:
    if not 0 < level <= 0.5:
        raise ConfigError(
            f"expected a VaR level inside (0, 0.5], found {level}; give such as 0.01"
        )


def _artifact_of(source: ModelSource) -> Artifact:
    return source if isinstance(source, Artifact) else load_artifact(source)


def check_interval(stamps_ns: Stamps, bar_seconds: float) -> None:
    """Refuse bars of another interval than a model's.

    The lower quartile of the steps counts, so that holes are no reason to refuse a history.

    Args:
        stamps_ns: (N,) stamps of neighbouring bars, at least two.
        bar_seconds: interval of the bars that the model was trained on.

    Raises:
        ArtifactError: if the steps differ by more than half.
    """
    step = float(np.quantile(np.diff(stamps_ns), 0.25)) / 1e9
    if not 1 / _INTERVAL_TOLERANCE < step / bar_seconds < _INTERVAL_TOLERANCE:
        raise ArtifactError(
            f"expected bars every {pd.Timedelta(seconds=bar_seconds)}, as the model was trained "
            f"on, found bars every {pd.Timedelta(seconds=step)}; train a model on such bars"
        )


def _arrays_of(
    bars: pd.DataFrame, min_bars: int, bar_seconds: float
) -> tuple[Stamps, Floats, pd.DatetimeIndex]:
    frame = validate_bars(bars)
    if len(frame) < min_bars:
        raise TooFewBarsError(min_bars, len(frame), "scoring")
    index = cast("pd.DatetimeIndex", frame.index)
    stamps = index.as_unit("ns").asi8
    check_interval(stamps, bar_seconds)
    return stamps, frame[list(BAR_COLUMNS)].to_numpy(), index
