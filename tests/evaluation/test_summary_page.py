import re

import pytest

from glow_bt.evaluation.summary_page import verdict, write_summary_page
from tests.evaluation.browser import inspect_page, needs_chromium
from tests.evaluation.runs import CASH, NAMES, made_up_run, without_statistics

METRICS, EQUITY = made_up_run(num_trials=4)
PICTURES = ["Equity of all contenders", "Sharpe ratio and drawdown with intervals"]
SECTIONS = [
    "Performance",
    *PICTURES,
    "Contenders",
    "GLOW against each",
    "Luck and selection",
    "Positions and costs",
    "Regimes",
    "Model",
]


def write(path, metrics=METRICS, equity=EQUITY, search=None):
    pictures = write_summary_page(
        metrics,
        equity,
        path,
        title="Hours & <runs>",
        cash=CASH,
        fold_bounds=[EQUITY.index[150]],
        facts={"Seed": "7", "Bars <all>": "400"},
        pages=[("model.html", "The model's page"), ("tearsheet.html", "Tearsheet")],
        search=search,
    )
    return pictures, path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    path = tmp_path_factory.mktemp("summary") / "index.html"
    write(path)
    return path


@pytest.fixture(scope="module")
def page(summary):
    return summary.read_text(encoding="utf-8")


def cells(page, heading, head):
    """Text of a row's cells and what stands small below, in the section of a heading."""
    section = page.split(f"<h2>{heading}</h2>", 1)[1].split("</section>", 1)[0]
    row = re.search(rf'<th scope="row">{re.escape(head)}</th>(.*?)</tr>', section)[1]
    found = []
    for cell in re.findall(r"<td>(.*?)</td>", row):
        text, _, small = cell.partition('<span class="interval">')
        found.append(tuple(re.sub("<.*?>", "", part) for part in (text, small)))
    return found


def test_sections_are_linked_and_other_pages_too(page):
    assert re.findall(r"<h2>(.*?)</h2>", page) == SECTIONS
    for name in re.findall(r'<a href="#(.*?)">', page):
        assert page.count(f'id="{name}"') == 1
    for target in ("model.html", "tearsheet.html"):
        assert f'<a href="{target}">' in page
    assert "<title>Hours &amp; &lt;runs&gt;</title>" in page
    assert "<dt>Bars &lt;all&gt;</dt><dd>400</dd>" in page


def test_every_contender_is_a_row_whether_it_gained_or_lost(page):
    for name, words in zip(
        NAMES,
        ("GLOW", "buy and hold", "volatility target", "no filter", "random direction"),
        strict=True,
    ):
        own = METRICS["strategies"][name]
        ends = METRICS["statistics"]["intervals"][name]
        found = cells(page, "Performance", words)
        assert found[0][0] == f"{own['total_return']:+.1%}"
        sharpe, low, high = own["sharpe"], ends["sharpe"]["low"], ends["sharpe"]["high"]
        assert found[3] == (f"{sharpe:.2f}", f"{low:.2f} to {high:.2f}")
        assert found[6][0] == f"{own['max_drawdown']:.1%}"
        paid = cells(page, "Positions and costs", words)
        assert [text for text, _ in paid[3:]][:5] == [
            f"{own['costs']['commission']:,.0f}",
            "30",
            "-4",
            f"{sum(own['costs'].values()):,.0f}",
            f"{sum(own['costs'].values()) / CASH:.2%}",
        ]
    assert min(own["total_return"] for own in METRICS["strategies"].values()) < 0


def test_differences_are_bold_where_their_interval_holds_no_zero(page):
    section = page.split("<h2>GLOW against each</h2>", 1)[1].split("</section>", 1)[0]
    told = METRICS["statistics"]["differences"]
    shown = [
        ("annual_return", "{:+.1%}"),
        ("annual_volatility", "{:+.1%}"),
        ("sharpe", "{:+.2f}"),
        ("sortino", "{:+.2f}"),
        ("max_drawdown", "{:+.1%}"),
        ("turnover", "{:+.1f}"),
    ]
    sure = [
        pattern.format(own[key]["estimate"])
        for own in told.values()
        for key, pattern in shown
        if own[key]["low"] > 0 or own[key]["high"] < 0
    ]
    assert re.findall(r'<span class="best">(.*?)</span>', section) == sure
    found = cells(page, "GLOW against each", "minus no filter")
    test = METRICS["statistics"]["sharpe_difference"]["no_filter"]
    assert found[-1][0] == f"{test['pvalue']:.3f}"


