"""The quantstats tearsheet, made right and made offline.

quantstats is given daily returns without a time zone and a benchmark on the same days; what
it still gets wrong is mended around it (measured with 0.0.86):

- its import and its plots change matplotlib's and pandas' global settings: restored;
- pandas labels the bars of the yearly chart one year off: drawn with `x_compat`;
- a series without a loss and with a day of +100 % is read as prices: see `_read_as_returns`;
- a strategy that never traded cannot be regressed on a benchmark: shown without one;
- value at risk is that of a normal distribution: replaced by the historical one;
- the page loads an icon from the internet and calls a script function that it lacks, and one
  label uses a per-cent sign that few fonts have: replaced.
"""

from __future__ import annotations

import html
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from glow_bt.errors import ConfigError, DataError
from glow_bt.evaluation.metrics import daily_returns
from glow_bt.evaluation.page import CONTENT_POLICY, write_page

__all__ = ["write_tearsheet"]

_FONTS = ["Arial", "Helvetica", "Liberation Sans", "DejaVu Sans", "sans-serif"]
# The look that quantstats gives itself at its first import, here for every call. Text stays
# text and curves are simplified to half a pixel: half the size of matplotlib's own SVG.
_THEME: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "white",
    "axes.grid": True,
    "axes.labelcolor": "#262626",
    "figure.facecolor": "white",
    "font.family": "sans-serif",
    "font.sans-serif": _FONTS,
    "font.size": 11.0,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "patch.edgecolor": "white",
    "patch.force_edgecolor": True,
    "path.simplify_threshold": 0.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "glow_bt",  # equal input, equal file
    "text.color": "#333333",
    "xtick.bottom": False,
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "ytick.left": False,
}
# Warnings that quantstats and its dependencies cause among themselves: category, message,
# module that warns.
_KNOWN_WARNINGS: tuple[tuple[type[Warning], str, str], ...] = (
    (DeprecationWarning, "The inplace keyword", r"quantstats\."),
    (UserWarning, r"set_ticklabels\(\) should only be used", r"quantstats\."),
    (UserWarning, "No non-zero returns found|Beta is zero", r"quantstats\."),
    (DeprecationWarning, "vert: bool was deprecated", r"seaborn\."),
    (PendingDeprecationWarning, "The set_bad function", r"seaborn\."),
    (RuntimeWarning, "invalid value|divide by zero|Degrees of freedom", r"numpy\.|scipy\."),
)
_TAIL = 0.05
_NEGLIGIBLE_LOSS = -1e-12


def write_tearsheet(
    equity: pd.Series[float],
    benchmark_equity: pd.Series[float] | None,
    path: str | os.PathLike[str],
    *,
    title: str,
    periods_per_year: float | None = None,
    benchmark_title: str = "Buy and hold",
) -> None:
    """Write the full quantstats report as one HTML file that needs no network.

    Args:
        equity: (N,) account value at each bar's close, daily or finer; bar opens as index.
        benchmark_equity: value of the benchmark at least at the same stamps, such as buy and
            hold of the same bars; None for a report without. It is left out, and the page says
            so, if the strategy never traded.
        path: the file; it appears whole or not at all.
        title: heading of the page.
        periods_per_year: trading *days* a year, whatever the bars are. Default: 365 if there
            is a bar on a weekend, else 252.
        benchmark_title: what to call the benchmark.

    Raises:
        ConfigError: if periods_per_year is no number of days a year, or the benchmark is
            called "Strategy".
        DataError: if there are fewer than two days, or the benchmark lacks a stamp.
        ResultsError: if the file cannot be written.
    """
    returns = daily_returns(equity)
    if len(returns) < 2:
        raise DataError(
            f"expected equity over at least two days, found {len(returns)}; "
            "a tearsheet shows daily returns, so run more bars"
        )
    benchmark = None if benchmark_equity is None else _aligned(benchmark_equity, equity)
    if benchmark_title == "Strategy":
        raise ConfigError(
            'expected another name than "Strategy" for the benchmark; name it by what it holds'
        )
    days = _days_per_year(returns, periods_per_year)
    note = {}
    if benchmark is not None and not returns.any():
        benchmark, note = None, {"Benchmark": "left out, the strategy never traded"}
    page = _quantstats_page(
        _read_as_returns(returns),
        None if benchmark is None else _read_as_returns(benchmark),
        title=html.escape(title),
        periods_per_year=days,
        benchmark_title=html.escape(benchmark_title),
        parameters=note,
    )
    columns = [returns] if benchmark is None else [benchmark, returns]
    write_page(_mended(page, columns, title), path)


def _aligned(benchmark_equity: pd.Series[float], equity: pd.Series[float]) -> pd.Series[float]:
    """Daily returns of the benchmark over the very bars of the strategy."""
    missing = equity.index.difference(benchmark_equity.index)
    if len(missing):
        raise DataError(
            f"expected a benchmark on the stamps of the strategy, found {len(missing)} without, "
            f"first {missing[0]}; make both from the same bars"
        )
    return daily_returns(benchmark_equity.reindex(equity.index))


