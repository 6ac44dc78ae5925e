"""Metrics and equity of a run, made up."""

import functools

import pandas as pd

from glow_bt.evaluation.metrics import performance
from glow_bt.evaluation.study_statistics import study_statistics
from tests.evaluation.states import made_up_states

NAMES = ("glow", "buy_and_hold", "volatility_target", "no_filter", "random_direction")
CASH = 10_000.0
YEARLY = 8760.0
_VAR = {"n": 399, "violations": 9, "expected": 4.0, "rate": 9 / 399}


def account_states(num_bars=400, *, seed=0, held=True):
    """Equity and exposure by bar; of an account that never trades unless it held."""
    states = made_up_states(num_bars, seed=seed)[["equity", "exposure"]]
    return states if held else states.assign(equity=CASH, exposure=0.0)


@functools.cache
def made_up_run(num_bars=400, *, idle=False, num_trials=1):
    """Metrics as a study measures them, and equity by contender."""
    states = {
        name: account_states(num_bars, seed=number, held=not (idle and name == "glow"))
        for number, name in enumerate(NAMES)
    }
    index = states["glow"].index
    strategies = {
        name: performance(
            own["equity"],
            periods_per_year=YEARLY,
            exposure=own["exposure"],
            starting_equity=CASH,
        ).to_dict()
        | {
            "costs": {"commission": 120.5 + i, "slippage": 30.0, "funding": -4.0},
            "n_orders": 0 if idle and name == "glow" else 17,
            "n_rejected": i,
            "mean_exposure": 0.25,
        }
        for i, (name, own) in enumerate(states.items())
    }
    regimes = [
        {
            "regime": number,
            "bars": 200,
            "share": 0.5,
            "mean_return": 1e-4,
            "volatility": 0.01,
            "mean_duration": 7.5,
            "spells": 20,
        }
        for number in (0, 2)
    ]
    metrics = {
        "span": {
            "from": index[0].isoformat(),
            "until": index[-1].isoformat(),
            "bars": num_bars,
            "periods_per_year": YEARLY,
        },
        "costs": {"liquidity": "taker", "fee": 0.00055, "slippage_bps": 1.0, "funding": True},
        "strategies": strategies,
        "model": {
            "mean_log_likelihood": -6.5,
            "nll": 18.2,
            "bits_per_dim": 1.64,
            "in_distribution_share": 0.9,
            "mean_abs_direction": 0.1,
        },
        "var": {
            "0.01": {**_VAR, "kupiec_p": 0.03, "christoffersen_p": None, "quantile_loss": 1e-4},
            "0.05": {**_VAR, "kupiec_p": 0.5, "christoffersen_p": 0.4, "quantile_loss": 1e-3},
        },
        "regimes": {
            "rows": regimes,
            "transitions": [[0.9, 0.1], [0.2, 0.8]],
            "stability": {
                "mean_adjusted_rand": 0.62,
                "adjusted_rand": [[1.0, 0.62], [0.62, 1.0]],
                "bars": 390,
            },
        },
        "density": {
            "baseline": "garch_t",
            "n": 399,
            "model_nll": -3.1,
            "baseline_nll": -3.0,
            "difference": -0.1,
            "statistic": -4.0,
            "pvalue": 1e-5,
            "model_better": 5e-6,
        },
        "statistics": study_statistics(
            states,
            periods_per_year=YEARLY,
            starting_equity=CASH,
            num_trials=num_trials,
            draws=200,
        ),
    }
    return metrics, pd.DataFrame({name: own["equity"] for name, own in states.items()})


def without_statistics(metrics):
    """The metrics of a run of an earlier version."""
    old = {name: metrics[name] for name in ("span", "strategies", "model", "var")}
    return old | {"span": {k: v for k, v in old["span"].items() if k != "periods_per_year"}}
