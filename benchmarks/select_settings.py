"""How the trainer's defaults were chosen: validation NLL on the first 40 % of each history.

What comes after those 40 % is tested in results/ and is not looked at here. Call:

    python benchmarks/select_settings.py [BTC_BARS] > benchmarks/select_settings.md
"""

from __future__ import annotations

import sys

from datafeeds.samples import load_sample
from glow_bt.ohlcv import read_bars
from glow_bt.training import TrainConfig, train

SHARE = 0.4
SETTINGS = [
    {},
    {"noise": 0.0},
    {"noise": 0.05},
    {"noise": 0.2},
    {"num_levels": 1, "num_steps": 8},
    {"num_levels": 1, "num_steps": 12},
    {"num_levels": 1, "num_steps": 16},
    {"hidden_dim": 16},
    {"hidden_dim": 64},
    {"weight_decay": 1e-3},
    {"batch_size": 128},
    {"ema_decay": 0.995},
    {"base": "mixture"},
    {"coupling": "spline", "num_steps": 2},
    {"flow": "realnvp"},
    {"flow": "maf"},
]
SEEDS = {"sp500": (0, 1, 2), "nasdaq": (0, 1, 2), "BTC hourly": (0,)}


def main(btc: str | None) -> None:
    markets = {name: load_sample(name) for name in ("sp500", "nasdaq")}
    if btc is not None:
        markets["BTC hourly"] = read_bars(btc)
    print("Validation NLL of state (nats) / of the next return (nats), mean over seeds;")
    print(f"80/20 split of the first {SHARE:.0%} of each history.\n")
    print(f"| settings | {' | '.join(markets)} |")
    print(f"|---|{'---|' * len(markets)}")
    for settings in SETTINGS:
        cells = [cell(name, bars, settings) for name, bars in markets.items()]
        label = ", ".join(f"{key} {value}" for key, value in settings.items()) or "defaults"
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


def cell(name, bars, settings):
    past = bars.iloc[: round(len(bars) * SHARE)]
    metrics = [
        train(past, TrainConfig(fractions=(0.8, 0.2, 0.0), seed=seed, **settings)).training.metrics
        for seed in SEEDS[name]
    ]
    state, returns = (
        sum(m[f"{flow}_validation_nll"] for m in metrics) / len(metrics)
        for flow in ("state", "return")
    )
    return f"{state:.3f} / {returns:.4f}"


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
