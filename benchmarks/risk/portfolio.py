"""Risk of portfolios: the joint flow beside Gaussian, EWMA and DCC-like covariances.

    python -m benchmarks.risk.portfolio [--perpetuals FILE]

Writes portfolio.md and portfolio.json beside this file. FILE: bars of several perpetuals in one
CSV with columns symbol, timestamp, open, high, low, close, volume. Every model forecasts the last
60 % of a history bar by bar; what is refit is refit at the start of each fold, on bars before.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.density.reports import table
from datafeeds.samples import load_sample
from glow_bt.errors import TooFewBarsError
from glow_bt.folds import Fold, walk_forward_folds
from glow_bt.risk import (
    Forecasts,
    Scenarios,
    christoffersen_test,
    diebold_mariano_test,
    forecasts_of,
    fz0_loss,
    kupiec_test,
    mcneil_frey_test,
    quantile_loss,
    quantile_losses,
)
from glow_bt.risk.covariance import (
    CovarianceForecast,
    dcc_covariance,
    ewma_covariance,
    static_covariance,
)
from glow_bt.risk.portfolio import PortfolioRisk, portfolio_risk
from glow_bt.risk.recalibration import Recalibrated, Recalibration
from glow_bt.risk.scenario_latents import ScenarioLatents
from glow_bt.training.joint_returns import JointReturns
from glow_bt.training.portfolio import PortfolioModel
from glow_bt.training.portfolio_config import PortfolioConfig

FOLDER = Path(__file__).parent
VARIABLE = "GLOW_BT_PERPETUALS"
LEVELS = (0.01, 0.025, 0.05, 0.95, 0.975, 0.99)
SHOWN = (0.01, 0.025, 0.05)
FLOW = "flow"
MAJORS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "XRPUSDT")
NOTES = """\
Returns of portfolios are simple returns, sum of w_i (exp(r_i) - 1), weights are held at every
close; VaR at p is their p-quantile. NLL is that of the joint log returns of all assets, in nats a
bar: lower is better; scenarios give no density of the portfolio's return, so only the joint one
is compared. Quantile losses and FZ0 (at 2.5 %) are means a bar. Kupiec and Christoffersen:
p-values. DM: one-sided p-value of Diebold-Mariano that the flow's quantile losses are lower than
the row's; a value near 1 says the reverse.

**What it shows.** Likelihood: the flow is far ahead of every Gaussian model (whose worst bar, the
crash of 2025-10-10, costs hundreds of nats), and its Glows add 0.012 nats a bar to the t below
them on the indices and nothing on the perpetuals, where they have 270 to 670 bars to learn from.
Portfolio risk: on the perpetuals the flow passes Kupiec in every lower-tail cell, and
Christoffersen only for the long-short weights: under equal weights violations cluster around the
crash, as they do in every EWMA model. Its quantile losses are below those of every EWMA and
static model in most cells, significantly for equal weights, but DCC with GARCH volatilities is
better for the long-short weights and level with it for equal weights. On the indices every model
but the static one has twice as many 1 % violations as it should under equal weights, the flow
too; recalibration takes the flow to the lowest losses of the table at every level, but not to a
passed Kupiec test at 1 and 2.5 %. For S&P 500 against NASDAQ the flow is too careful, and the DCC
models are better. So the flow's volatility is its weak part, not its tails: expected shortfall
passes McNeil-Frey for both long-short weightings, and fails for both equal ones.

**Settings** were chosen inside the first 40 % of these same histories, by joint likelihood
(decays, shares of the three variances, leverage, shrinkage of correlations) and by likelihood on
blocks that follow the fitted ones (the rest). There, on 239 hours of ten perpetuals and 1,211
days of two indices: a Glow by itself lost to a two-parameter spherical t by 0.38 nats a bar on
the perpetuals, and won none on the indices; as a map to the latents of that t, with rotated
copies of its rows, it wins 0.007 and 0.0015 nats. Rotations that keep the market axis won over
those that turn it, -43.198 against -43.190 and -7.3297 against -7.3295 nats. Nothing was chosen by
seed: the model is a mixture of four flows with seeds 0 to 3. **A first version was seen on the
test span**: its rotations turned the market axis, its volatility was one EWMA, and 66 of 3,018
days fell below the 1 % VaR of the indices. That led to looking for skew, leverage and mean
reversion; what they came to was chosen on the first 40 % alone.