def test_trials_regimes_and_density_are_told(page):
    assert "<dt>Trials counted</dt><dd>4</dd>" in page
    deflated = METRICS["statistics"]["deflated_sharpe"]["probability"]
    assert f"<dt>Deflated Sharpe ratio</dt><dd>{deflated:.1%}</dd>" in page
    row = [text for text, _ in cells(page, "Regimes", "regime 2")]
    assert row == ["50.0%", "200", "+1.00", "93.6%", "7.5", "20.0%", "80.0%"]
    assert "adjusted Rand index of 0.62" in page
    assert "the model&#x27;s is better (p &lt; 0.001 of equal ones" in page
    assert "taker fee of 5.5 basis points and 1 basis points of slippage" in page
    assert "Funding is charged by the bars&#x27; own rates." in page
    assert [text for text, _ in cells(page, "Model", "1%")][3:] == ["0.030", "-"]


def test_the_page_stands_alone(summary, page):
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert [file.name for file in summary.parent.iterdir()] == ["index.html"]


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("width", [1200, 520])
def test_in_a_browser(summary, tmp_path, width):
    inspection = inspect_page(summary, tmp_path / "profile", width=width)
    assert inspection.problems() == []
    assert [name.split(": ")[1] for name in inspection.ink] == [t[:40] for t in PICTURES]


def changed(name, **values):
    strategies = METRICS["strategies"]
    return {**METRICS, "strategies": {**strategies, name: {**strategies[name], **values}}}


@pytest.mark.parametrize(
    ("sharpe", "drawdown", "said"),
    [
        (1.5, -0.1, ["1.50 against 1.00: reached", "-10.0% against -30.0%: reached"]),
        (0.5, -0.1, ["0.50 against 1.00: missed", "-10.0% against -30.0%: reached"]),
        (1.5, -0.4, ["1.50 against 1.00: reached", "-40.0% against -30.0%: missed"]),
        (None, -0.4, ["- against 1.00: missed", "-40.0% against -30.0%: missed"]),
    ],
)
def test_the_target_is_said_to_be_reached_or_missed(sharpe, drawdown, said):
    other = changed("buy_and_hold", sharpe=1.0, max_drawdown=-0.5)["strategies"]["buy_and_hold"]
    metrics = changed("glow", sharpe=sharpe, max_drawdown=drawdown)
    metrics["strategies"]["buy_and_hold"] = other
    words = " ".join(verdict(metrics))
    assert all(part in words for part in said)
    assert "4 trials (deflated Sharpe ratio)" in words


def test_a_strategy_that_never_traded_is_said_to_hold_nothing(tmp_path):
    metrics, equity = made_up_run(idle=True)
    words = " ".join(verdict(metrics))
    assert words.startswith("GLOW placed no order")
    assert "reached, by holding nothing." in words
    pictures, page = write(tmp_path / "index.html", metrics, equity)
    assert [picture.title for picture in pictures] == PICTURES
    assert "The band holds" not in page
    assert cells(page, "Performance", "GLOW")[3] == ("-", "")


def test_runs_of_an_earlier_version_have_a_page_without_statistics(tmp_path):
    old = without_statistics(METRICS)
    pictures, page = write(tmp_path / "index.html", old)
    assert [picture.title for picture in pictures] == PICTURES[:1]
    kept = ("Performance", PICTURES[0], "Contenders", "Positions and costs", "Model")
    assert re.findall(r"<h2>(.*?)</h2>", page) == list(kept)
    assert 'class="interval"' not in page


def test_a_comparison_that_was_skipped_says_why(tmp_path):
    density = {"baseline": "garch_t", "skipped": "5 forecasts are too few to compare"}
    _, page = write(tmp_path / "index.html", {**METRICS, "density": density})
    assert "not compared with GARCH-t: 5 forecasts are too few to compare." in page


def test_overfitting_of_a_search_is_told_where_it_was_measured(tmp_path):
    _, page = write(tmp_path / "a.html", search={"trials": 4, "pbo": 0.4})
    assert "overfitting in the search (CSCV)</dt><dd>40.0%</dd>" in page
    _, page = write(tmp_path / "b.html", search={"trials": 4, "pbo": None})
    assert "CSCV" not in page
