"""Market states: 16 features of daily and hourly bars, learned from the past and tested later.

The state of `glow_bt.features`, divided 70/15/15 in order of time with a purge between blocks,
scaled by what the training block shows. Settings are chosen on the validation block with one
seed; then the chosen ones are trained with every seed and the test block is scored, once.
"""

from __future__ import annotations

import math
import os
import statistics
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
from joblib import Parallel, delayed

from benchmarks.density.candidates import (
    FLOWS,
    GAUSSIAN,
    GLOW,
    MIXTURE,
    Candidate,
    Fitted,
    candidates,
    fitted,
)
from benchmarks.density.fitting import Schedule
from benchmarks.density.reports import Report, mean_and_spread, table
from datafeeds.samples import load_sample
from glow_bt.features import DEFAULT_SPEC, Scaler
from glow_bt.ohlcv import bars_sha256, read_bars
from glow_bt.training import TrainConfig
from glow_bt.training.data import divide, prepare

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    import pandas as pd

SUMMARY = __doc__
FAMILIES = (GAUSSIAN, MIXTURE, *FLOWS)
DAILY = {"S&P 500 daily": "sp500", "NASDAQ daily": "nasdaq"}
HOURLY = "BTC hourly"
BTC_VARIABLE = "GLOW_BT_BTC_BARS"
MANY_ROWS = 10_000
LIBRARIES = ("torch", "zuko", "scikit-learn", "numpy")


@dataclass
class Market:
    """Scaled states by block, and where they come from."""

    name: str
    blocks: dict[str, np.ndarray]
    sha256: str

    @property
    def schedule(self) -> Schedule:
        """Some 2,000 steps on 24 passes over many rows, or 800 on 30 over few."""
        many = len(self.blocks["train"]) > MANY_ROWS
        return Schedule(epochs=24, batch_size=256) if many else Schedule(30, batch_size=128)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--btc",
        metavar="BARS",
        default=os.environ.get(BTC_VARIABLE),
        help=f"hourly BTC bars, CSV or Parquet (default ${BTC_VARIABLE}); left out without",
    )
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the final fits (default 5)")
    parser.add_argument("--jobs", type=int, default=2, help="fits at a time (default 2)")
    parser.add_argument("--quick", action="store_true", help="a smoke test: 1 epoch, few settings")


def run(options: Namespace) -> Report:
    markets = [market(name, load_sample(sample)) for name, sample in DAILY.items()]
    if options.btc:
        markets.append(market(HOURLY, read_bars(options.btc)))
    finals = {}
    searches = {}
    for each in markets:
        searches[each.name] = search(each, options)
        finals[each.name] = final_fits(each, chosen(searches[each.name]), options)
    return report(markets, searches, finals, options)


def market(name: str, bars: pd.DataFrame) -> Market:
    """Compute, divide and scale states as the trainer does."""
    config = TrainConfig()
    fold, data = divide(bars, config, DEFAULT_SPEC), prepare(bars, config, DEFAULT_SPEC)
    scaler = Scaler.fit(data.features[data.rows(fold.train)], DEFAULT_SPEC.names)
    x = scaler.transform(data.features)
    blocks = {
        block: np.ascontiguousarray(x[data.rows(getattr(fold, block))])
        for block in ("train", "validation", "test")
    }
    return Market(name, blocks, bars_sha256(bars))


def search(each: Market, options: Namespace) -> list[Fitted]:
    """Fit every candidate with seed 0, without a look at the test block."""
    tried = candidates()
    if options.quick:
        families = {candidate.family: candidate for candidate in tried}
        tried = list(families.values())
    return fit_all(each, [(candidate, 0) for candidate in tried], options, test=False)


def chosen(results: list[Fitted]) -> list[Candidate]:
    """Return each family's candidate of least validation NLL."""
    best = [
        min((r for r in results if r.candidate.family == family), key=lambda r: r.validation_nll)
        for family in FAMILIES
    ]
    return [result.candidate for result in best]


def final_fits(
    each: Market, winners: list[Candidate], options: Namespace
) -> dict[str, list[Fitted]]:
    """Fit each family's winner with every seed and score the test block."""
    work = [(winner, seed) for winner in winners for seed in range(seeds_of(winner, options))]
    results = fit_all(each, work, options, test=True)
    return {
        winner.family: [r for r in results if r.candidate.family == winner.family]
        for winner in winners
    }


def seeds_of(candidate: Candidate, options: Namespace) -> int:
    return 1 if candidate.family == GAUSSIAN else options.seeds


def fit_all(each: Market, work, options: Namespace, *, test: bool) -> list[Fitted]:
    schedule = Schedule(1, each.schedule.batch_size) if options.quick else each.schedule
    calls = (
        delayed(fitted)(candidate, each.blocks, schedule, seed, test=test)
        for candidate, seed in work
    )
    results = []
    for result in Parallel(n_jobs=options.jobs, return_as="generator")(calls):
        candidate = result.candidate
        print(
            f"{each.name}: {candidate.family} ({candidate.label}), seed {result.seed}: "
            f"validation {result.validation_nll:.3f}",
            flush=True,
        )
        results.append(result)
    return results


