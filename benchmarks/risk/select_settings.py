"""How the return flow's defaults were chosen: walk-forward inside the first 40 % of each history.

What comes after those 40 % is tested in results/ and is not looked at here. Of the 40 % the last
half is forecast in three folds. Call:

    python -m benchmarks.risk.select_settings [BTC_BARS] > benchmarks/risk/select_settings.md
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np

from datafeeds.samples import load_sample
from glow_bt.features import ContextSpec
from glow_bt.folds import walk_forward_folds
from glow_bt.ohlcv import bar_interval, read_bars
from glow_bt.risk import BASELINES, christoffersen_test, kupiec_test, quantile_loss, violations
from glow_bt.risk import walk_forward as walk_forward_baseline
from glow_bt.risk.recalibration import Recalibration
from glow_bt.training import TrainConfig, walk_forward_returns

SHARE = 0.4
LEVELS = (0.01, 0.025, 0.05, 0.95, 0.975, 0.99)
RIVALS = ("garch_t", "gjr_skewt", "egarch_skewt")
FEWER = {"half_lives": (1, 4, 12, 40), "range_half_lives": (1, 4, 12), "return_half_lives": (1, 5)}
MORE = {
    "half_lives": (1, 2, 4, 8, 16, 32, 64),
    "range_half_lives": (1, 2, 4, 8, 16, 32),
    "return_half_lives": (1, 2, 4, 8, 16),
}
SETTINGS = [
    ("defaults", {}, {}),
    ("fewer spans", FEWER, {}),
    ("more spans", MORE, {}),
    ("window 60", {"window": 60}, {}),
    ("window 250", {"window": 250}, {}),
    ("hidden width 8", {}, {"return_hidden_dim": 8}),
    ("hidden width 32", {}, {"return_hidden_dim": 32}),
    ("3 members", {}, {"return_members": 3}),
    ("8 members", {}, {"return_members": 8}),
    ("another seed", {}, {"seed": 1}),
]
STEPS = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.05)


def main(btc: str | None) -> None:
    histories = {name: load_sample(name) for name in ("sp500", "nasdaq")}
    if btc is not None:
        histories["BTC hourly"] = read_bars(btc)
    markets = {name: bars.iloc[: round(len(bars) * SHARE)] for name, bars in histories.items()}
    print("Return flow: NLL of log returns in %, and quantile loss over that of the best of three")
    print("GARCH models, mean over 1, 2.5 and 5 % of both tails; the last half of the first")
    print("40 % of each history, three folds.\n")
    print(f"| settings | {' | '.join(markets)} |")
    print(f"|---|{'---|' * len(markets)}")
    rivals = {name: best_rival(bars) for name, bars in markets.items()}
    cells = (f"{nll:.4f} / 1.000" for nll, _ in rivals.values())
    print(f"| best of {', '.join(RIVALS)} | {' | '.join(cells)} |", flush=True)
    for label, spec, config in SETTINGS:
        cells = [cell(bars, rivals[name], spec, config) for name, bars in markets.items()]
        print(f"| {label} | {' | '.join(cells)} |", flush=True)
    print(
        "\nStep of the recalibration: NLL / cells of 12 with p > 0.05 (Kupiec, Christoffersen)\n"
    )
    print(f"| step | {' | '.join(markets)} |")
    print(f"|---|{'---|' * len(markets)}")
    for step in STEPS:
        cells = [recalibrated(bars, step) for bars in markets.values()]
        print(f"| {step:g} | {' | '.join(cells)} |", flush=True)


def folds_of(bars):
    return walk_forward_folds(len(bars), 3, purge=ContextSpec().min_bars, test_fraction=0.5)


def best_rival(bars):
    returns = np.diff(np.log(bars["close"].to_numpy()))
    folds = [
        (range(fold.train.start, fold.test.start - 1), fold.test.start - 1, fold.test.stop - 1)
        for fold in folds_of(bars)
    ]
    forecasts = [walk_forward_baseline(BASELINES[name], returns, folds, LEVELS) for name in RIVALS]
    losses = np.array([losses_of(own) for own in forecasts])
    return min(nll_of(own) for own in forecasts), losses.min(axis=0)


def cell(bars, rival, spec, config):
    spec = replace(ContextSpec.of(bars, bar_interval(bars).total_seconds()), **spec)
    flow, _ = walk_forward_returns(
        bars, folds_of(bars), LEVELS, config=TrainConfig(**config), spec=spec
    )
    return f"{nll_of(flow):.4f} / {np.mean(losses_of(flow) / rival[1]):.3f}"


def recalibrated(bars, step):
    _, own = walk_forward_returns(
        bars, folds_of(bars), LEVELS, recalibration=Recalibration(step=step)
    )
    passed = 0
    for level in LEVELS:
        hits = violations(own.returns, own.quantile(level), level)
        passed += kupiec_test(hits, min(level, 1 - level)).pvalue > 0.05
        passed += christoffersen_test(hits).pvalue > 0.05
    return f"{nll_of(own):.4f} / {passed}"


def nll_of(forecasts):
    return float(np.log(100) - forecasts.log_prob.mean())


def losses_of(forecasts):
    return np.array(
        [quantile_loss(forecasts.returns, forecasts.quantile(p), p) for p in forecasts.levels]
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