def _days_per_year(returns: pd.Series[float], periods_per_year: float | None) -> int:
    if periods_per_year is None:
        return 365 if (pd.DatetimeIndex(returns.index).day_of_week >= 5).any() else 252
    if not 1 <= periods_per_year <= 366:
        raise ConfigError(
            f"expected trading days a year (365 or 252), found {periods_per_year}; "
            "a tearsheet shows daily returns, whatever the bars are"
        )
    return int(periods_per_year)


def _read_as_returns(returns: pd.Series[float]) -> pd.Series[float]:
    """Keep quantstats from reading returns as prices.

    It does so with a series that has no value below 0 and one above 1, be it the whole or the
    last 35, 59 or 119 months, for which it computes growth rates. A loss of 1e-12 on the
    quietest of the last days settles it and changes no figure shown.
    """
    index = pd.DatetimeIndex(returns.index)
    first_recent = int(index.searchsorted(index[-1] - pd.DateOffset(months=35)))
    values = returns.to_numpy(dtype=np.float64, copy=True)
    recent = values[first_recent:]
    if recent.min() < 0 or values.max() < 1:
        return returns
    recent[recent.argmin()] = _NEGLIGIBLE_LOSS
    return pd.Series(values, index=index, name=returns.name)


def _quantstats_page(
    returns: pd.Series[float],
    benchmark: pd.Series[float] | None,
    *,
    title: str,
    periods_per_year: int,
    benchmark_title: str,
    parameters: dict[str, str],
) -> str:
    with _settings_restored(), tempfile.TemporaryDirectory() as folder:
        import quantstats.reports  # its import sets a look of its own, once

        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_THEME)
        output = Path(folder) / "tearsheet.html"
        # pandas-stubs takes plot_params for a plain dict.
        with pd.plotting.plot_params.use("x_compat", True):  # type: ignore[attr-defined]
            quantstats.reports.html(
                returns,
                benchmark=benchmark,
                title=title,
                output=str(output),
                periods_per_year=periods_per_year,
                benchmark_title=benchmark_title if benchmark is not None else None,
                # Matching would cut all days before the strategy's first trade.
                match_dates=False,
                parameters=parameters,
            )
        return output.read_text(encoding="utf-8")


@contextmanager
def _settings_restored() -> Iterator[None]:
    """Draw off screen and in silence; leave the caller's settings and figures as they were."""
    from matplotlib import pyplot

    backend = matplotlib.get_backend()
    open_figures = set(pyplot.get_fignums())
    font_log = logging.getLogger("matplotlib.font_manager")  # a line a label without Arial
    log_level = font_log.level
    with matplotlib.rc_context(), warnings.catch_warnings():
        try:
            font_log.setLevel(logging.ERROR)
            for category, message, module in _KNOWN_WARNINGS:
                warnings.filterwarnings("ignore", message, category, module)
            matplotlib.use("Agg")
            yield
        finally:
            for number in set(pyplot.get_fignums()) - open_figures:
                pyplot.close(number)
            # A backend that cannot be loaded here (a window system that is absent) stays named.
            matplotlib.use(backend, force=False)
            matplotlib.rcParams["backend"] = backend
            font_log.setLevel(log_level)


def _mended(page: str, columns: list[pd.Series[float]], title: str) -> str:
    """Take out what needs the network or a script, and put the historical tail in."""
    page = re.sub(r'<link rel="shortcut icon"[^>]*>', CONTENT_POLICY, page)
    page = page.replace('<body onload="save()">', "<body>").replace("CAGR﹪", "CAGR")
    page = page.replace("<td>%</td>", "<td>-</td>")  # a drawdown that never was
    page = re.sub(r"<title>.*?</title>", f"<title>{html.escape(title)}</title>", page)
    page = re.sub(r"<\?xml.*?\?>|<!DOCTYPE svg.*?>|<metadata>.*?</metadata>", "", page, flags=re.S)
    page = page.replace("font-family: 'Arial';", f"font-family: {', '.join(_FONTS)};")
    quantiles = [float(np.quantile(column, _TAIL)) for column in columns]
    shortfalls = [
        float(column[column <= quantile].mean())
        for column, quantile in zip(columns, quantiles, strict=True)
    ]
    page = _with_row(page, "Daily Value-at-Risk", "Daily VaR 5%, historical", quantiles)
    return _with_row(page, "Expected Shortfall (cVaR)", "Daily CVaR 5%, historical", shortfalls)


def _with_row(page: str, label: str, new_label: str, values: list[float]) -> str:
    cells = "".join(f"<td>{100 * value:.2f}%</td>" for value in values)
    return re.sub(
        rf"<tr><td>{re.escape(label)}</td>.*?</tr>", f"<tr><td>{new_label}</td>{cells}</tr>", page
    )
