"""The page of a run that a reader opens first: what came of it, and how sure that is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from glow_bt.evaluation.canvas import Picture
from glow_bt.evaluation.contender_pictures import band_of, contenders_picture, intervals_picture
from glow_bt.evaluation.page import facts as facts_of
from glow_bt.evaluation.page import figure, page_of, prose, write_page
from glow_bt.evaluation.summary_tables import (
    costs_table,
    differences_table,
    performance_table,
    regimes_table,
    var_table,
)
from glow_bt.evaluation.written import known, p_is, p_value, percent, title_of

__all__ = ["verdict", "write_summary_page"]

_BENCHMARK = "buy_and_hold"
# Share of the market's drawdown that a strategy like this should stay below.
_MOST_DRAWDOWN = 0.6
_CONTENDERS = {
    "glow": "side (the stance, moved by the direction) x familiarity x VaR limit, the latter two "
    "by averages over the last bars",
    "buy_and_hold": "99 % of the equity bought at the first unseen bar and held",
    "volatility_target": "long at 20 % a year over the volatility of the last 60 bars",
    "no_filter": "GLOW, but likelihood does not count: every bar is familiar, which alone is some "
    "6 % more exposure",
    "no_direction": "GLOW, but the stance alone counts, or long without one",
    "no_var_sizing": "GLOW, but with a constant, the median VaR limit on bars before the first "
    "unseen one, in place of the VaR limit",
    "no_averaging": "GLOW, but by the current bar alone",
    "direction_alone": "GLOW, but without a stance: out of the market, long or short as the "
    "direction says",
    "random_direction": "GLOW, but a coin gives the direction, 1 or -1, for as many bars as the "
    "direction looks ahead; one seed",
}


def write_summary_page(
    metrics: Mapping[str, Any],
    equity: pd.DataFrame,
    path: str | os.PathLike[str],
    *,
    title: str,
    cash: float,
    fold_bounds: Sequence[pd.Timestamp] = (),
    facts: Mapping[str, str] | None = None,
    pages: Sequence[tuple[str, str]] = (),
    search: Mapping[str, Any] | None = None,
) -> list[Picture]:
    """Write a run's tables and pictures into one HTML file, readable without network or script.

    Args:
        metrics: of the run, see `glow_bt.evaluation.study.run_study`; those of an older run have
            no statistics, regimes or density, and the page lacks them.
        equity: by bar, one column a contender.
        path: the file; it appears whole or not at all.
        title: heading of the page.
        cash: starting equity.
        fold_bounds: stamps at which a newer model takes over, in order.
        facts: what a reader wants to know before trusting a number.
        pages: address and name of other pages to link.
        search: what a search tried before, if there was one; of its keys pbo, the probability of
            overfitting (`glow_bt.statistics.backtest_overfitting`), is shown.

    Returns:
        The pictures on the page, in order.

    Raises:
        ResultsError: if the file cannot be written.
    """
    statistics = metrics.get("statistics")
    pictures = _pictures(statistics, equity, cash, fold_bounds)
    sections = dict(_sections(metrics, statistics, cash, search))
    places = [(f"#{name}", heading) for name, (heading, _) in sections.items()]
    drawn = [(f"#{picture.name}", picture.title) for picture in pictures]
    links = [*pages, *places[:1], *drawn, *places[1:], ("#facts", "Facts")]
    written = [
        f'<section id="{name}">\n<h2>{heading}</h2>\n{content}\n</section>'
        for name, (heading, content) in sections.items()
    ]
    body = [*written[:1], *map(figure, pictures), *written[1:], facts_of(dict(facts or {}))]
    span = metrics["span"]
    about = (
        f"{span['bars']:,} unseen bars, {span['from'][:10]} to {span['until'][:10]} (bar opens, "
        "UTC), one account over all test spans, net of costs."
    )
    write_page(page_of(title, about, links, body), path)
    return pictures


def verdict(metrics: Mapping[str, Any]) -> list[str]:
    """Say in sentences how GLOW did against buy and hold, and what may have caused it."""
    strategies = metrics["strategies"]
    own, other = strategies["glow"], strategies.get(_BENCHMARK)
    said = []
    if not own["n_orders"]:
        said.append(
            "GLOW placed no order: what it wanted to hold stayed within the dead-band, which "
            "costs widen, or there was neither a stance nor evidence for a direction. There is "
            "nothing to judge."
        )
    if other is None:
        return said
    ahead = own["sharpe"] is not None and own["sharpe"] > (other["sharpe"] or 0.0)
    least = _MOST_DRAWDOWN * other["max_drawdown"]
    shallow = own["max_drawdown"] > least
    said.append(
        f"Target: a Sharpe ratio above that of buy and hold and a drawdown below "
        f"{_MOST_DRAWDOWN:g} of its. Sharpe {known(own['sharpe'], '{:.2f}')} against "
        f"{known(other['sharpe'], '{:.2f}')}: {'reached' if ahead else 'missed'}. Drawdown "
        f"{percent(own['max_drawdown'])} against {percent(least)}: "
        f"{'reached' if shallow else 'missed'}{_idle(own)}."
    )
    return said + _doubts(metrics.get("statistics"))


def _idle(own: Mapping[str, Any]) -> str:
    return "" if own["n_orders"] else ", by holding nothing"


def _doubts(statistics: Mapping[str, Any] | None) -> list[str]:
    """Say what the tests leave of it."""
    if statistics is None:
        return []
    said = []
    test = statistics["sharpe_difference"].get(_BENCHMARK)
    if test is not None:
        told = "is more than" if test["pvalue"] < 0.05 else "may be"
        said.append(
            f"The difference of the Sharpe ratios, {test['difference']:+.2f}, {told} chance "
            f"({p_is(test['pvalue'])}, Ledoit and Wolf)."
        )
    deflated = statistics["deflated_sharpe"]
    if deflated["probability"] is not None:
        count = deflated["num_trials"]
        said.append(
            f"The probability that the true Sharpe ratio is above zero is "
            f"{percent(deflated['probability'])} after {count:,} "
            f"{'trial' if count == 1 else 'trials'} (deflated Sharpe ratio)."
        )
    return said


def _pictures(
    statistics: Mapping[str, Any] | None,
    equity: pd.DataFrame,
    cash: float,
    bounds: Sequence[pd.Timestamp],
) -> list[Picture]:
    if statistics is None:
        return [contenders_picture(equity, None, bounds)]
    used = statistics["bootstrap"]
    first = equity.iloc[:, 0]
    band = None
    if first.min() > 0 and first.nunique() > 1:
        band = band_of(
            first,
            starting_equity=cash,
            block_length=used["block_length"],
            coverage=used["coverage"],
        )
    return [
        contenders_picture(equity, band, bounds, used["coverage"]),
        intervals_picture(statistics["intervals"], used["coverage"]),
    ]


def _sections(
    metrics: Mapping[str, Any],
    statistics: Mapping[str, Any] | None,
    cash: float,
    search: Mapping[str, Any] | None,
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield name, heading and HTML of each section."""
    strategies = metrics["strategies"]
    yield "performance", ("Performance", _performance(metrics, statistics))
    yield (
        "contenders",
        (
            "Contenders",
            facts_of({title_of(k): _CONTENDERS.get(k, "") for k in strategies}, anchor="who"),
        ),
    )
    if statistics is not None and statistics["differences"]:
        yield "differences", ("GLOW against each", _differences(statistics))
        yield "luck", ("Luck and selection", _luck(statistics, search))
    yield "costs", ("Positions and costs", _costs(metrics, statistics, cash))
    if metrics.get("regimes"):
        yield "regimes", ("Regimes", _regimes(metrics))
    yield "model", ("Model", _model(metrics))


