import logging
import re
import socket
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from glow_bt.errors import ConfigError, DataError, ResultsError
from glow_bt.evaluation.metrics import daily_returns, performance
from glow_bt.evaluation.tearsheet import write_tearsheet
from tests.evaluation.browser import inspect_page, needs_chromium


def equity_curve(num_bars, *, freq="D", start="2018-01-01", seed=0, scale=0.01):
    index = pd.date_range(start, periods=num_bars, freq=freq, tz="UTC", name="timestamp")
    steps = scale * np.random.default_rng(seed).standard_t(4, num_bars)
    return pd.Series(10_000 * np.cumprod(1 + np.clip(steps, -0.5, 0.5)), index=index)


HOURS = 24 * (3 * 365 + 40)
STRATEGY = equity_curve(HOURS, freq="h", seed=1, scale=0.002).rename("equity")
# Buy and hold of the same bars, which the market had before and after the strategy's too.
BENCHMARK = equity_curve(HOURS + 24 * 800, freq="h", start="2017-06-01", seed=2, scale=0.004)


@pytest.fixture(scope="module")
def no_network():
    """Any try to reach another machine fails, and fails the test."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("the tearsheet tried to use the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


@pytest.fixture(scope="module")
def tearsheet(tmp_path_factory, no_network):
    path = tmp_path_factory.mktemp("tearsheet") / "new folder" / "tearsheet.html"
    write_tearsheet(STRATEGY, BENCHMARK, path, title="Hours & <days>")
    return path


@pytest.fixture(scope="module")
def page(tearsheet):
    return tearsheet.read_text(encoding="utf-8")


def row(page, label):
    """The cells beside a label in any of the page's tables."""
    return re.findall(r"<td>(.*?)</td>", re.search(rf"<tr><td>{label}</td>(.*?)</tr>", page)[1])


def tick_years(page, picture):
    body = re.search(rf'<div id="{picture}">(.*?)</svg>', page, re.S)[1]
    return re.findall(r">(20\d\d)</text>", body)


def test_the_page_is_whole_and_alone_in_its_folder(tearsheet, page):
    assert [file.name for file in tearsheet.parent.iterdir()] == ["tearsheet.html"]
    assert page.rstrip().endswith("</html>")
    assert page.count("<svg") == 14
    assert "<title>Hours &amp; &lt;days&gt;</title>" in page
    assert "{{" not in page


def test_figures_are_those_of_daily_returns_at_365_days(page):
    for equity, column in ((BENCHMARK.reindex(STRATEGY.index), 0), (STRATEGY, 1)):
        daily = (1 + daily_returns(equity)).cumprod()
        expected = performance(daily, periods_per_year=365, starting_equity=1.0)
        percent = {
            "Cumulative Return": expected.total_return,
            "CAGR": expected.annual_return,
            r"Volatility \(ann\.\)": expected.annual_volatility,
            "Max Drawdown": expected.max_drawdown,
        }
        for label, value in percent.items():
            assert row(page, label)[column] == f"{round(100 * value, 2)}%", label
        assert float(row(page, "Sharpe")[column]) == pytest.approx(expected.sharpe, abs=0.0051)
        assert float(row(page, "Sortino")[column]) == pytest.approx(expected.sortino, abs=0.0051)


def test_value_at_risk_is_historical(page):
    returns = daily_returns(STRATEGY).to_numpy()
    worst = np.sort(returns)[: int(np.ceil(0.05 * (len(returns) - 1)))]
    assert row(page, "Daily VaR 5%, historical")[1] == f"{100 * np.quantile(returns, 0.05):.2f}%"
    assert row(page, "Daily CVaR 5%, historical")[1] == f"{100 * worst.mean():.2f}%"
    assert "Daily Value-at-Risk" not in page


def test_years_are_labelled_right(page):
    """Three full years and a piece: bars of the chart and rows of the table."""
    years = ["2018", "2019", "2020", "2021"]
    assert tick_years(page, "eoy_returns") == years
    daily = daily_returns(STRATEGY)
    benchmark = daily_returns(BENCHMARK.reindex(STRATEGY.index))
    for year in years:
        cells = row(page, year)
        for cell, series in zip(cells, (benchmark, daily), strict=False):
            expected = 100 * ((1 + series[series.index.year == int(year)]).prod() - 1)
            assert float(cell) == pytest.approx(expected, abs=0.0051)