def test_nll(results: list[Fitted]) -> list[float]:
    return [-float(result.test_log_prob.mean()) for result in results]


def ensemble_nll(results: list[Fitted]) -> float:
    """Return the test NLL of the even mixture of a family's seeds."""
    stacked = np.stack([result.test_log_prob for result in results])
    return -float((np.logaddexp.reduce(stacked, axis=0) - math.log(len(results))).mean())


def verdict(glow: list[float], rival: list[float]) -> str:
    """Say who is lower by more than both spreads together (standard deviations over seeds)."""
    gap = statistics.fmean(rival) - statistics.fmean(glow)
    spread = sum(statistics.stdev(nlls) for nlls in (glow, rival) if len(nlls) > 1)
    if abs(gap) <= spread:
        return f"{gap:+.3f}, within spread"
    return f"{gap:+.3f}, {'GLOW' if gap > 0 else 'the other'} lower"


def report(markets, searches, finals, options: Namespace) -> Report:
    tables = {f"{each.name}, test NLL": final_table(finals[each.name]) for each in markets}
    tables |= {f"{each.name}, search": search_table(searches[each.name]) for each in markets}
    return Report(
        title="Density of market states",
        notes=notes(markets, options),
        tables=tables,
        numbers={
            "versions": {name: version(name) for name in LIBRARIES},
            "seeds": options.seeds,
            "markets": {
                each.name: numbers(each, searches[each.name], finals[each.name])
                for each in markets
            },
        },
    )


def notes(markets: list[Market], options: Namespace) -> list[str]:
    skipped = f"{HOURLY} is left out: no bars were given (`--btc BARS` or ${BTC_VARIABLE})."
    return [
        *(["**A smoke test: these numbers mean nothing.**"] if options.quick else []),
        "NLL in nats a row, of scaled features. Every family's settings were chosen on the "
        'validation block with seed 0 from those listed under "search"; the chosen ones were '
        f"trained with {options.seeds} seeds and the test block was scored once: mean and "
        'standard deviation over seeds. "Mixture of seeds" is the test NLL of the even mixture '
        "of all seeds' densities.",
        "All flows go through the same loop (`fitting.py`): Adam on a cosine, averaged weights, "
        "best epoch on validation. Those of zuko are as they ship; two rows put our tail "
        "layer before them. The last column is the other's mean test NLL minus GLOW's; a "
        "difference within the sum of both deviations counts as none.",
        "GLOW's one size came out of about 35 prototypes, those of zuko's flows out of about 12, "
        "all judged on validation blocks; so GLOW had more search before this one. Where the best "
        "epoch of a fit is the last, more epochs would help it: so it is with NSF on hourly bars.",
        " ".join(
            f"{each.name}: {', '.join(f'{len(x):,} {block}' for block, x in each.blocks.items())} "
            "rows."
            for each in markets
        ),
        *([] if any(each.name == HOURLY for each in markets) else [skipped]),
    ]


def final_table(results: dict[str, list[Fitted]]) -> str:
    glow = test_nll(results[GLOW])
    header = ["", "chosen", "parameters", "validation", "test", "mixture of seeds", "vs GLOW"]
    rows = []
    for family, fits in results.items():
        nll = test_nll(fits)
        rows.append(
            [
                family,
                fits[0].candidate.label,
                f"{fits[0].parameters:,}",
                mean_and_spread([fit.validation_nll for fit in fits]),
                mean_and_spread(nll),
                f"{ensemble_nll(fits):.3f}",
                "" if family == GLOW else verdict(glow, nll),
            ]
        )
    return table(header, rows)


def search_table(results: list[Fitted]) -> str:
    """Return what was tried; a best epoch that is the last says more epochs might help."""
    rows = [
        [
            r.candidate.family,
            r.candidate.label,
            f"{r.parameters:,}",
            f"{r.validation_nll:.3f}",
            f"{r.course['best_epoch']} of {r.course['epochs']}" if "epochs" in r.course else "",
        ]
        for r in results
    ]
    return table(["", "setting", "parameters", "validation NLL", "best epoch"], rows)


def numbers(each: Market, search: list[Fitted], final: dict[str, list[Fitted]]):
    return {
        "bars_sha256": each.sha256,
        "rows": {block: len(x) for block, x in each.blocks.items()},
        "search": [described(result) for result in search],
        "final": {
            family: {
                "fits": [
                    described(fit) | {"test_nll": nll}
                    for fit, nll in zip(fits, test_nll(fits), strict=True)
                ],
                "mixture_of_seeds_test_nll": ensemble_nll(fits),
            }
            for family, fits in final.items()
        },
    }


def described(result: Fitted) -> dict[str, object]:
    return {
        **asdict(result.candidate),
        "seed": result.seed,
        "parameters": result.parameters,
        "validation_nll": result.validation_nll,
        "fit": result.course,
    }
