"""The tables of a run's summary page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from glow_bt.evaluation.page import table
from glow_bt.evaluation.written import interval_of, known, p_value, percent, title_of

__all__ = [
    "costs_table",
    "differences_table",
    "performance_table",
    "regimes_table",
    "var_table",
]

_PERFORMANCE = (
    ("Return", "total_return", "{:+.1%}"),
    ("Return a year", "annual_return", "{:+.1%}"),
    ("Volatility a year", "annual_volatility", "{:.1%}"),
    ("Sharpe", "sharpe", "{:.2f}"),
    ("Sortino", "sortino", "{:.2f}"),
    ("Calmar", "calmar", "{:.2f}"),
    ("Largest drawdown", "max_drawdown", "{:.1%}"),
    ("Win rate", "win_rate", "{:.1%}"),
)
_POSITIONS = (
    ("Turnover a year", "turnover", "{:.1f}"),
    ("Time in market", "time_in_market", "{:.1%}"),
)
_DIFFERENCES = (
    ("Return a year", "annual_return", "{:+.1%}"),
    ("Volatility a year", "annual_volatility", "{:+.1%}"),
    ("Sharpe", "sharpe", "{:+.2f}"),
    ("Sortino", "sortino", "{:+.2f}"),
    ("Largest drawdown", "max_drawdown", "{:+.1%}"),
    ("Turnover a year", "turnover", "{:+.1f}"),
)


def performance_table(
    strategies: Mapping[str, Mapping[str, Any]], intervals: Mapping[str, Any]
) -> str:
    """Return every measure of every contender, each with its interval below."""
    rows = [
        _row(
            title_of(name),
            _measured(own, intervals.get(name, {}), _PERFORMANCE),
            flow=name == "glow",
        )
        for name, own in strategies.items()
    ]
    heads = ["Contender", *(head for head, _, _ in _PERFORMANCE)]
    return table(heads, rows, kind="wide dense")


def differences_table(statistics: Mapping[str, Any]) -> str:
    """Return the first contender's measures minus each other one's."""
    rows = []
    for name, own in statistics["differences"].items():
        cells = [
            _with_interval(own[key]["estimate"], own[key], pattern, marks=True)
            for _, key, pattern in _DIFFERENCES
        ]
        test = statistics["sharpe_difference"][name]
        cells.append(escape(p_value(None if test is None else test["pvalue"])))
        rows.append(_row(f"minus {title_of(name)}", cells))
    heads = ["GLOW", *(head for head, _, _ in _DIFFERENCES), "p, equal Sharpe"]
    return table(heads, rows, kind="wide dense")


def costs_table(
    strategies: Mapping[str, Mapping[str, Any]], intervals: Mapping[str, Any], cash: float
) -> str:
    """Return what every contender held, and what it paid for that."""
    rows = []
    for name, own in strategies.items():
        costs = own["costs"]
        total = sum(costs.values())
        cells = [
            *_measured(own, intervals.get(name, {}), _POSITIONS),
            known(own.get("mean_exposure"), "{:+.2f}"),
            *(f"{costs[kind]:,.0f}" for kind in ("commission", "slippage", "funding")),
            f"{total:,.0f}",
            percent(total / cash, 2),
            f"{own['n_orders']:,}",
            f"{own['n_rejected']:,}",
        ]
        rows.append(_row(title_of(name), cells, flow=name == "glow"))
    heads = ["Contender", *(head for head, _, _ in _POSITIONS), "Mean exposure", "Fees"]
    heads += ["Slippage", "Funding", "All costs", "of the starting equity", "Fills", "Refused"]
    return table(heads, rows, kind="wide dense")


def regimes_table(regimes: Mapping[str, Any], periods_per_year: float) -> str:
    """Return what each regime is, and where it leads to."""
    numbers = [row["regime"] for row in regimes["rows"]]
    rows = []
    for row, leads in zip(regimes["rows"], regimes["transitions"], strict=True):
        mean, deviation = row["mean_return"], row["volatility"]
        cells = [
            percent(row["share"]),
            f"{row['bars']:,}",
            known(None if mean is None else 1e4 * mean, "{:+.2f}"),
            percent(None if deviation is None else deviation * periods_per_year**0.5),
            f"{row['mean_duration']:.1f}",
            *(percent(share) for share in leads),
        ]
        rows.append(_row(f"regime {row['regime']}", cells))
    heads = [
        "Regime",
        "Share",
        "Bars",
        "Mean return of the next bar, bp",
        "Volatility of the next bar, a year",
        "Bars in a spell",
        *(f"Next: {number}" for number in numbers),
    ]
    return table(heads, rows)


def var_table(var: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how VaR came true at each level."""
    rows = []
    for level, own in var.items():
        cells = [
            f"{own['violations']:,}",
            f"{own['expected']:,.1f}",
            percent(own["rate"], 2),
            _marked(p_value(own["kupiec_p"]), own["kupiec_p"]),
            _marked(p_value(own["christoffersen_p"]), own["christoffersen_p"]),
        ]
        rows.append(_row(f"{float(level):.0%}", cells))
    heads = ("VaR", "Violations", "Expected", "Rate", "Kupiec p", "Christoffersen p")
    return table(heads, rows)


def _row(head: str, cells: Sequence[str], *, flow: bool = False) -> str:
    """Cells are HTML of their own, or text without a special character."""
    columns = "".join(f"<td>{cell}</td>" for cell in cells)
    kind = ' class="flow"' if flow else ""
    return f'<tr{kind}><th scope="row">{escape(head)}</th>{columns}</tr>'


def _measured(
    own: Mapping[str, Any],
    intervals: Mapping[str, Any],
    columns: Sequence[tuple[str, str, str]],
) -> list[str]:
    return [_with_interval(own[key], intervals.get(key), pattern) for _, key, pattern in columns]


def _with_interval(
    value: float | None, interval: Mapping[str, Any] | None, pattern: str, *, marks: bool = False
) -> str:
    text = escape(known(value, pattern))
    ends = interval_of(interval, pattern)
    if not ends or value is None:
        return text
    if marks and interval is not None and (interval["low"] > 0 or interval["high"] < 0):
        text = f'<span class="best">{text}</span>'
    return f'{text}<span class="interval">{escape(ends)}</span>'


def _marked(text: str, value: float | None) -> str:
    if value is None or value >= 0.05:
        return escape(text)
    return f'<span class="bad">{escape(text)}</span>'
