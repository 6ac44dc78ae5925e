"""Walk-forward that starts each fold at the model before, beside one that starts anew.

The state flow of a fold begins at that of the fold before (`--warm-start`), at the trainer's own
learning rate or a share of it. Call:

    python -m benchmarks.warm_start [--btc BARS] > benchmarks/warm_start.md
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import replace

import torch

from datafeeds.samples import load_sample
from glow_bt.evaluation.walk_forward import divide_walk_forward
from glow_bt.features import DEFAULT_SPEC, Scaler
from glow_bt.ohlcv import read_bars
from glow_bt.threads import one_thread
from glow_bt.training import TrainConfig
from glow_bt.training.data import prepare
from glow_bt.training.fitter import FlowFitter
from glow_bt.training.loop import Block, mean_nll
from glow_bt.training.warm_start import state_flow_at

# What a warm fold is trained with, as a share of the trainer's learning rate; None: a cold one.
WAYS = {"cold": None, "warm": 1.0, "warm, rate x 0.3": 0.3, "warm, rate x 0.1": 0.1}
SCORES = ("validation", "test")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--btc", default=os.environ.get("GLOW_BT_BTC_BARS"))
    parser.add_argument("--seeds", type=int, default=3, help="on the indices; one on BTC")
    args = parser.parse_args()
    studies = [
        (f"{title}, {window} window", load_sample(name), 6, window, args.seeds, tuple(WAYS))
        for name, title in (("sp500", "S&P 500, daily"), ("nasdaq", "NASDAQ, daily"))
        for window in ("expanding", "rolling")
    ]
    if args.btc:
        bars = read_bars(args.btc)
        studies.append(
            ("BTC, hourly, expanding window", bars, 4, "expanding", 1, ("cold", "warm"))
        )
    print(HEAD, flush=True)
    for title, bars, count, window, seeds, ways in studies:
        folds = divide_walk_forward(bars, n_folds=count, expanding=window == "expanding")
        found = {way: [] for way in ways}
        for seed in range(seeds):
            with one_thread():
                walked(bars, folds, TrainConfig(seed=seed), found)
        runs = "one seed" if seeds == 1 else f"{seeds} seeds"
        print(f"\n## {title}, {count} folds, {runs}\n\n{TABLE}", flush=True)
        for way, rows in found.items():
            print(line(way, rows, found["cold"]), flush=True)


def walked(bars, folds, config, found):
    """Add what is measured of each fold after the first, by way."""
    _, *first = measured(bars, folds[0], config)
    for way, rows in found.items():
        before, share = first, WAYS[way]  # the first fold is the same whichever way
        for fold in folds[1:]:
            if share is None:
                row, *before = measured(bars, fold, config)
            else:
                rate = share * config.learning_rate
                row, *before = measured(bars, fold, replace(config, learning_rate=rate), before)
            rows.append(row)


def measured(bars, fold, config, before=None):
    """Train a fold's state flow; return what was measured, the flow and its scaler."""
    first = fold.train.start
    data = prepare(bars.iloc[first : fold.test.stop], config, DEFAULT_SPEC)
    train, validation, test = (
        data.rows(range(block.start - first, block.stop - first))
        for block in (fold.train, fold.validation, fold.test)
    )
    scaler = Scaler.fit(data.features[train], DEFAULT_SPEC.names)
    x = scaler.transform(data.features)
    begin = None if before is None else state_flow_at(*before, scaler)
    since = time.process_time()
    fitter = FlowFitter(config, None, lambda _: None)
    flow, fit = fitter.fit_state_flow(x[train], x[validation], begin)
    row = {"seconds": time.process_time() - since, "epochs": len(fit.epochs)}
    for name, rows in zip(SCORES, (validation, test), strict=True):
        row[name] = mean_nll(flow, Block(torch.from_numpy(x[rows])))
    return row, flow, scaler


def line(way, rows, cold):
    def mean(name):
        return statistics.fmean(row[name] for row in rows)

    cells = [f"{mean('epochs'):.1f}", f"{mean('seconds'):.2f}"]
    for name in SCORES:
        gaps = [one[name] - other[name] for one, other in zip(rows, cold, strict=True)]
        told = ""
        if way != "cold":
            better = sum(gap < 0 for gap in gaps)
            told = f" ({statistics.fmean(gaps):+.3f}; {better} of {len(gaps)} better)"
        cells.append(f"{mean(name):.3f}{told}")
    return f"| {way} | {' | '.join(cells)} |"


HEAD = """# Warm start

Folds over the last 60 % of each history, the trainer's defaults. Means over all folds but the
first, which is the same in every row. Epochs and seconds are the state flow's, the only one that
starts at the model before; seconds are processor time of one thread. NLL: nats a state, scaled by
the fold's own training block; in brackets the difference from cold, and in how many folds it is
below. Validation may choose; test is reported."""
TABLE = """| start | epochs | seconds | validation NLL | test NLL |
|---|---|---|---|---|"""


if __name__ == "__main__":
    main()
