"""A study: one Cerebro run of a strategy and its baselines over bars no model has seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd

from glow_bt.artifact import Artifact
from glow_bt.bt import BybitPerpetual
from glow_bt.errors import DataError, TooFewBarsError
from glow_bt.evaluation.ablations import scores_with_errors
from glow_bt.evaluation.backtest import BacktestResult, run_backtest
from glow_bt.evaluation.density_metrics import density_metrics
from glow_bt.evaluation.metrics import performance
from glow_bt.evaluation.regime_metrics import regime_metrics
from glow_bt.evaluation.searched import num_trials as tried
from glow_bt.evaluation.searched import search_behind
from glow_bt.evaluation.study_statistics import DRAWS, study_statistics
from glow_bt.evaluation.walk_forward import FoldModel
from glow_bt.ohlcv import BAR_COLUMNS, periods_per_year, validate_bars
from glow_bt.risk import christoffersen_test, kupiec_test, quantile_loss
from glow_bt.scoring import SCORE_COLUMNS, BarScorer, Model, Scorer, open_scorer

__all__ = ["VAR_LEVELS", "Contender", "Study", "run_study", "unseen_span", "var_metrics"]

VAR_LEVELS = (0.01, 0.05)


@dataclass(frozen=True)
class Contender:
    """A strategy to run.

    Attributes:
        name: key in the results.
        strategy: a Backtrader strategy class.
        params: its parameters, without the model and without start, the stamp of the first
            unseen bar, which every contender is given.
        uses_model: whether it takes model=.
        uses_scores: whether it takes scores=, what the first contender's model said of the bars
            (`glow_bt.scoring.SCORE_COLUMNS`, and var_error): an ablation of it.
    """

    name: str
    strategy: type[Any]
    params: Mapping[str, Any]
    uses_model: bool = False
    uses_scores: bool = False


@dataclass(frozen=True, eq=False)
class Study:
    """What came of a study.

    Attributes:
        results: one backtest a contender, in the order given; the first is the flow's.
        latents: z1, z2, ... and regime of every unseen bar.
        metrics: JSON-ready numbers, see `glow_bt.evaluation.study.run_study`.
    """

    results: Mapping[str, BacktestResult]
    latents: pd.DataFrame
    metrics: Mapping[str, Any]


def unseen_span(
    bars: pd.DataFrame, models: Sequence[FoldModel] | Artifact, late: int = 0
) -> pd.DataFrame:
    """Return the bars that no model was trained on, after the warm-up that scoring them needs.

    Args:
        bars: the whole history.
        models: a walk-forward's models, or one artifact.
        late: bars of warm-up that a recalibration needs beside, its horizon.

    Raises:
        DataError: if the bars end before.
        TooFewBarsError: if there are too few to warm up and trade.
    """
    min_bars = _min_bars(models) + late
    if isinstance(models, Artifact):
        first = int(bars.index.searchsorted(models.training.trained_until, side="right"))
    else:
        first = int(bars.index.searchsorted(models[0].valid_from))
    if first >= len(bars):
        until = models.training.trained_until if isinstance(models, Artifact) else bars.index[-1]
        raise DataError(
            f"expected bars after {until}, the last that the model was trained on, found none "
            f"(bars end at {bars.index[-1]}): the model has seen them all; give later bars"
        )
    # Bars that begin after the training interval warm up on themselves.
    start = max(first - (min_bars - 1), 0)
    span = bars.iloc[start:]
    if len(span) < min_bars + 2:
        raise TooFewBarsError(min_bars + 2, len(span), "a backtest on bars the model has not seen")
    return span


def run_study(
    bars: pd.DataFrame,
    models: Sequence[FoldModel] | Artifact,
    contenders: Sequence[Contender],
    *,
    cash: float = 100_000.0,
    slippage_bps: float = 1.0,
    liquidity: str = "taker",
    leverage: float = 1.0,
    num_trials: int | None = None,
    draws: int | None = DRAWS,
) -> Study:
    """Run every contender over the unseen bars, with costs, and measure.

    One run goes over all test spans: positions are carried from fold to fold. Costs are fees,
    slippage, and funding where the bars have a column funding_rate.

    Args:
        bars: the whole history; what the models were trained on is cut off.
        models: a walk-forward's models, or one artifact.
        contenders: strategies to run on the same bars; the first uses the model, and VaR is
            tested for its horizon and recalibrated as it is.
        cash: starting equity.
        slippage_bps: of the price, on every fill.
        liquidity: which of the fees is paid, "taker" or "maker".
        leverage: largest position over equity that the broker takes.
        num_trials: configurations that were tried before one was chosen; None for those of the
            search that the models know of, or 1.
        draws: of the bootstraps; None for no statistics.

    Returns:
        Results and metrics: span; costs (what is charged); per contender performance and costs
        paid; of the model mean log-likelihood (of the raw state), NLL and bits per dimension (of
        the scaled state, as in training), share in distribution; per VaR level violations with
        Kupiec and Christoffersen p-values; regimes (`glow_bt.evaluation.regime_metrics`);
        density, against a baseline's (`glow_bt.evaluation.density_metrics`); statistics
        (`glow_bt.evaluation.study_statistics`).
    """
    own = contenders[0].params
    risk = {name: own[name] for name in ("horizon", "recalibrate") if name in own}
    late = risk.get("horizon", 1) if risk.get("recalibrate") else 0
    bars = validate_bars(bars)
    span = unseen_span(bars, models, late)
    model = _model_of(models)
    scorer = open_scorer(model, var_level=own.get("var_level", VAR_LEVELS[0]), **risk)
    start = span.index[_min_bars(models) + late - 1]
    account = _Account(cash, slippage_bps, liquidity, leverage)
    results = _run_all(contenders, span, start, scorer, account)
    states = results[contenders[0].name].states
    yearly = periods_per_year(span)
    metrics: dict[str, Any] = {
        "span": _span_facts(states, yearly),
        "costs": {
            "liquidity": liquidity,
            "fee": account.commission().p.commission,
            "slippage_bps": slippage_bps,
            "funding": "funding_rate" in span,
        },
        "strategies": {name: _measure(result, yearly, cash) for name, result in results.items()},
        "model": _model_metrics(states, models),
        "var": {str(level): var_metrics(span, model, level, **risk) for level in VAR_LEVELS},
    }
    if draws is not None:
        recalibrate = bool(risk.get("recalibrate"))
        metrics["regimes"] = regime_metrics(states, span, models)
        metrics["density"] = density_metrics(bars, start, models, recalibrate=recalibrate)
        metrics["statistics"] = study_statistics(
            {name: result.states for name, result in results.items()},
            periods_per_year=yearly,
            starting_equity=cash,
            num_trials=tried(search_behind(models)) if num_trials is None else num_trials,
            draws=draws,
        )
    return Study(results=results, latents=_latents(span.iloc[late:], models), metrics=metrics)


def _span_facts(states: pd.DataFrame, yearly: float) -> dict[str, Any]:
    return {
        "from": states.index[0].isoformat(),
        "until": states.index[-1].isoformat(),
        "bars": len(states),
        "periods_per_year": yearly,
    }


@dataclass(frozen=True)
class _Account:
    """What every contender starts with and pays."""

    cash: float
    slippage_bps: float
    liquidity: str
    leverage: float

    def commission(self) -> BybitPerpetual:
        return BybitPerpetual(leverage=self.leverage, liquidity=self.liquidity)


def _run_all(
    contenders: Sequence[Contender],
    span: pd.DataFrame,
    start: pd.Timestamp,
    scorer: BarScorer,
    account: _Account,
) -> dict[str, BacktestResult]:
    """Run one contender after the other; ablations take the scores of the first."""
    results: dict[str, BacktestResult] = {}
    scores: pd.DataFrame | None = None
    for contender in contenders:
        params = {**contender.params, "start": start}
        if contender.uses_model:
            params["model"] = scorer
        if contender.uses_scores:
            if scores is None:
                first = contenders[0]
                scores = scores_with_errors(results[first.name].states, span, scorer, first.params)
            params["scores"] = scores
        result = run_backtest(
            span,
            contender.strategy,
            params,
            cash=account.cash,
            commission=account.commission(),
            slippage_bps=account.slippage_bps,
        )
        results[contender.name] = replace(result, states=result.states.loc[start:])
    return results


def var_metrics(
    span: pd.DataFrame,
    model: Model,
    level: float,
    *,
    horizon: int = 1,
    recalibrate: bool = False,
) -> dict[str, float | int | None]:
    """Test the model's VaR at one level against the log returns over the horizon.

    Of several bars those returns count that do not overlap.

    Returns:
        n, violations, expected, rate, kupiec_p, christoffersen_p, quantile_loss.
    """
    stamps = cast("pd.DatetimeIndex", span.index).as_unit("ns").asi8
    scorer = open_scorer(model, var_level=level, horizon=horizon, recalibrate=recalibrate)
    columns = getattr(scorer, "columns", BAR_COLUMNS)
    scores = scorer.score_arrays(stamps, span[list(columns)].to_numpy())
    var = scores[:, SCORE_COLUMNS.index("var")]
    log_close = np.log(span["close"].to_numpy())
    realised = np.full(len(span), np.nan)
    realised[:-horizon] = log_close[horizon:] - log_close[:-horizon]
    known = np.isfinite(var) & np.isfinite(realised)
    known &= (np.arange(len(span)) - known.argmax()) % horizon == 0
    var, realised = var[known], realised[known]
    violations = realised < var
    return {
        "n": len(var),
        "violations": int(violations.sum()),
        "expected": level * len(var),
        "rate": float(violations.mean()),
        "kupiec_p": _finite(kupiec_test(violations, level).pvalue),
        "christoffersen_p": _finite(christoffersen_test(violations).pvalue),
        "quantile_loss": quantile_loss(realised, var, level),
    }


def _measure(result: BacktestResult, yearly: float, cash: float) -> dict[str, Any]:
    states = result.states
    measured = performance(
        states["equity"],
        periods_per_year=yearly,
        exposure=states["exposure"],
        starting_equity=cash,
    )
    return measured.to_dict() | {
        "costs": dict(result.costs),
        "n_orders": len(result.orders),
        "n_rejected": len(result.rejected),
        "mean_exposure": float(states["exposure"].mean()),
    }


def _model_metrics(
    states: pd.DataFrame, models: Sequence[FoldModel] | Artifact
) -> dict[str, float | None]:
    artifact = models if isinstance(models, Artifact) else models[0].artifact
    scored = states.dropna(subset=["log_prob"])
    # Each model scales states in its own way; scaled, they compare with its training.
    unit = pd.Series(artifact.scaler.log_det, index=scored.index)
    if not isinstance(models, Artifact):
        for fold in models:
            unit[scored.index >= fold.valid_from] = fold.artifact.scaler.log_det
    nll = float((unit - scored["log_prob"]).mean())
    return {
        "mean_log_likelihood": float(scored["log_prob"].mean()),
        "nll": nll,
        "bits_per_dim": nll / (len(artifact.spec.names) * math.log(2)),
        "in_distribution_share": float(scored["in_distribution"].mean()),
        "mean_abs_direction": float(scored["direction"].abs().mean()),
    }


def _latents(span: pd.DataFrame, models: Sequence[FoldModel] | Artifact) -> pd.DataFrame:
    """Return latents and regime of the unseen bars, each by the model that was valid then."""
    if isinstance(models, Artifact):
        parts = [(models, span)]
    else:
        parts = []
        for fold in models:
            first = int(span.index.searchsorted(fold.valid_from))
            last = int(span.index.searchsorted(fold.valid_until, side="right"))
            warm_up = fold.artifact.min_bars - 1
            parts.append((fold.artifact, span.iloc[max(first - warm_up, 0) : last]))
    tables = []
    for artifact, bars in parts:
        z = Scorer(artifact).latents(bars)
        tables.append(z.assign(regime=artifact.regime_of(z.to_numpy())))
    return pd.concat(tables)


def _min_bars(models: Sequence[FoldModel] | Artifact) -> int:
    artifact = models if isinstance(models, Artifact) else models[0].artifact
    return artifact.min_bars


def _model_of(models: Sequence[FoldModel] | Artifact) -> Model:
    if isinstance(models, Artifact):
        return models
    return [(fold.valid_from, fold.artifact) for fold in models]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
