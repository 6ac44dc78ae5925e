"""Forecasts of the next return by several models, out of sample, on one history."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

import glow_bt
from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.features import DEFAULT_SPEC, ContextSpec
from glow_bt.folds import MIN_BLOCK, Fold, walk_forward_folds
from glow_bt.ohlcv import bar_interval, bars_sha256, validate_bars
from glow_bt.risk import BASELINES, walk_forward
from glow_bt.risk.forecasts import Forecasts, check_levels

if TYPE_CHECKING:
    from glow_bt.training import TrainConfig

__all__ = [
    "FLOW_NAMES",
    "RISK_LEVELS",
    "FlowForecaster",
    "RiskProgress",
    "RiskStudy",
    "check_baselines",
    "run_risk_study",
]

RISK_LEVELS = (0.01, 0.025, 0.05, 0.95, 0.975, 0.99)
FLOW_NAMES = ("flow", "flow_recalibrated")
# How what is not estimated came about, for whoever reads the numbers.
_CHOICES = {
    "estimation": "anew before each test span, on bars before it only",
    "settings of the flow": "glow_bt's defaults unless given, chosen on the first 40 % of three "
    "histories (benchmarks/risk/select_settings.md); none is looked for on a test span",
    "settings of the baselines": "fixed beforehand, see glow_bt.risk.BASELINES",
}
_LIBRARIES = ("numpy", "scipy", "pandas", "torch", "arch")

Floats = npt.NDArray[np.float64]


class RiskProgress(Protocol):
    """Told how far a model has come."""

    def __call__(self, model: str, done: int, total: int) -> None:
        """Take the model's name, steps (folds, for a baseline) done and steps in all."""
        ...


class FlowForecaster(Protocol):
    """Forecasts of a flow trained anew at each fold: as they are, and recalibrated online."""

    def __call__(
        self,
        bars: pd.DataFrame,
        folds: Sequence[Fold],
        levels: Sequence[float],
        *,
        config: TrainConfig,
        progress: RiskProgress | None,
    ) -> tuple[Forecasts, Forecasts]:
        """Forecast the return into each test bar of each fold, from the bars before it.

        Row i is about the return from bar t to t + 1, known at the close of bar t, with t from
        fold.test.start - 1 to fold.test.stop - 2, fold after fold.
        """
        ...


@dataclass(frozen=True, eq=False)
class RiskStudy:
    """What came of a walk-forward comparison.

    Attributes:
        stamps: (N,) bar open of the bar at whose close each forecast was made; the return that
            came true is that of the next bar.
        forecasts: by model, each of N rows; "flow" first, then "flow_recalibrated", then the
            baselines.
        bounds: the stamps at which each test span begins, where models estimated anew take over.
        manifest: where the numbers come from: data hash, versions, seed, settings.
    """

    stamps: pd.DatetimeIndex
    forecasts: Mapping[str, Forecasts]
    bounds: Sequence[pd.Timestamp]
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {name: len(own) for name, own in self.forecasts.items()}
        if not lengths or set(lengths.values()) != {len(self.stamps)}:
            raise DataError(
                f"expected {len(self.stamps)} forecasts of each model, found {lengths}"
            )


def run_risk_study(
    bars: pd.DataFrame,
    *,
    n_folds: int = 8,
    test_fraction: float = 0.6,
    levels: Sequence[float] = RISK_LEVELS,
    baselines: Sequence[str] | None = None,
    seed: int = 0,
    config: TrainConfig | None = None,
    flow: FlowForecaster | None = None,
    progress: RiskProgress | None = None,
) -> RiskStudy:
    """Forecast every return into the last part of a history, by the flow and by baselines.

    Models are estimated anew before each test span, on bars before it only: a baseline on all of
    them, and so the flow, whose members each leave out a block of them (see
    `glow_bt.training.walk_forward_returns`). Between two estimations they filter on, bar by bar.

    Args:
        bars: a bar frame.
        n_folds: number of test spans, which follow one another without a hole.
        test_fraction: share of the history that is tested.
        levels: probabilities below VaR, ascending; above one half they are upper tails.
        baselines: names in `glow_bt.risk.BASELINES`. Default: all.
        seed: of the tests that resample; recorded.
        config: settings of the flow. Default: the trainer's own, with the seed.
        flow: the flow's forecasts. Default: `glow_bt.training.walk_forward_returns`.
        progress: told of each model's folds.

    Raises:
        TooFewBarsError: if the folds do not fit; says how many bars are needed.
        ConfigError: on an unknown baseline, levels that are none, or folds that cannot work.
        DataError: if closes do not change, or the flow's forecasts are about other returns.
        TrainingError: if a model cannot be estimated.
    """
    check_levels(levels)
    names = check_baselines(baselines)
    bars = validate_bars(bars)
    config = _default_config(seed) if config is None else config
    folds = walk_forward_folds(
        len(bars),
        n_folds,
        purge=DEFAULT_SPEC.min_bars,
        test_fraction=test_fraction,
        min_train=_least_train() if flow is None else MIN_BLOCK,
    )
    returns = _log_returns(bars)
    # Position t of the returns is the return from bar t to bar t + 1.
    spans = [(f.train.start, f.test.start - 1, f.test.stop - 1) for f in folds]
    tested = np.concatenate([returns[first:stop] for _, first, stop in spans])
    _refuse_rare(levels, len(tested), test_fraction)
    forecaster = _default_flow() if flow is None else flow
    pair = forecaster(bars, folds, levels, config=config, progress=progress)
    forecasts = {
        name: _about(tested, own, levels, name) for name, own in zip(FLOW_NAMES, pair, strict=True)
    }
    for name in names:
        forecasts[name] = walk_forward(
            BASELINES[name],
            returns,
            [(range(start, first), first, stop) for start, first, stop in spans],
            levels,
            None if progress is None else _labelled(progress, name),
        )
    index = cast("pd.DatetimeIndex", bars.index)
    return RiskStudy(
        stamps=index[spans[0][1] : spans[-1][2]],
        forecasts=forecasts,
        bounds=[index[first] for _, first, _ in spans],
        manifest=_manifest(bars, folds, names, levels, test_fraction, seed, config),
    )


