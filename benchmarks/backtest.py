"""How fast and how lean backtests and live bars are: `python -m benchmarks.backtest [PART ...]`.

Every part is timed in processor seconds of the process (user and system) beside seconds of the
clock, contenders taking turns, each after what the one before left was collected. What grows with
the bars runs in a process of its own each time. A part that is run alone takes its place in
backtest.json, from which backtest.md is written; `glow_bt` is what is measured.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import backtrader as bt
import numpy as np
import pandas as pd
import torch

from benchmarks.backtest_page import page
from datafeeds.samples import load_sample
from glow_bt.artifact import Artifact, load_artifact, save_artifact
from glow_bt.bt import BybitPerpetual, GlowIndicator
from glow_bt.bt.feed import ArrayFeed
from glow_bt.evaluation.backtest import run_backtest
from glow_bt.scoring import Scorer
from glow_bt.threads import one_thread
from glow_bt.training import TrainConfig, train
from strategies.glow_strategy import GlowStrategy

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "backtest.json"
SIZES = (10_000, 31_623, 100_000, 316_228, 1_000_000)
BTC_BARS = 33_259  # of the hourly history that the other benchmarks take
COSTS = {"cost_rate": 6.5e-4}  # taker fee and a basis point of slippage, as glow-bt's own runs
LOOP_BARS = 150
LIVE_BARS = 2_000


def garch_bars(count: int, seconds: int) -> pd.DataFrame:
    """Bars with clustered volatility and heavy tails: GARCH(1,1)-t closes, ranges around them."""
    rng = np.random.default_rng(0)
    draws = (rng.standard_t(5, size=count) * np.sqrt(0.6)).tolist()
    returns, variance = np.empty(count), 1e-6
    for i, draw in enumerate(draws):
        returns[i] = np.sqrt(variance) * draw
        variance = 2e-8 + 0.08 * returns[i] ** 2 + 0.90 * variance
    close = 100 * np.exp(np.cumsum(returns - returns.mean()))
    opens = np.concatenate([[100.0], close[:-1]])
    above, below = np.exp(np.abs(rng.normal(size=(2, count))) * 3e-4)
    index = pd.date_range("2020-01-01", periods=count, freq=f"{seconds}s", tz="UTC")
    columns = {
        "open": opens,
        "high": np.maximum(opens, close) * above,
        "low": np.minimum(opens, close) / below,
        "close": close,
        "volume": 100 * np.exp(rng.normal(size=count) / 2),
    }
    return pd.DataFrame(columns, index=index.rename("timestamp"))


def model_of(seconds: int) -> Artifact:
    """The trainer's default model, of S&P 500 days, passed off as one of shorter bars.

    Trained for four epochs, kept for the next call; made to believe in a direction, so that
    positions move.
    """
    folder = FOLDER.parent / "build" / "backtest_model"
    if not folder.exists():
        save_artifact(train(load_sample("sp500"), TrainConfig(max_epochs=4)), folder)
    artifact = load_artifact(folder)
    past = {"trained_from": _day("2015-01-01"), "trained_until": _day("2016-01-01")}
    return replace(
        artifact,
        training=replace(artifact.training, bar_seconds=float(seconds), **past),
        returns=replace(artifact.returns, bar_seconds=float(seconds)),
        direction=replace(artifact.direction, slope_belief=0.75, drift_belief=0.5),
    )


def _day(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz="UTC")


class Crossover(bt.Strategy):
    """The plain strategy that everyone starts with."""

    def __init__(self):
        fast, slow = (bt.ind.SMA(self.data.close, period=n) for n in (20, 60))
        self.cross = bt.ind.CrossOver(fast, slow)

    def next(self):
        if self.cross[0] > 0:
            self.order_target_percent(target=0.9)
        elif self.cross[0] < 0:
            self.order_target_percent(target=0.0)


class BusyCrossover(bt.Strategy):
    """The same with averages so short that it trades about as often as `Minimal`."""

    def __init__(self):
        fast, slow = (bt.ind.SMA(self.data.close, period=n) for n in (2, 6))
        self.cross = bt.ind.CrossOver(fast, slow)

    next = Crossover.next


class Minimal(bt.Strategy):
    """As little as can be done with the indicator."""

    params = (("model", None),)

    def __init__(self):
        self.lines_of_glow = GlowIndicator(self.data, model=self.p.model).lines

    def next(self):
        glow = self.lines_of_glow
        wanted = bool(glow.in_distribution[0]) and glow.direction[0] > 0.2
        if wanted != bool(self.position):
            self.order_target_percent(target=0.9 if wanted else 0.0)


def run_cerebro(strategy: type[bt.Strategy], bars: pd.DataFrame, observers: bool, **params) -> int:
    """Run a strategy over an ArrayFeed and return the number of its orders."""
    cerebro = bt.Cerebro(stdstats=observers)
    cerebro.adddata(ArrayFeed(dataname=bars))
    cerebro.addstrategy(strategy, **params)
    cerebro.broker.setcash(1e5)
    cerebro.broker.addcommissioninfo(BybitPerpetual())
    cerebro.run()
    return len(cerebro.broker.orders)


def seconds_of(call: Callable[[], object]) -> tuple[float, float]:
    """Return processor and clock seconds of a call."""
    cpu, clock = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - clock


def one_size(count: int) -> dict[str, float]:
    """Score and backtest so many one-minute bars; in a process of its own."""
    bars, model = garch_bars(count, 60), model_of(60)
    small = bars.iloc[:2000]
    run_backtest(small, GlowStrategy, {"model": model, **COSTS})  # loads all code
    base = _peak_mb()
    found: dict[str, float] = {"bars": count, "base_mb": base}
    found["score_cpu"], found["score_clock"] = seconds_of(lambda: Scorer(model).score(bars))
    found["score_mb"] = _peak_mb() - base
    orders = []
    found["run_cpu"], found["run_clock"] = seconds_of(
        lambda: orders.append(run_backtest(bars, GlowStrategy, {"model": model, **COSTS}))
    )
    return {**found, "run_mb": _peak_mb() - base, "orders": len(orders[0].orders)}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def scaling(rounds: int) -> dict[str, object]:
    rows = []
    for count in SIZES:
        words = [sys.executable, "-m", "benchmarks.backtest", "--size", str(count)]
        done = [
            json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
            for _ in range(rounds if count < 50_000 else 1)
        ]
        rows.append({name: float(np.median([one[name] for one in done])) for name in done[0]})
    table = pd.DataFrame(rows)
    cost = {
        "score_cpu": table["score_cpu"],
        "cerebro_cpu": table["run_cpu"],
        "both_cpu": table["score_cpu"] + table["run_cpu"],
        "memory": table["run_mb"],
    }
    log_bars = np.log(table["bars"])
    exponents = {
        name: float(np.polyfit(log_bars, np.log(values.clip(lower=1e-3)), 1)[0])
        for name, values in cost.items()
    }
    return {"rows": rows, "exponents": exponents}


def crossover(rounds: int) -> dict[str, object]:
    bars, model = garch_bars(BTC_BARS, 3600), model_of(3600)
    contenders: dict[str, tuple[type[bt.Strategy], dict[str, object]]] = {
        "crossover": (Crossover, {}),
        "crossover, short averages": (BusyCrossover, {}),
        "minimal": (Minimal, {"model": model}),
        "glow_strategy": (GlowStrategy, {"model": model, **COSTS}),
    }
    found = {}
    for observers in (True, False):
        cpu: dict[str, list[float]] = {name: [] for name in contenders}
        orders = {}
        for _ in range(rounds + 1):  # the first loads what is loaded once
            for name, (strategy, params) in contenders.items():
                gc.collect()
                before = time.process_time()
                orders[name] = run_cerebro(strategy, bars, observers, **params)
                cpu[name].append(time.process_time() - before)
        plain = np.array(cpu["crossover"][1:])
        found["with observers" if observers else "without"] = {
            name: {
                "cpu": float(np.median(values[1:])),
                "ratio": float(np.median(np.array(values[1:]) / plain)),
                "ratio_of_least": float(min(values[1:]) / plain.min()),
                "orders": orders[name],
            }
            for name, values in cpu.items()
        }
    return found


def live(rounds: int) -> dict[str, object]:
    """Time from a bar's close, indicator.next, to the size of an order, bar by bar."""
    bars, model = garch_bars(LIVE_BARS + 121, 3600), model_of(3600)
    kinds = {"as trained": False, "recalibrated": True}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, recalibrate in kinds.items():
            times[name] += _live_times(bars, model, recalibrate)[20:]
    return {
        name: {
            kind: [float(np.quantile(values, q)) * 1e3 for q in (0.5, 0.99)]
            for kind, values in zip(("clock", "cpu"), zip(*rows, strict=True), strict=True)
        }
        for name, rows in times.items()
    }