def _performance(metrics: Mapping[str, Any], statistics: Mapping[str, Any] | None) -> str:
    intervals = {} if statistics is None else statistics["intervals"]
    notes = list(verdict(metrics))
    content = performance_table(metrics["strategies"], intervals)
    if statistics is not None:
        used = statistics["bootstrap"]
        notes.append(
            f"Small: {used['coverage']:.0%} intervals of the stationary bootstrap, "
            f"{used['draws']:,} draws of blocks of {used['block_length']:.1f} bars on average, "
            "the same for all contenders."
        )
    return f"{prose(*notes)}\n{content}"


def _differences(statistics: Mapping[str, Any]) -> str:
    words = prose(
        "GLOW's measures minus each contender's, on the same bars; what moves both does not "
        "count. Bold: the interval does not hold zero. A part of GLOW helps where GLOW minus GLOW "
        "without it is above zero in return, ratio or drawdown (a drawdown is negative). p: "
        "Ledoit and Wolf's, of equal Sharpe ratios. With a row a contender, one in twenty is "
        "bold by chance alone."
    )
    return f"{words}\n{differences_table(statistics)}"


def _luck(statistics: Mapping[str, Any], search: Mapping[str, Any] | None) -> str:
    rows = {}
    sharpe, deflated = statistics["sharpe"]["glow"], statistics["deflated_sharpe"]
    if sharpe is not None:
        length = sharpe["min_track_record_bars"]
        rows["Probabilistic Sharpe ratio: P(true Sharpe > 0)"] = percent(sharpe["probabilistic"])
        rows["Shortest track record to be 95 % sure of that"] = (
            "none, it is not above 0" if length is None else f"{length:,.0f} bars"
        )
    rows["Trials counted"] = f"{deflated['num_trials']:,}"
    rows["Deflated Sharpe ratio"] = percent(deflated["probability"])
    if search is not None and search.get("pbo") is not None:
        rows["Probability of backtest overfitting in the search (CSCV)"] = percent(search["pbo"])
    test = statistics["superiority"]
    if test is not None:
        rows["No contender beats buy and hold (Hansen's p)"] = p_value(test["pvalue"])
        rows["The same, White's reality check"] = p_value(test["reality_check"])
        rows["Best contender"] = title_of(test["best"])
    words = prose(
        "Trials are settings that a search tried, or that the caller tells of (--trials); "
        "contenders are none, as nobody picks "
        "among them after the fact. Hansen's test and White's ask whether the best of all "
        "contenders, at equal volatility, is better than buy and hold by more than the choice "
        "among them explains."
    )
    return f"{words}\n{facts_of(rows, anchor='tests')}"