def check_baselines(names: Sequence[str] | None) -> list[str]:
    """Return the baselines' names, each once; all where None.

    Raises:
        ConfigError: on an unknown name, or none at all.
    """
    chosen = list(BASELINES) if names is None else list(dict.fromkeys(names))
    unknown = [name for name in chosen if name not in BASELINES]
    if unknown or not chosen:
        raise ConfigError(
            f"expected baselines among {', '.join(BASELINES)}, found "
            f"{', '.join(unknown) or 'none'}; name those that are there"
        )
    return chosen


def _default_config(seed: int) -> TrainConfig:
    from glow_bt.training import TrainConfig

    return TrainConfig(seed=seed)


def _least_train() -> int:
    """Return the training block from which on the past before a test block suffices the flow.

    It learns from all of that past, the purges and the validation block too. That the latter is
    the shortest possible makes it long enough for every baseline as well.
    """
    from glow_bt.training import TrainConfig, return_bars_needed

    needed = return_bars_needed(ContextSpec(), TrainConfig())
    return max(MIN_BLOCK, needed - 2 * DEFAULT_SPEC.min_bars - MIN_BLOCK)


def _refuse_rare(levels: Sequence[float], tested: int, test_fraction: float) -> None:
    """Refuse a level beyond which not one return is expected: no test of it means anything."""
    rarest = min(min(p, 1 - p) for p in levels)
    if rarest * tested < 1:
        raise TooFewBarsError(
            math.ceil(1 / (rarest * test_fraction)),
            round(tested / test_fraction),
            f"testing the level {rarest:g}",
        )


def _default_flow() -> FlowForecaster:
    from glow_bt.training import walk_forward_returns

    return walk_forward_returns


def _log_returns(bars: pd.DataFrame) -> Floats:
    returns: Floats = np.diff(np.log(bars["close"].to_numpy(dtype=np.float64)))
    if not returns.any():
        raise DataError(
            f"expected closes that change, found the same close at all {len(bars)} bars; "
            "give a market that is traded"
        )
    return returns


def _about(returns: Floats, own: Forecasts, levels: Sequence[float], name: str) -> Forecasts:
    """Refuse forecasts of other returns; give all models the same returns to the last bit."""
    fits = own.levels == tuple(levels) and len(own) == len(returns)
    if not fits or not np.allclose(own.returns, returns, rtol=1e-6, atol=1e-10):
        raise DataError(
            f"expected {name} to forecast the {len(returns)} returns into the test bars at levels "
            f"{tuple(levels)}, found {len(own)} forecasts at {own.levels} of others; "
            "forecast the return from bar t to t + 1 at the close of bar t"
        )
    return replace(own, returns=returns)


def _labelled(progress: RiskProgress, name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total)


def _manifest(
    bars: pd.DataFrame,
    folds: Sequence[Fold],
    names: Sequence[str],
    levels: Sequence[float],
    test_fraction: float,
    seed: int,
    config: TrainConfig,
) -> dict[str, Any]:
    return {
        "bars": {
            "count": len(bars),
            "from": bars.index[0].isoformat(),
            "until": bars.index[-1].isoformat(),
            "seconds": bar_interval(bars).total_seconds(),
            "sha256": bars_sha256(bars),
        },
        "seed": seed,
        "levels": list(levels),
        "baselines": list(names),
        "flow": config.to_dict(),
        "choices": dict(_CHOICES),
        "test_fraction": test_fraction,
        "folds": [
            {
                "estimated_from": bars.index[fold.train.start].isoformat(),
                "tested_from": bars.index[fold.test.start].isoformat(),
                "tested_until": bars.index[fold.test.stop - 1].isoformat(),
                "bars": len(fold.test),
            }
            for fold in folds
        ],
        "versions": {
            "glow_bt": glow_bt.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _LIBRARIES},
        },
    }