def _live_times(
    bars: pd.DataFrame, model: Artifact, recalibrate: bool
) -> list[tuple[float, float]]:
    times: list[tuple[float, float]] = []
    began: list[float] = [0.0, 0.0]

    class Timed(GlowStrategy):
        def __init__(self, **settings):
            super().__init__(**settings)
            indicator = self.glow[0]
            score = indicator.next

            def timed_next():
                began[:] = time.perf_counter(), time.thread_time()
                score()

            indicator.next = timed_next

        def next(self):
            self.sized = False
            super().next()
            if not self.sized:
                self.stop_clock()

        def order_target_size(self, data=None, target=0, **kwargs):
            self.stop_clock()
            self.sized = True
            return super().order_target_size(data, target, **kwargs)

        def stop_clock(self):
            times.append((time.perf_counter() - began[0], time.thread_time() - began[1]))

    cerebro = bt.Cerebro(stdstats=False, runonce=False)
    cerebro.adddata(ArrayFeed(dataname=bars))
    cerebro.addstrategy(Timed, model=model, recalibrate=recalibrate, **COSTS)
    cerebro.broker.addcommissioninfo(BybitPerpetual())
    cerebro.run()
    return times


def loop(rounds: int) -> dict[str, object]:
    """A bar of a plain loop, as textbooks have it, beside one of ours."""
    bars, model = garch_bars(BTC_BARS, 3600), model_of(3600)
    scorer = Scorer(model)
    flow = model.state_flow.eval()
    took: dict[str, list[float]] = {"loop": [], "scores": [], "cerebro": []}
    for _ in range(rounds):
        part = seconds_of(lambda: _row_by_row(bars, flow, model))[0]
        took["loop"].append(part / LOOP_BARS)
        took["scores"].append(seconds_of(lambda: scorer.score(bars))[0] / BTC_BARS)
        run = seconds_of(lambda: run_cerebro(GlowStrategy, bars, False, model=model, **COSTS))[0]
        took["cerebro"].append(run / BTC_BARS)
    found = {name: float(np.median(values)) * 1e6 for name, values in took.items()}
    return {**found, **{f"over_{k}": found["loop"] / found[k] for k in ("scores", "cerebro")}}


