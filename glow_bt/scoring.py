"""Scoring: bars in, what the model says of them out; a whole history or the latest bar.

Row t depends on bars t - min_bars + 1 to t alone. Returns are log returns; `var` is the
`var_level` quantile of the next bar's log return (a negative number) and `cvar` the mean below.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from glow_bt.artifact import Artifact, load_artifact
from glow_bt.errors import ConfigError, LookAheadError, TooFewBarsError
from glow_bt.features import feature_array, last_features, volatility_array
from glow_bt.ohlcv import BAR_COLUMNS, validate_bars

__all__ = ["SCORE_COLUMNS", "BarScorer", "Model", "ScheduledScorer", "Scorer", "open_scorer"]

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
        if not 0 < var_level <= 0.5:
            raise ConfigError(f"expected a var_level inside (0, 0.5], found {var_level}")
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

    def score(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Score a bar frame; rows of the warm-up are NaN.

        Raises:
            DataError: if the bars break the contract of `glow_bt.ohlcv`.
            TooFewBarsError: if there are fewer bars than one state needs.
            LookAheadError: if a bar after the warm-up is one that the model was trained on.
        """
        stamps, array, index = _arrays_of(bars, self.min_bars)
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
        self._refuse_training_bars(stamps_ns[warm_up:])
        x, volatility = self._states(bars)
        for start in range(0, len(x), _BLOCK_ROWS):
            stop = start + _BLOCK_ROWS
            rows = slice(warm_up + start, warm_up + stop)
            scores[rows] = self._score_states(x[start:stop], volatility[start:stop])
        return scores

    def latents(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Return the latents z1, z2, ... of each bar after the warm-up.

        Raises:
            As `score` does.
        """
        stamps, array, index = _arrays_of(bars, self.min_bars)
        self._refuse_training_bars(stamps[self.min_bars - 1 :])
        x, _ = self._states(array)
        with _one_thread(), torch.no_grad():
            z, _ = self.artifact.state_flow(torch.from_numpy(x))
        columns = [f"z{i + 1}" for i in range(z.shape[1])]
        return pd.DataFrame(z.numpy(), index=index[self.min_bars - 1 :], columns=columns)

    def value_at_risk(self, bars: pd.DataFrame, levels: Sequence[float]) -> pd.DataFrame:
        """Return the next bar's VaR (a log return) at each level, one column a level.

        Rows of the warm-up are NaN.

        Raises:
            As `score` does.
        """
        stamps, array, index = _arrays_of(bars, self.min_bars)
        self._refuse_training_bars(stamps[self.min_bars - 1 :])
        x, volatility = self._states(array)
        table = pd.DataFrame(np.nan, index=index, columns=list(levels), dtype=np.float64)
        context = torch.from_numpy(x)
        with _one_thread():
            for level in levels:
                quantile = self.artifact.return_flow.quantile(level, context).numpy()
                table.loc[index[self.min_bars - 1 :], level] = quantile * volatility
        return table

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

    def _score_states(self, x: Floats, volatility: Floats) -> Floats:
        model = self.artifact
        rows = torch.from_numpy(x)
        with _one_thread(), torch.no_grad():
            model.state_flow.check_rows(rows, None)
            z, log_det = model.state_flow(rows)
            density = model.state_flow.prior.log_prob(z) + log_det
            spread = model.return_flow.scale(rows).numpy() * volatility
        latents = z.numpy()
        location = float(model.return_flow.location) * volatility
        log_prob = density.numpy() + model.scaler.log_det
        return np.column_stack(
            [
                log_prob,
                model.likelihood.confidence(log_prob),
                model.likelihood.contains(log_prob),
                model.direction(latents),
                model.regime_of(latents),
                location + spread * self._standard_var,
                location + spread * self._standard_cvar,
            ]
        )

    def _refuse_training_bars(self, stamps_ns: Stamps) -> None:
        if self.allow_training_bars or not len(stamps_ns):
            return
        if stamps_ns[0] <= self._trained_until_ns:
            until = self.artifact.training.trained_until
            raise LookAheadError(
                f"expected bars after {until}, the last that the model was trained on, found "
                f"{pd.Timestamp(int(stamps_ns[0]), tz='UTC')}; begin {self.min_bars - 1} bars "
                "of warm-up before the first new bar, or allow training bars"
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
        starts = [_as_utc(stamp) for stamp, _ in schedule]
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
        self._starts_ns = np.array([s.value for s in starts], dtype=np.int64)

    @property
    def min_bars(self) -> int:
        """Bars that a row depends on, itself included: the most that any model needs."""
        return max(scorer.min_bars for scorer in self.scorers)

    def score(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Score a bar frame; rows of the warm-up and before the first model are NaN."""
        stamps, array, index = _arrays_of(bars, self.min_bars)
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
    options = {"var_level": var_level, "allow_training_bars": allow_training_bars}
    if isinstance(model, BarScorer):
        return model
    if isinstance(model, str | os.PathLike | Artifact):
        return Scorer(_artifact_of(model), **options)  # type: ignore[arg-type]
    if isinstance(model, Sequence):
        entries = [(stamp, _artifact_of(source)) for stamp, source in cast("Schedule", model)]
        return ScheduledScorer(entries, **options)  # type: ignore[arg-type]
    raise ConfigError(
        "expected model= an artifact folder, an Artifact, a list of (valid_from, artifact) or a "
        f"scorer, found {type(model).__name__}"
    )


def _artifact_of(source: ModelSource) -> Artifact:
    return source if isinstance(source, Artifact) else load_artifact(source)


def _as_utc(stamp: pd.Timestamp) -> pd.Timestamp:
    stamp = pd.Timestamp(stamp)
    return stamp.tz_localize("UTC") if stamp.tz is None else stamp.tz_convert("UTC")


def _arrays_of(bars: pd.DataFrame, min_bars: int) -> tuple[Stamps, Floats, pd.DatetimeIndex]:
    frame = validate_bars(bars)
    if len(frame) < min_bars:
        raise TooFewBarsError(min_bars, len(frame), "scoring")
    index = cast("pd.DatetimeIndex", frame.index)
    return index.as_unit("ns").asi8, frame[list(BAR_COLUMNS)].to_numpy(), index


@contextmanager
def _one_thread() -> Iterator[None]:
    """Score on one thread: small matrices gain nothing from more, and lose on a busy machine."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