**Recalibrated**: the flow's quantiles moved online by past violations at every level
(`glow_bt.risk.recalibration`, its default step), beginning at the test span's first bar.

**Baselines.** Gaussian: mean and covariance of all bars before, anew in each fold. EWMA:
RiskMetrics, decay 0.94. DCC-like: own volatilities (EWMA of 0.94, or GARCH(1,1) refit in each
fold) and EWMA correlations of 0.97; "our decays" takes 0.95 and 0.985. "t, no flow" is the model
without its Glows: only its likelihood is shown.
"""


@dataclass
class Market:
    name: str
    bars: dict[str, pd.DataFrame]
    weightings: dict[str, np.ndarray]
    num_folds: int
    history: JointReturns = field(init=False)
    folds: list[Fold] = field(init=False)

    def __post_init__(self) -> None:
        config = PortfolioConfig()
        self.history = JointReturns.of_bars(self.bars, config.state)
        self.folds = walk_forward_folds(
            len(self.history),
            self.num_folds,
            purge=0,
            validation_fraction=config.validation_fraction,
        )

    @property
    def first(self) -> int:
        return self.folds[0].test.start


@dataclass
class Outcome:
    """NLL of every model, forecasts by weighting and model, and the flow's parts."""

    nll: dict[str, np.ndarray]
    forecasts: dict[str, dict[str, Forecasts]]
    risks: dict[str, PortfolioRisk]
    seconds: float


def perpetuals(file: str) -> Market:
    rows = pd.read_csv(file, parse_dates=["timestamp"])
    columns = ["open", "high", "low", "close", "volume"]
    bars = {name: own.set_index("timestamp")[columns] for name, own in rows.groupby("symbol")}
    side = np.array([0.2 if name in MAJORS else -0.2 for name in bars])
    equal = np.full(len(bars), 1 / len(bars))
    weightings = {"equal weights": equal, "majors long, others short": side}
    return Market("Ten perpetuals, hourly", bars, weightings, 6)


def indices() -> Market:
    bars = {name: load_sample(name) for name in ("sp500", "nasdaq")}
    weightings = {
        "equal weights": np.array([0.5, 0.5]),
        "S&P 500 long, NASDAQ short": np.array([1.0, -1.0]),
    }
    return Market("S&P 500 and NASDAQ, daily", bars, weightings, 6)


def covariances(market: Market) -> dict[str, CovarianceForecast]:
    simple, first = np.expm1(market.history.returns), market.first
    refit = len(market.folds[0].test)
    return {
        "Gaussian": static_covariance(simple, first, refit=refit),
        "EWMA": ewma_covariance(simple, first),
        "DCC-like, EWMA": dcc_covariance(simple, first),
        "DCC-like, GARCH": dcc_covariance(simple, first, volatility="garch", refit=refit),
        "DCC-like, our decays": dcc_covariance(simple, first, decay=0.95, correlation_decay=0.985),
    }


