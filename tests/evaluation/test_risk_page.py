import re

import pytest

from glow_bt.evaluation.risk_page import write_risk_page
from glow_bt.evaluation.risk_summary import summarize
from tests.evaluation.browser import inspect_page, needs_chromium
from tests.evaluation.risk_studies import made_up_study

STUDY = made_up_study(600)
TITLES = [
    "Returns against value at risk",
    "Around the largest loss",
    "Rolling rate of violations",
    "PIT histograms",
    "QQ plot",
    "Quantile loss beside the best baseline",
]


@pytest.fixture(scope="module")
def summary():
    return summarize(STUDY, seed=5)


@pytest.fixture(scope="module")
def risk_page(summary, tmp_path_factory):
    path = tmp_path_factory.mktemp("risk") / "risk.html"
    write_risk_page(STUDY, summary, path, title="Hours & <risks>")
    return path


def cells(page, heading, model):
    """A model's cells in the first table after a heading."""
    table = page.split(heading, 1)[1].split("</table>", 1)[0]
    row = re.search(rf'<th scope="row">{re.escape(model)}</th>(.*?)</tr>', table)[1]
    return re.findall(r"<td(?: class=\"(\w+)\")?>(.*?)</td>", row)


def test_all_pictures_and_links(risk_page):
    page = risk_page.read_text(encoding="utf-8")
    assert [t for t in re.findall(r"<h2>(.*?)</h2>", page) if t in TITLES] == TITLES
    for name in re.findall(r'<a href="#(.*?)">', page):
        assert page.count(f'id="{name}"') == 1
    assert "600 returns, each forecast at the close of the bar before; bars that opened" in page


def test_tables_hold_the_numbers_of_the_summary(risk_page, summary):
    page = risk_page.read_text(encoding="utf-8")
    for level, heading in (("0.01", "1 % lower tail"), ("0.95", "5 % upper tail")):
        cell = summary["models"]["gaussian"]["levels"][level]
        tail = summary["models"]["gaussian"]["es"][level]
        found = [text for _, text in cells(page, f"<h3>{heading}", "Gaussian")]
        assert found[:3] == [
            f"{cell['violations']}", f"{cell['expected']:.1f}", f"{cell['rate']:.2%}"
        ]  # fmt: skip
        assert found[5] == f"{1e4 * cell['quantile_loss']:.4f}"
        assert found[7] == f"{tail['fz0_loss']:.4f}"
    assert page.count("<h3>") == 6 + 2


def test_the_best_is_bold_and_what_fails_is_red(risk_page, summary):
    page = risk_page.read_text(encoding="utf-8")
    models = summary["models"]
    best = min(models, key=lambda name: models[name]["levels"]["0.05"]["quantile_loss"])
    for model, text in (("flow", "flow"), ("flow_recalibrated", "flow, recalibrated")):
        row = cells(page, "<h3>5 % lower tail", text)
        assert (row[5][0] == "best") == (model == best)
        for at, key in ((3, "kupiec_p"), (4, "christoffersen_p")):
            p = models[model]["levels"]["0.05"][key]
            assert row[at] == ("bad" if p < 0.05 else "", f"{p:.3f}")
    failed = models["gaussian"]["levels"]["0.95"]["christoffersen_p"]
    assert failed < 0.05
    assert cells(page, "<h3>5 % upper tail", "Gaussian")[4] == ("bad", f"{failed:.3f}")
    assert cells(page, '<section id="models">', "historical")[0] == ("", "–")


def test_comparisons_are_marked_for_whoever_is_better(risk_page, summary):
    page = risk_page.read_text(encoding="utf-8")
    found = summary["comparisons"]["flow_recalibrated"]["gaussian"]
    row = cells(page, "<h3>Flow, recalibrated", "Gaussian")
    assert len(row) == 1 + 6 + 6
    assert found["nll"]["p"] < 0.001
    assert row[0] == ("good", "&lt; 0.001")
    assert cells(page, "<h3>Flow, recalibrated", "historical")[0] == ("", "–")


def test_titles_and_facts_are_text(risk_page):
    page = risk_page.read_text(encoding="utf-8")
    assert "<title>Hours &amp; &lt;risks&gt;</title>" in page
    assert "<dt>Settings</dt><dd>&lt;none&gt; &amp; none</dd>" in page
    assert "<dt>Seed</dt><dd>5</dd>" in page
    assert "Limits:" in page


def test_the_page_stands_alone(risk_page):
    page = risk_page.read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert [file.name for file in risk_page.parent.iterdir()] == ["risk.html"]


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("width", [1200, 520])
def test_in_a_browser(risk_page, tmp_path, width):
    inspection = inspect_page(risk_page, tmp_path / "profile", width=width)
    assert inspection.problems() == []
    assert [name.split(": ")[1] for name in inspection.ink] == TITLES