def test_days_before_the_first_trade_stay_in(page):
    assert f"{STRATEGY.index[0]:%e %b, %Y} - {STRATEGY.index[-1]:%e %b, %Y}" in page


def test_nothing_is_loaded_and_nothing_is_called(page):
    assert "favicon" not in page
    assert "onload" not in page
    assert "﹪" not in page
    assert "default-src 'none'" in page
    addresses = set(re.findall(r"""(?:src|href|data|url\()=?["'(]?(https?:[^"')]+)""", page))
    assert addresses <= {"http://quantstats.io", "http://www.w3.org/1999/xlink"}


@pytest.mark.browser
@needs_chromium
def test_in_a_browser(tearsheet, tmp_path):
    inspection = inspect_page(tearsheet, tmp_path / "profile")
    assert inspection.problems() == []
    assert len(inspection.ink) == 14


def test_a_strategy_that_never_traded(tmp_path, no_network):
    flat = STRATEGY * 0 + 5_000.0
    path = tmp_path / "flat.html"
    write_tearsheet(flat, BENCHMARK, path, title="Flat")
    text = path.read_text(encoding="utf-8")
    assert "Benchmark: left out, the strategy never traded" in text
    assert row(text, "CAGR") == ["0.0%"]
    assert row(text, "Daily VaR 5%, historical") == ["0.00%"]


@pytest.fixture(scope="module")
def gains():
    """A day of +150 % and no loss at all."""
    steps = np.zeros(60)
    steps[[10, 30, 45]] = 0.02, 1.5, 0.01
    index = pd.date_range("2020-01-01", periods=60, tz="UTC")
    return pd.Series(np.cumprod(1 + steps), index=index)


@pytest.fixture(scope="module")
def gains_tearsheet(gains, tmp_path_factory):
    path = tmp_path_factory.mktemp("gains") / "gains.html"
    write_tearsheet(gains, None, path, title="Gains")
    return path


def test_gains_alone_are_not_taken_for_prices(gains, gains_tearsheet):
    text = gains_tearsheet.read_text(encoding="utf-8")
    expected = performance(gains, periods_per_year=365)
    assert row(text, "Cumulative Return") == [f"{round(100 * expected.total_return, 2)}%"]
    assert float(row(text, "Sharpe")[0]) == pytest.approx(expected.sharpe, abs=0.0051)
    assert row(text, "Max Drawdown") == ["-"]


def test_gains_alone_of_the_last_years_are_not_taken_for_prices(tmp_path):
    """quantstats looks at the last 3 years by themselves for one of its figures."""
    steps = np.zeros(365 * 5)
    steps[[10, 1500, 1600]] = -0.1, 1.5, 0.2
    index = pd.date_range("2015-01-01", periods=len(steps), tz="UTC")
    equity = pd.Series(np.cumprod(1 + steps), index=index)
    write_tearsheet(equity, None, tmp_path / "gains.html", title="Gains", periods_per_year=365)
    text = (tmp_path / "gains.html").read_text(encoding="utf-8")
    last = daily_returns(equity)
    last = last[last.index >= last.index[-1] - pd.DateOffset(months=35)]
    growth = 100 * (3.0 ** (365 / len(last)) - 1)
    assert float(row(text, r"3Y \(ann\.\)")[0].rstrip("%")) == pytest.approx(growth, abs=0.011)


