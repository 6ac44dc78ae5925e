"""What the risk pictures show, read off their artists."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import binom, norm

from glow_bt.evaluation import canvas as canvas_module
from glow_bt.evaluation.canvas import MOST_POINTS
from glow_bt.evaluation.risk_pictures import close_up_picture, returns_picture, rolling_picture
from glow_bt.evaluation.risk_shape_pictures import loss_picture, pit_picture, qq_picture
from glow_bt.evaluation.risk_summary import summarize
from glow_bt.risk import violations
from tests.evaluation.risk_studies import made_up_study

MODELS = ["flow", "flow_recalibrated", "garch_t"]
RIGHT = "flow_recalibrated"


@pytest.fixture(scope="module")
def study():
    return made_up_study(900)


@pytest.fixture(scope="module")
def models(study):
    return summarize(study)["models"]


@pytest.fixture
def drawn(monkeypatch):
    """The canvases that were drawn, artists and all."""
    canvases = []

    class Recorded(canvas_module.Canvas):
        def picture(self, *args, **kwargs):
            canvases.append(self)
            return super().picture(*args, **kwargs)

    monkeypatch.setattr(canvas_module, "Canvas", Recorded)
    return canvases


def stamps_of(line):
    return pd.DatetimeIndex(line.get_xdata()).tz_localize("UTC")


def labelled(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


ALL = {
    "returns": lambda study: returns_picture(study, RIGHT),
    "close-up": lambda study: close_up_picture(study, RIGHT),
    "rolling": lambda study: rolling_picture(study, MODELS),
    "pit": lambda study: pit_picture(study, MODELS),
    "qq": lambda study: qq_picture(study, MODELS),
    "losses": lambda study: loss_picture(summarize(study)["models"]),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("num_bars", [60, 900])
def test_every_picture_is_an_image_that_repeats(name, num_bars):
    study = made_up_study(num_bars)
    picture = ALL[name](study)
    assert picture.name == name
    image = Image.open(io.BytesIO(picture.png))
    assert image.size[0] == picture.width * 144 / 96
    assert len(np.unique(np.asarray(image.convert("L")))) > 20
    assert ALL[name](study) == picture


@pytest.mark.parametrize("levels", [(0.01, 0.99), (0.02, 0.1, 0.9, 0.98), (0.05,)])
@pytest.mark.parametrize("name", ALL)
def test_every_picture_takes_other_levels(name, levels):
    assert ALL[name](made_up_study(300, levels=levels)).png.startswith(b"\x89PNG")


@pytest.mark.parametrize("num_bars", [900, MOST_POINTS + 500])
def test_no_violation_is_lost(drawn, num_bars):
    study = made_up_study(num_bars)
    own = study.forecasts[RIGHT]
    picture = returns_picture(study, RIGHT)
    axes = drawn[0].axes[0]
    lower = violations(own.returns, own.quantile(0.01), 0.01)
    upper = violations(own.returns, own.quantile(0.99), 0.99)
    down = labelled(axes, "violation")
    up = next(line for line in axes.lines if line.get_marker() == "^")
    assert list(stamps_of(down)) == list(study.stamps[lower])
    assert list(stamps_of(up)) == list(study.stamps[upper])
    np.testing.assert_array_equal(down.get_ydata(), own.returns[lower])
    told = f"{lower.sum()} losses and {upper.sum()} gains, {num_bars / 100:.1f} expected of each"
    assert told in picture.caption
    assert ("medians of neighbouring bars" in picture.caption) == (num_bars > MOST_POINTS)


def test_the_forecasts_drawn_are_the_models(drawn, study):
    returns_picture(study, RIGHT)
    axes, own = drawn[0].axes[0], study.forecasts[RIGHT]
    for label, values in (
        ("1\u00a0% VaR", own.quantile(0.01)),
        ("5\u00a0% VaR", own.quantile(0.05)),
        ("2.5\u00a0% shortfall", own.shortfall(0.025)),
    ):
        np.testing.assert_array_equal(labelled(axes, label).get_ydata(), values)


def test_a_newer_model_is_marked_where_it_takes_over(drawn, study):
    picture = returns_picture(study, RIGHT)
    dotted = [line for line in drawn[0].axes[0].lines if line.get_linestyle() == ":"]
    assert [stamps_of(line)[0] for line in dotted] == study.bounds[1:]
    assert picture.caption.endswith("A dotted line marks where a newer model takes over.")
    one = returns_picture(replace(study, bounds=study.bounds[:1]), RIGHT)
    assert "dotted" not in one.caption


@pytest.mark.parametrize("at", [0, 450, 899])
def test_the_close_up_holds_the_largest_loss(drawn, study, at):
    own = study.forecasts[RIGHT]
    returns = own.returns.copy()
    returns[at] = -1.0
    changed = replace(study, forecasts={RIGHT: replace(own, returns=returns)})
    picture = close_up_picture(changed, RIGHT)
    assert picture.caption.startswith("300 bars")
    shown = stamps_of(labelled(drawn[0].axes[0], "violation"))
    assert study.stamps[at] in shown
    hollow = [line for line in drawn[0].axes[0].lines if line.get_markerfacecolor() == "white"]
    assert not set(shown) & {stamp for line in hollow for stamp in stamps_of(line)}


def test_rates_are_those_of_the_window_that_ends_there(drawn, study):
    picture = rolling_picture(study, MODELS)
    assert "last 300 returns" in picture.caption
    for axes, level in zip(drawn[0].axes, (0.01, 0.05, 0.95, 0.99), strict=True):
        curve = labelled(axes, "flow")
        own = study.forecasts["flow"]
        hits = violations(own.returns, own.quantile(level), level)
        rolled = pd.Series(hits, study.stamps).rolling(300).mean().dropna()
        np.testing.assert_allclose(curve.get_ydata(), rolled, atol=1e-12)
        assert list(stamps_of(curve)) == list(rolled.index)
        band = axes.patches[0]
        low, high = binom.ppf([0.025, 0.975], 300, min(level, 1 - level)) / 300
        assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((low, high))


def test_histograms_hold_every_pit(drawn, study):
    pit_picture(study, MODELS)
    for axes, model in zip(drawn[0].axes, MODELS, strict=True):
        bars = [patch for patch in axes.patches if patch.get_width() < 0.1]
        heights = np.array([bar.get_height() for bar in bars])
        counts, _ = np.histogram(study.forecasts[model].pit, 20, (0, 1))
        np.testing.assert_allclose(heights * 900 / 20, counts)


def test_the_qq_plot_shows_scores_against_what_is_expected(drawn, study):
    qq_picture(study, MODELS)
    for axes, model in zip(drawn[0].axes, MODELS, strict=True):
        (dots,) = [line for line in axes.lines if line.get_marker() == "o"]
        scores = norm.ppf(np.sort(study.forecasts[model].pit))
        np.testing.assert_allclose(dots.get_ydata(), scores)
        np.testing.assert_allclose(dots.get_xdata(), norm.ppf((np.arange(900) + 0.5) / 900))


def test_the_qq_plot_says_what_it_leaves_out(drawn):
    study = made_up_study(4000)
    own = study.forecasts[RIGHT]
    pit = own.pit.copy()
    pit[:3] = 0.0, 1.0, 1e-9
    picture = qq_picture(replace(study, forecasts={RIGHT: replace(own, pit=pit)}), [RIGHT])
    (dots,) = [line for line in drawn[0].axes[0].lines if line.get_marker() == "o"]
    assert "scores beyond ±4.5 (3)" in picture.caption
    assert "middle thinned out" in picture.caption
    assert np.abs(dots.get_ydata()).max() == 4.5
    assert len(dots.get_xdata()) < 1600


def test_the_band_of_the_qq_plot_holds_its_share_of_right_dots(drawn):
    study = made_up_study(1000, seed=3)
    own = study.forecasts[RIGHT]
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(10):
        drawn.clear()
        uniform = replace(own, pit=rng.random(1000))
        qq_picture(replace(study, forecasts={RIGHT: uniform}), [RIGHT])
        axes = drawn[0].axes[0]
        (dots,) = [line for line in axes.lines if line.get_marker() == "o"]
        edge = axes.collections[0].get_paths()[0].vertices
        half = len(edge) // 2
        low, high = edge[1:1001], edge[half + 1 : half + 1001][::-1]
        np.testing.assert_allclose(low[:, 0], dots.get_xdata())
        np.testing.assert_allclose(high[:, 0], dots.get_xdata())
        inside.append((low[:, 1] <= dots.get_ydata()) & (dots.get_ydata() <= high[:, 1]))
    assert 0.88 < np.mean(inside) < 0.995


def test_losses_are_relative_to_the_best_baseline_of_each_level(drawn, models):
    picture = loss_picture(models)
    axes = drawn[0].axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    row = names.index("flow, recalibrated")
    values = sorted(
        float(line.get_xdata()[0])
        for line in axes.lines
        if len(line.get_xdata()) == 1 and abs(line.get_ydata()[0] - row) < 0.5
    )
    expected = sorted(
        100 * (cell["quantile_loss"] / min(
            models[name]["levels"][level]["quantile_loss"]
            for name in ("gaussian", "historical", "garch_t")
        ) - 1)
        for level, cell in models["flow_recalibrated"]["levels"].items()
    )  # fmt: skip
    np.testing.assert_allclose(values, expected)
    assert "Left of the line is better than every baseline" in picture.caption


def test_a_loss_far_off_is_held_at_the_edge_and_said(drawn, models):
    far = {
        level: cell | {"quantile_loss": 9.0}
        for level, cell in models["gaussian"]["levels"].items()
    }
    picture = loss_picture(models | {"gaussian": models["gaussian"] | {"levels": far}})
    edge = [line for line in drawn[0].axes[0].lines if line.get_marker() == ">"]
    assert len(edge) == 6
    assert max(line.get_xdata()[0] for line in edge) < 100
    assert "on the edge, lie beyond" in picture.caption