def measured(market: Market) -> Outcome:
    started = time.process_time()
    history, config = market.history, PortfolioConfig()
    nll: dict[str, list[np.ndarray]] = {FLOW: [], "t, no flow": []}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in market.weightings}
    risks: dict[str, list[PortfolioRisk]] = {name: [] for name in market.weightings}
    for fold in market.folds:
        model = PortfolioModel.fit_rows(history, fold, config)
        rows = slice(fold.test.start, fold.test.stop)
        nll[FLOW].append(-model.log_prob(history, rows))
        x, log_det = model.standardised(history, rows)
        nll["t, no flow"].append(-model.radius.log_prob(x) - log_det)
        every = max(1, len(fold.test) // 25)
        picked = slice(rows.start, rows.stop, every)
        scenarios = model.scenarios(history, picked)
        for name, weights in market.weightings.items():
            parts[name].append(model.portfolio(weights, history, rows).draws)
            risks[name].append(portfolio_risk(scenarios, weights, 0.025))
    simple = np.expm1(history.returns[market.first :])
    forecasts = {
        name: flow_forecasts(Scenarios(np.concatenate(own)), simple @ market.weightings[name])
        for name, own in parts.items()
    }
    whole_nll = {name: np.concatenate(own) for name, own in nll.items()}
    for label, covariance in covariances(market).items():
        # Density of log returns from that of simple ones: the Jacobian is prod exp(r_i).
        jacobian = history.returns[market.first :].sum(axis=1)
        whole_nll[label] = -covariance.log_prob(simple) - jacobian
        for name, weights in market.weightings.items():
            forecasts[name][label] = covariance.forecasts(weights, simple, LEVELS)
    joined = {name: _joined(own) for name, own in risks.items()}
    return Outcome(whole_nll, forecasts, joined, time.process_time() - started)


def flow_forecasts(scenarios: Scenarios, returns: np.ndarray) -> dict[str, Forecasts]:
    latents = ScenarioLatents(scenarios)
    start = Recalibration()
    offsets, _ = start.follow(latents.latent(returns))
    recalibrated = Recalibrated(latents, offsets, start.levels)
    return {
        FLOW: forecasts_of(scenarios, returns, LEVELS),
        f"{FLOW}, recalibrated": forecasts_of(recalibrated, returns, LEVELS),
    }


def _joined(risks: list[PortfolioRisk]) -> dict[str, np.ndarray]:
    names = ("component_var", "component_cvar", "var_diversification", "cvar_diversification")
    joined = {name: np.concatenate([getattr(risk, name) for risk in risks]) for name in names}
    for name in ("var", "cvar"):
        for part in ("value", "standard_error"):
            whole = [getattr(getattr(risk, name), part) for risk in risks]
            joined[f"{name}_{part}"] = np.concatenate(whole)
    return joined


def cells(forecasts: Forecasts, flow: Forecasts, level: float) -> dict[str, float]:
    quantile = forecasts.quantile(level)
    returns = forecasts.returns
    hits = returns < quantile if level < 0.5 else returns > quantile
    tail = min(level, 1 - level)
    losses = quantile_losses(flow.returns, flow.quantile(level), level)
    own = quantile_losses(returns, quantile, level)
    same = np.array_equal(losses, own)
    found = {
        "violations": int(hits.sum()),
        "kupiec_p": kupiec_test(hits, tail).pvalue,
        "christoffersen_p": christoffersen_test(hits, tail).pvalue,
        "quantile_loss": quantile_loss(returns, quantile, level),
        "dm_p": None if same else diebold_mariano_test(losses, own).first_better,
    }
    if level == 0.025:
        shortfall = forecasts.shortfall(level)
        found["fz0"] = fz0_loss(returns, quantile, shortfall, level)
        found["mcneil_frey_p"] = shortfall_pvalue(forecasts, level)
    return found


def shortfall_pvalue(forecasts: Forecasts, level: float) -> float | None:
    quantile, shortfall = forecasts.quantile(level), forecasts.shortfall(level)
    try:
        return mcneil_frey_test(forecasts.returns, quantile, shortfall, level).pvalue
    except TooFewBarsError:  # hardly a violation: nothing to test
        return None


def loss_table(rows: dict[str, dict[str, dict[str, float]]], scale: float) -> str:
    header = ["model"]
    for level in SHOWN:
        header += [f"{level:.1%} viol.", "Kupiec", "Chr.", f"loss x {1 / scale:g}", "DM"]
    header += ["FZ0 2.5 %", "McNeil-Frey"]
    lines = []
    for model, own in rows.items():
        line = [model]
        for level in SHOWN:
            cell = own[f"{level:g}"]
            line += [
                str(cell["violations"]),
                f"{cell['kupiec_p']:.3f}",
                f"{cell['christoffersen_p']:.3f}",
                f"{cell['quantile_loss'] / scale:.4f}",
                "" if cell["dm_p"] is None else f"{cell['dm_p']:.3f}",
            ]
        es = own["0.025"]
        tested = "" if es["mcneil_frey_p"] is None else f"{es['mcneil_frey_p']:.3f}"
        lines.append([*line, f"{es['fz0']:.3f}", tested])
    return table(header, lines)


def section(market: Market, outcome: Outcome) -> tuple[str, dict[str, object]]:
    first, last = market.history.stamps[market.first], market.history.stamps[-1]
    count = len(market.history) - market.first
    lines = [
        f"## {market.name}",
        f"Test: {count} bars, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}, "
        f"{len(market.folds)} folds; {outcome.seconds:.0f} s of processor time.",
        "### Joint density",
        nll_table(outcome.nll),
    ]
    numbers: dict[str, object] = {"nll": {k: float(v.mean()) for k, v in outcome.nll.items()}}
    expected = ", ".join(f"{level * count:.1f}" for level in SHOWN)
    for name, models in outcome.forecasts.items():
        rows = {
            label: {f"{level:g}": cells(own, models[FLOW], level) for level in LEVELS}
            for label, own in models.items()
        }
        numbers[name] = rows
        lines += [f"### {name}", f"Expected violations: {expected}.", loss_table(rows, 1e-4)]
        upper = {
            k: ", ".join(str(v[f"{p:g}"]["violations"]) for p in LEVELS[3:])
            for k, v in rows.items()
        }
        shown = "; ".join(f"{label} {found}" for label, found in upper.items())
        lines.append(f"Upper tail, violations at 95, 97.5 and 99 %: {shown}.")
    lines += parts_of(market, outcome)
    return "\n\n".join(lines), numbers


def nll_table(nll: dict[str, np.ndarray]) -> str:
    flow = nll[FLOW]
    lines = []
    for label, own in nll.items():
        same = own is flow
        p = "" if same else f"{diebold_mariano_test(flow, own).first_better:.4f}"
        lines.append([label, f"{own.mean():.3f}", f"{np.median(own):.3f}", f"{own.max():.1f}", p])
    return table(["model", "NLL", "median", "worst bar", "DM"], lines)


def parts_of(market: Market, outcome: Outcome) -> list[str]:
    """Parts of the VaR before the worst bar shown, and the benefit through time."""
    lines = []
    for name, risk in outcome.risks.items():
        bar = int(np.argmin(risk["var_value"]))
        stamps = market.history.stamps
        picked = np.concatenate(
            [np.arange(f.test.start, f.test.stop, max(1, len(f.test) // 25)) for f in market.folds]
        )
        weights = market.weightings[name]
        body = [
            [asset, f"{w:+.2f}", f"{100 * v:+.3f}", f"{100 * c:+.3f}"]
            for asset, w, v, c in zip(
                market.history.assets,
                weights,
                risk["component_var"][bar],
                risk["component_cvar"][bar],
                strict=True,
            )
        ]
        var, cvar = risk["var_value"][bar], risk["cvar_value"][bar]
        errors = risk["var_standard_error"][bar], risk["cvar_standard_error"][bar]
        body.append(["sum", "", f"{100 * var:+.3f}", f"{100 * cvar:+.3f}"])
        lines += [
            f"### Parts, {name}",
            f"Before the bar of {stamps[picked[bar]]:%Y-%m-%d %H:%M}, the widest of "
            f"{len(picked)} bars spread over the test, at 2.5 %, in percent of equity "
            f"(Monte-Carlo errors {100 * errors[0]:.3f} and {100 * errors[1]:.3f}).",
            table(["asset", "weight", "component VaR", "component CVaR"], body),
            "Diversification benefit by fold (mean over its bars; VaR, CVaR): "
            + benefit_by_fold(risk, len(market.folds)),
        ]
    return lines


def benefit_by_fold(risk: dict[str, np.ndarray], num_folds: int) -> str:
    chunks = (np.array_split(risk[f"{n}_diversification"], num_folds) for n in ("var", "cvar"))
    pairs = zip(*chunks, strict=True)
    return "; ".join(f"{100 * a.mean():.1f} %, {100 * b.mean():.1f} %" for a, b in pairs) + "."


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.risk.portfolio")
    parser.add_argument("--perpetuals", metavar="FILE", default=os.environ.get(VARIABLE))
    options = parser.parse_args()
    markets = [indices()]
    if options.perpetuals:
        markets.insert(0, perpetuals(options.perpetuals))
    page, numbers = ["# Risk of portfolios", NOTES.strip()], {}
    for market in markets:
        text, numbers[market.name] = section(market, measured(market))
        page.append(text)
    (FOLDER / "portfolio.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    text = json.dumps(numbers, indent=1)
    (FOLDER / "portfolio.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
