"""How the strategy's defaults were chosen: backtests within the first 40 % of each history.

What comes after those 40 % is tested in results/ and is not looked at here. Call:

    python benchmarks/select_policy.py [BTC_BARS] > benchmarks/select_policy.md
"""

from __future__ import annotations

import sys
from unittest.mock import patch

from datafeeds.samples import load_sample
from glow_bt.bt import BybitPerpetual
from glow_bt.evaluation.study import Contender, run_study
from glow_bt.evaluation.walk_forward import train_walk_forward
from glow_bt.ohlcv import read_bars
from glow_bt.training import TrainConfig
from strategies.glow_baselines import BuyAndHold, ScoredGlow
from strategies.glow_strategy import GlowStrategy

SHARE = 0.4
SLIPPAGE_BPS = 1.0
SEEDS = {"S&P 500": (0, 1, 2), "NASDAQ": (0, 1, 2), "BTC hourly": (0,)}
# What differs from the default.
SETTINGS = [
    {},
    {"half_life": 0.0},
    {"half_life": 12.0},
    {"half_life": 48.0},
    {"half_life": 96.0},
    {"risk_budget": 0.005},
    {"risk_budget": 0.015},
    {"risk_budget": 0.02},
    {"dead_band": 0.05},
    {"dead_band": 0.2},
    {"error_margin": 0.0},
    {"use_filter": False},
    {"use_direction": False},
    {"constant_limit": 0.5},
    {"stance": 0.0},
    {"stance": 0.0, "half_life": 0.0},
    {"stance": 0.5},
]


def main(btc: str | None) -> None:
    markets = {"S&P 500": load_sample("sp500"), "NASDAQ": load_sample("nasdaq")}
    if btc is not None:
        markets["BTC hourly"] = read_bars(btc)
    columns = {name: column(name, bars) for name, bars in markets.items()}
    print("Sharpe ratio / max drawdown / turnover a year / orders, after costs, mean over seeds;")
    print("walk-forward with four folds over the last 60 % of the first")
    print(f"{SHARE:.0%} of each history.\n")
    print(f"| what differs from the default | {' | '.join(markets)} |")
    print(f"|---|{'---|' * len(markets)}")
    for row in next(iter(columns.values())):
        print(f"| {row} | {' | '.join(cells[row] for cells in columns.values())} |")


def column(name, bars):
    """Return each setting's cell for a market."""
    past = bars.iloc[: round(len(bars) * SHARE)]
    fee = BybitPerpetual().p.commission
    shared = {"cost_rate": fee + SLIPPAGE_BPS / 1e4}
    contenders = [
        Contender("glow", GlowStrategy, shared, uses_model=True),
        Contender("buy and hold", BuyAndHold, {}),
        *(
            Contender(label(settings), ScoredGlow, shared | settings, uses_scores=True)
            for settings in SETTINGS
        ),
    ]
    studies = [study(past, seed, contenders) for seed in SEEDS[name]]
    return {row: cell([found[row] for found in studies]) for row in list(studies[0])[1:]}


def study(past, seed, contenders):
    """Return each contender's metrics, and those of the default with orders to the band's edge."""
    models = train_walk_forward(past, TrainConfig(seed=seed), n_folds=4)

    def metrics(some):
        return run_study(past, models, some, slippage_bps=SLIPPAGE_BPS, draws=None).metrics[
            "strategies"
        ]

    found = metrics(contenders)
    with patch("glow_bt.policy._REACH", 1.0):
        found["orders to the edge of the band"] = metrics(contenders[:1])["glow"]
    return found


def label(settings):
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "defaults"


def cell(measured):
    def mean(name):
        values = [m[name] for m in measured if m[name] is not None]
        return sum(values) / len(values) if values else float("nan")

    return (
        f"{mean('sharpe'):.2f} / {mean('max_drawdown'):.1%} / {mean('turnover'):.1f} / "
        f"{mean('n_orders'):.0f}"
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