def _costs(metrics: Mapping[str, Any], statistics: Mapping[str, Any] | None, cash: float) -> str:
    intervals = {} if statistics is None else statistics["intervals"]
    content = costs_table(metrics["strategies"], intervals, cash)
    charged = metrics.get("costs")
    if charged is None:
        return content
    funding = (
        "Funding is charged by the bars' own rates."
        if charged["funding"]
        else "The bars have no funding rates, so that none is charged."
    )
    words = prose(
        f"Paid over the whole run, in the account's currency; a negative number was received. "
        f"Every fill pays the {charged['liquidity']} fee of {1e4 * charged['fee']:g} basis points "
        f"and {charged['slippage_bps']:g} basis points of slippage. {funding}"
    )
    return f"{words}\n{content}"


def _regimes(metrics: Mapping[str, Any]) -> str:
    regimes = metrics["regimes"]
    words = [
        "Return and volatility are those of the bar after: a regime is known at its bar's close. "
        "Next: the share of bars that each regime follows."
    ]
    stability = regimes["stability"]
    if stability is not None:
        words.append(
            f"Refitted, models give {stability['bars']:,} bars the same groups with an adjusted "
            f"Rand index of {known(stability['mean_adjusted_rand'], '{:.2f}')} on average over "
            "pairs of models: 1 is the same groups, 0 is chance."
        )
    content = regimes_table(regimes, metrics["span"]["periods_per_year"])
    return f"{prose(*words)}\n{content}"


def _model(metrics: Mapping[str, Any]) -> str:
    model, density = metrics["model"], metrics.get("density")
    words = [
        f"{percent(model['in_distribution_share'])} of the unseen bars were inside the likelihood "
        f"filter. Held out, a market state cost {known(model['nll'], '{:.3f}')} nats "
        f"({known(model['bits_per_dim'], '{:.3f}')} bits a dimension)."
    ]
    if density is not None:
        words.append(_density(density))
    words.append("Red: p below 0.05, which speaks against the VaR.")
    return f"{prose(*words)}\n{var_table(metrics['var'])}"


def _density(density: Mapping[str, Any]) -> str:
    if "skipped" in density:
        return f"The density of returns was not compared with GARCH-t: {density['skipped']}."
    better = "the model's is better" if density["difference"] < 0 else "GARCH's is better"
    return (
        f"Density of the next return over {density['n']:,} bars: {density['model_nll']:.4f} nats "
        f"a bar against {density['baseline_nll']:.4f} of GARCH with Student's t, estimated anew "
        f"before each test span (lower is better); {better} "
        f"({p_is(density['pvalue'])} of equal ones, Diebold and Mariano)."
    )
