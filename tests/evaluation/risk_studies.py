"""Studies of risk forecasts, made up or of cheap models."""

import numpy as np
import pandas as pd
from scipy.stats import norm

from glow_bt.evaluation.risk_study import RISK_LEVELS, RiskStudy, run_risk_study
from glow_bt.risk import BASELINES, walk_forward
from glow_bt.risk.forecasts import Forecasts
from tests.models import sp500_bars

CHEAP = ("gaussian", "historical")


def normal_forecasts(returns, scale, levels=RISK_LEVELS):
    """Normal forecasts of mean zero."""
    probabilities = np.array(levels)
    sides = np.where(probabilities < 0.5, -1, 1) / np.minimum(probabilities, 1 - probabilities)
    return Forecasts(
        tuple(levels),
        returns,
        norm.logpdf(returns, scale=scale),
        norm.cdf(returns / scale),
        scale[:, None] * norm.ppf(probabilities),
        scale[:, None] * sides * norm.pdf(norm.ppf(probabilities)),
    )


def made_up_study(num_bars=800, *, levels=RISK_LEVELS, seed=0, freq="h", num_folds=3):
    """A flow that knows the scale, one that errs a little, and three baselines that err."""
    rng = np.random.default_rng(seed)
    scale = 0.01 * np.exp(0.4 * np.sin(np.arange(num_bars) / 40.0))
    returns = scale * rng.standard_normal(num_bars)
    stamps = pd.date_range("2020-01-01", periods=num_bars, freq=freq, tz="UTC", name="timestamp")
    constant = np.full(num_bars, returns.std())
    blind = normal_forecasts(returns, 1.1 * constant, levels)
    without_density = Forecasts(
        blind.levels, returns, np.full(num_bars, np.nan),
        blind.pit, blind.quantiles, blind.shortfalls,
    )  # fmt: skip
    return RiskStudy(
        stamps=stamps,
        forecasts={
            "flow": normal_forecasts(returns, 0.9 * scale, levels),
            "flow_recalibrated": normal_forecasts(returns, scale, levels),
            "gaussian": normal_forecasts(returns, constant, levels),
            "historical": without_density,
            "garch_t": normal_forecasts(returns, np.sqrt(scale * constant), levels),
        },
        bounds=[stamps[k * num_bars // num_folds] for k in range(num_folds)],
        manifest={"seed": 5, "test_fraction": 0.6, "choices": {"settings": "<none> & none"}},
    )


def fake_flow(bars, folds, levels, *, config, progress):
    """A flow's part, played by two baselines."""
    returns = np.diff(np.log(bars["close"].to_numpy()))
    spans = [
        (range(fold.train.start, fold.test.start - 1), fold.test.start - 1, fold.test.stop - 1)
        for fold in folds
    ]
    if progress is not None:
        progress("flow", len(folds), len(folds))
    ewma = walk_forward(BASELINES["ewma"], returns, spans, levels)
    return ewma, walk_forward(BASELINES["gaussian"], returns, spans, levels)


def small_study(bars=None, **settings):
    """Two folds of 800 daily bars, with the fake flow and two cheap baselines."""
    bars = sp500_bars(0, 800) if bars is None else bars
    given = {"n_folds": 2, "baselines": CHEAP, "flow": fake_flow} | settings
    return run_risk_study(bars, **given)