def test_settings_and_figures_of_the_caller_stay(gains, gains_tearsheet, tmp_path):
    pyplot.switch_backend("svg")
    try:
        figure = pyplot.figure()
        matplotlib.rcParams["lines.linewidth"] = 7.0
        matplotlib.rcParams["font.size"] = 30.0
        before = dict(matplotlib.rcParams)
        level = logging.getLogger("matplotlib.font_manager").level
        write_tearsheet(gains, None, tmp_path / "again.html", title="Gains")
        assert pyplot.get_fignums() == [figure.number]
        assert matplotlib.get_backend() == "svg"
        assert dict(matplotlib.rcParams) == before
        assert pd.plotting.plot_params["x_compat"] is False
        assert logging.getLogger("matplotlib.font_manager").level == level
    finally:
        pyplot.close(figure)
        matplotlib.rcdefaults()
        pyplot.switch_backend("agg")
    # None of those settings reaches the page, and equal input gives equal bytes.
    assert (tmp_path / "again.html").read_bytes() == gains_tearsheet.read_bytes()


def test_a_report_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    import quantstats.reports

    def fail(*_args, **_kwargs):
        pyplot.figure()
        raise RuntimeError("planted")

    monkeypatch.setattr(quantstats.reports, "html", fail)
    path = tmp_path / "tearsheet.html"
    path.write_text("the one before")
    with pytest.raises(RuntimeError, match="planted"):
        write_tearsheet(equity_curve(40), None, path, title="A")
    assert path.read_text() == "the one before"
    assert [file.name for file in tmp_path.iterdir()] == ["tearsheet.html"]
    assert pyplot.get_fignums() == []
    assert pd.plotting.plot_params["x_compat"] is False


def test_wrong_input_is_named(tmp_path):
    path = tmp_path / "tearsheet.html"
    equity = equity_curve(40)
    with pytest.raises(DataError, match="at least two days, found 1"):
        write_tearsheet(equity_curve(20, freq="h"), None, path, title="A")
    with pytest.raises(DataError, match="found 10 without, first 2018-01-31"):
        write_tearsheet(equity, equity[:30], path, title="A")
    with pytest.raises(ConfigError, match=r"trading days a year \(365 or 252\), found 8760"):
        write_tearsheet(equity, None, path, title="A", periods_per_year=8760)
    with pytest.raises(ConfigError, match="another name"):
        write_tearsheet(equity, equity, path, title="A", benchmark_title="Strategy")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def calls(monkeypatch):
    """What quantstats is asked for, without the seconds that it takes."""
    import quantstats.reports

    recorded = []

    def report(returns, *, output, **options):
        recorded.append((returns, options))
        Path(output).write_text("<html></html>")

    monkeypatch.setattr(quantstats.reports, "html", report)
    return recorded


def test_a_folder_that_cannot_be_written_to(tmp_path, calls):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultsError, match="choose a folder"):
        write_tearsheet(equity_curve(40), None, tmp_path / "file" / "t.html", title="A")
    assert (tmp_path / "file").read_text() == "in the way"


def test_trading_days_a_year_follow_from_the_bars(tmp_path, calls):
    equity = equity_curve(80)
    write_tearsheet(equity, None, tmp_path / "a.html", title="A")
    write_tearsheet(equity[equity.index.day_of_week < 5], None, tmp_path / "a.html", title="A")
    write_tearsheet(equity, None, tmp_path / "a.html", title="A", periods_per_year=252.0)
    assert [options["periods_per_year"] for _, options in calls] == [365, 252, 252]


def test_only_what_would_be_misread_is_touched(tmp_path, calls):
    equity = equity_curve(80)
    write_tearsheet(equity, None, tmp_path / "a.html", title="A")
    pd.testing.assert_series_equal(calls[0][0], daily_returns(equity))
    rising = pd.Series([1.0, 1.1, 1.1, 3.0, 3.3], index=equity.index[:5])
    write_tearsheet(rising, rising, tmp_path / "a.html", title="A")
    for passed in (calls[1][0], calls[1][1]["benchmark"]):
        assert passed.min() == -1e-12
        np.testing.assert_allclose(passed, daily_returns(rising), rtol=0, atol=1e-11)


def test_importing_the_module_loads_no_quantstats_and_sets_nothing():
    code = (
        "import sys, matplotlib; before = dict(matplotlib.rcParams); "
        "import glow_bt.evaluation.tearsheet; "
        "assert 'quantstats' not in sys.modules and 'yfinance' not in sys.modules; "
        "assert dict(matplotlib.rcParams) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
