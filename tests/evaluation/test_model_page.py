import re

import pytest

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.evaluation.model_page import write_model_page
from tests.evaluation.browser import inspect_page, needs_chromium
from tests.evaluation.states import made_up_latents, made_up_states, made_up_training

STATES = made_up_states(1500, warm_up=200)
TITLES = [
    "Price by regime",
    "Log-likelihood and filter",
    "Returns against 5% VaR",
    "Exposure",
    "Equity and drawdown",
    "Latent space",
    "Training",
]


@pytest.fixture(scope="module")
def model_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.html"
    write_model_page(
        STATES,
        path,
        title="Hours & <models>",
        var_level=0.05,
        latents=made_up_latents(STATES),
        training=made_up_training(3),
        fold_bounds=[STATES.index[700], STATES.index[1100]],
        benchmark=STATES["close"],
        facts={"Seed": 7, "NLL": 14.52345678, "Notes": None, "Bars <all>": "1,500 & more"},
    )
    return path


def test_all_pictures_with_their_words(model_page):
    page = model_page.read_text(encoding="utf-8")
    assert re.findall(r"<h2>(.*?)</h2>", page) == TITLES
    assert page.count("<img ") == page.count("<figcaption>") == 7
    for name, title in re.findall(r'<a href="#(.*?)">(.*?)</a>', page):
        assert f'<figure id="{name}">\n<h2>{title}</h2>' in page
    assert "1,500 bars, 2020-01-01 to 2020-03-03 11:00 (bar opens, UTC)." in page
    assert "drawn as a band" not in page


def test_titles_and_facts_are_text(model_page):
    page = model_page.read_text(encoding="utf-8")
    assert "<title>Hours &amp; &lt;models&gt;</title>" in page
    for name, value in (
        ("Seed", "7"),
        ("NLL", "14.52"),
        ("Notes", "–"),
        ("Bars &lt;all&gt;", "1,500 &amp; more"),
    ):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in page


def test_the_page_stands_alone(model_page):
    page = model_page.read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert [file.name for file in model_page.parent.iterdir()] == ["model.html"]
    assert model_page.stat().st_size < 3_000_000


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("width", [1200, 520])
def test_in_a_browser(model_page, tmp_path, width):
    inspection = inspect_page(model_page, tmp_path / "profile", width=width)
    assert inspection.problems() == []
    assert [name.split(": ")[1] for name in inspection.ink] == TITLES


def test_what_is_not_given_is_not_drawn(tmp_path):
    write_model_page(STATES, tmp_path / "a.html", title="A", var_level=0.05)
    unseen = made_up_latents(made_up_states(1500, warm_up=1500))
    write_model_page(
        STATES, tmp_path / "b.html", title="A", var_level=0.05, latents=unseen, training=[]
    )
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert re.findall(r"<h2>(.*?)</h2>", page) == TITLES[:5]
    assert "<dl>" not in page
    assert (tmp_path / "b.html").read_text(encoding="utf-8") == page


def test_many_bars_are_said_to_share_columns(tmp_path):
    write_model_page(made_up_states(5000), tmp_path / "a.html", title="A", var_level=0.05)
    assert "drawn as a band from the lowest" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_wrong_input_leaves_no_page(tmp_path):
    with pytest.raises(TooFewBarsError, match="page of pictures needs at least 2"):
        write_model_page(STATES[:1], tmp_path / "a.html", title="A", var_level=0.05)
    with pytest.raises(ConfigError, match="level"):
        write_model_page(STATES, tmp_path / "a.html", title="A", var_level=0.99)
    assert list(tmp_path.iterdir()) == []