@torch.no_grad()
def _row_by_row(bars: pd.DataFrame, flow: torch.nn.Module, model: Artifact) -> list[float]:
    """For every bar: slice a frame, roll over its columns, one row through the module."""
    signals = []
    for now in range(100, 100 + LOOP_BARS):
        window = bars.iloc[now - 61 : now + 1]
        change = window["close"].pct_change()
        state = {f"sum_{n}": change.rolling(n).sum().iloc[-1] for n in (1, 5, 10, 20)}
        for n in (5, 20):
            state[f"deviation_{n}"] = change.rolling(n).std().iloc[-1]
        state["deviations"] = state["deviation_5"] / state["deviation_20"]
        for n in (5, 20):
            state[f"rate_{n}"] = window["close"].iloc[-1] / window["close"].iloc[-1 - n] - 1
        state["volume"] = window["volume"].iloc[-1] / window["volume"].rolling(20).mean().iloc[-1]
        top = window["high"].rolling(20).max().iloc[-1]
        bottom = window["low"].rolling(20).min().iloc[-1]
        last = window.iloc[-1]
        spread = last["high"] - last["low"]
        state["place"] = (last["close"] - bottom) / (top - bottom)
        state["body"] = (last["close"] - last["open"]) / spread
        state["upper"] = (last["high"] - max(last["open"], last["close"])) / spread
        state["lower"] = (min(last["open"], last["close"]) - last["low"]) / spread
        row = np.zeros((1, len(model.spec.names)))
        row[0, : len(state)] = list(state.values())
        z, log_det = flow(torch.from_numpy(row))
        log_prob = float(flow.prior.log_prob(z) + log_det)
        regime = int(model.regimes.assign(z.numpy())[0])
        signals.append(float(z[0, 0]) if log_prob > -100.0 else float(regime))
    return signals


PARTS = {"scaling": scaling, "crossover": crossover, "live": live, "loop": loop}


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backtest", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, []], help="default: all, one after another"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    with one_thread():
        if options.size:
            print(json.dumps(one_size(options.size)))
            return 0
        model_of(60)
        for name in options.parts or PARTS:
            with _load() as load:
                found = PARTS[name](options.rounds)
            keep(name, {"load": load[0], "rounds": options.rounds, **_machine(), "found": found})
    text = page(json.loads(RESULTS.read_text(encoding="utf-8")))
    print(text)
    RESULTS.with_suffix(".md").write_text(text, encoding="utf-8")
    return 0


def keep(name: str, part: dict[str, object]) -> None:
    """Put a part's results into the file of all."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    text = json.dumps({**results, name: part}, indent=1)
    RESULTS.write_text(text + "\n", encoding="utf-8")


def _machine() -> dict[str, str]:
    versions = {name: version(name) for name in ("backtrader", "numpy", "pandas", "torch")}
    about = (
        f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    )
    listed = ", ".join(f"{name} {found}" for name, found in versions.items())
    return {"machine": f"{about}, {listed}", "day": f"{pd.Timestamp.now('UTC'):%Y-%m-%d}"}


@contextmanager
def _load() -> Iterator[list[str]]:
    """Say how busy the machine was."""
    note: list[str] = [""]
    before = os.getloadavg()[0]
    yield note
    note[0] = f"{before:.1f} and {os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
