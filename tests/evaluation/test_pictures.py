import io

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.dates import num2date
from PIL import Image

from glow_bt.errors import ConfigError, DataError
from glow_bt.evaluation import canvas as canvas_module
from glow_bt.evaluation import pictures
from glow_bt.evaluation.canvas import MOST_POINTS, regime_colour
from glow_bt.evaluation.metrics import performance
from glow_bt.risk import christoffersen_test, kupiec_test
from tests.evaluation.states import made_up_states


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


def line(axes, label):
    return next(artist for artist in axes.lines if artist.get_label() == label)


def legend_texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


ALL = [
    pictures.regime_picture,
    pictures.likelihood_picture,
    lambda states, bounds=(): pictures.var_picture(states, 0.05, bounds),
    pictures.exposure_picture,
    lambda states, bounds=(): pictures.equity_picture(states, None, bounds),
]
ALL_NAMES = ["regimes", "likelihood", "var", "exposure", "equity"]


@pytest.mark.parametrize(("draw", "name"), [*zip(ALL, ALL_NAMES, strict=True)], ids=ALL_NAMES)
def test_every_picture_is_an_image_that_repeats(draw, name):
    states = made_up_states(400, warm_up=50)
    bounds = [states.index[150], states.index[300]]
    picture = draw(states, bounds)
    assert picture.name == name
    image = Image.open(io.BytesIO(picture.png))
    assert image.size[0] == picture.width * 144 / 96
    assert len(np.unique(np.asarray(image.convert("L")))) > 20
    assert picture.caption.endswith("A dotted line marks where a newer model takes over.")
    assert "dotted" not in draw(states).caption
    assert draw(states, bounds) == picture


@pytest.mark.parametrize("draw", ALL, ids=ALL_NAMES)
@pytest.mark.parametrize("num_bars", [2, 10, 5000])
def test_every_picture_works_without_any_model(draw, num_bars):
    states = made_up_states(num_bars, warm_up=num_bars)
    assert draw(states).png.startswith(b"\x89PNG")


def test_settings_of_the_caller_do_not_show_and_do_not_change():
    states = made_up_states(200)
    plain = pictures.equity_picture(states)
    with matplotlib.rc_context():
        pyplot.style.use("dark_background")
        matplotlib.rcParams["font.size"] = 30.0
        before = dict(matplotlib.rcParams)
        assert pictures.equity_picture(states) == plain
        assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


def test_stamps_without_a_time_zone_are_utc():
    states = made_up_states(200)
    local = states.tz_convert("Asia/Tokyo")
    assert pictures.exposure_picture(states.tz_localize(None)) == pictures.exposure_picture(local)


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match="states with a column log_prob, found close"):
        pictures.likelihood_picture(made_up_states(10)[["close"]])


@pytest.mark.parametrize("num_regimes", [2, 6])
def test_price_has_the_colour_of_its_regime(drawn, num_regimes):
    states = made_up_states(600, num_regimes=num_regimes, warm_up=100)
    pictures.regime_picture(states)
    price, ribbon = drawn[0].axes
    (pieces,) = (c for c in price.collections if isinstance(c, LineCollection))
    colours = [to_hex(colour).upper() for colour in pieces.get_colors()]
    by_colour = {regime_colour(number): number for number in range(num_regimes)}
    assert len(by_colour) == num_regimes
    regime = states["regime"].to_numpy()
    seen = 0
    for piece, colour in zip(pieces.get_segments(), colours, strict=True):
        # The last point of a piece is the first of the next, except at the very end.
        length = len(piece) - (seen + len(piece) < len(regime) or len(piece) > 1)
        expected = regime[seen]
        if seen == 0:
            assert np.isnan(expected)
            assert len(piece) == 101
            assert colour not in by_colour
        else:
            assert by_colour[colour] == expected
        np.testing.assert_allclose(piece[:, 1], states["close"].iloc[seen : seen + len(piece)])
        seen += length
    shares = [(regime[100:] == number).mean() for number in range(num_regimes)]
    assert legend_texts(price) == [f"regime {i} ({share:.0%})" for i, share in enumerate(shares)]
    assert len(ribbon.collections) == num_regimes


def test_the_ribbon_stacks_to_one_where_a_model_was_valid(drawn):
    states = made_up_states(900, num_regimes=2, warm_up=300)
    pictures.regime_picture(states)
    top = drawn[0].axes[1].collections[-1].get_paths()[0]
    left = num2date(top.vertices[:, 0].min())
    heights = top.vertices[:, 1]
    assert left == states.index[0].to_pydatetime()
    assert heights.max() == pytest.approx(1.0)
    # Columns of three bars: 100 of them before the first model, where nothing is stacked.
    first_model = matplotlib.dates.date2num(states.index[300].to_pydatetime())
    assert (heights[top.vertices[:, 0] < first_model - 1e-9] == 0).all()


def test_bars_outside_the_filter_are_marked(drawn):
    states = made_up_states(700, warm_up=70)
    picture = pictures.likelihood_picture(states)
    outside = states.index[states["in_distribution"] == 0.0]
    marks = line(drawn[0].axes[0], "filtered out")
    assert list(pd.DatetimeIndex(marks.get_xdata()).tz_localize("UTC")) == list(outside)
    share = len(outside) / 630
    assert f"{len(outside)} of 630 scored bars, {share:.1%}." in picture.caption
    assert "lower edge" not in picture.caption


def test_one_bar_of_tiny_likelihood_does_not_squeeze_the_others(drawn):
    states = made_up_states(700)
    states.iloc[20, states.columns.get_loc("log_prob")] = -1e7
    states.iloc[20, states.columns.get_loc("in_distribution")] = 0.0
    picture = pictures.likelihood_picture(states)
    axes = drawn[0].axes[0]
    bottom, top = axes.get_ylim()
    assert -100 < bottom < states["log_prob"].quantile(0.01)
    assert -20 < top < 0
    assert line(axes, "filtered out").get_ydata().min() == bottom
    assert "Dots on the lower edge stand for still lower values (1)." in picture.caption


def test_a_likelihood_that_is_not_finite_is_a_gap(drawn):
    states = made_up_states(100)
    states.iloc[3, states.columns.get_loc("log_prob")] = -np.inf
    pictures.likelihood_picture(states)
    assert np.isnan(line(drawn[0].axes[0], "log-likelihood").get_ydata()[3])


def test_the_filters_band_is_optional(drawn):
    states = made_up_states(100)
    pictures.likelihood_picture(states)
    pictures.likelihood_picture(states.drop(columns=["filter_low", "filter_high"]))
    assert "filter's band" in legend_texts(drawn[0].axes[0])
    assert "filter's band" not in legend_texts(drawn[1].axes[0])


def test_var_is_about_the_next_bar(drawn):
    states = made_up_states(5)
    states["close"] = [100.0, 100.0, 90.0, 90.0, 89.0]
    states["var"] = [-0.02, -0.05, -0.2, -0.005, -9.0]
    picture = pictures.var_picture(states, 0.05)
    marks = line(drawn[0].axes[0], "violation")
    # The fall to 90 breaks the forecast made at bar 1, the fall to 89 that of bar 3.
    assert list(pd.DatetimeIndex(marks.get_xdata()).tz_localize("UTC")) == [
        states.index[2],
        states.index[4],
    ]
    np.testing.assert_allclose(marks.get_ydata(), np.log([0.9, 89 / 90]))
    assert "2 violations in 4 bars, 0.2 expected" in picture.caption


def test_var_over_several_bars_is_about_their_return(drawn):
    """Of two bars at a time from the first forecast on, so that no bar counts twice."""
    states = made_up_states(6)
    states["close"] = [100.0, 100.0, 95.0, 90.0, 90.0, 89.0]
    states["var"] = [np.nan, -0.05, -9.0, -0.02, -9.0, -9.0]
    picture = pictures.var_picture(states, 0.05, horizon=2)
    marks = line(drawn[0].axes[0], "violation")
    assert list(pd.DatetimeIndex(marks.get_xdata()).tz_localize("UTC")) == [states.index[3]]
    np.testing.assert_allclose(marks.get_ydata(), [np.log(0.9)])
    assert "1 violations in 2 bars" in picture.caption
    assert "The return over every 2 bars and the loss that the model, 2 bars" in picture.caption


@pytest.mark.parametrize("num_bars", [1000, 33_000])
def test_no_violation_is_lost(drawn, num_bars):
    states = made_up_states(num_bars, warm_up=200)
    picture = pictures.var_picture(states, 0.05)
    log_returns = np.log(states["close"]).diff()
    forecast = states["var"].shift(1)
    hits = (log_returns < forecast)[forecast.notna()]
    marks = line(drawn[0].axes[0], "violation")
    assert list(pd.DatetimeIndex(marks.get_xdata()).tz_localize("UTC")) == list(hits.index[hits])
    rate, order = kupiec_test(hits, 0.05), christoffersen_test(hits)
    assert f"{hits.sum():,} violations in {len(hits):,} bars" in picture.caption
    assert f"number: p = {rate.pvalue:.3f}" in picture.caption
    assert f"independence: p = {order.pvalue:.3f}" in picture.caption
    assert picture.title == "Returns against 5% VaR"


def test_no_violation_at_all(drawn):
    states = made_up_states(300)
    states["var"] = -5.0
    picture = pictures.var_picture(states, 0.01)
    assert len(line(drawn[0].axes[0], "violation").get_xdata()) == 0
    assert "0 violations in 299 bars, 3.0 expected" in picture.caption
    assert f"p = {kupiec_test([False] * 299, 0.01).pvalue:.3f}" in picture.caption


def test_var_without_a_forecast_is_said():
    assert "Too few bars" in pictures.var_picture(made_up_states(50, warm_up=50), 0.05).caption


def test_a_level_that_is_none():
    with pytest.raises(ConfigError, match="level"):
        pictures.var_picture(made_up_states(50), 1.0)


def test_exposure_says_how_much():
    states = made_up_states(4)
    states["exposure"] = [0.0, 0.5, -0.25, 0.75]
    caption = pictures.exposure_picture(states).caption
    assert "at 75.0% of the closes; mean exposure 25.0%, largest 75.0%, smallest -25.0%" in caption


def test_equity_starts_at_one_and_drawdown_is_the_metrics_one(drawn):
    states = made_up_states(500)
    benchmark = states["close"] * 3.0
    pictures.equity_picture(states, benchmark)
    growth, drawdown = drawn[0].axes
    for label, values, curve in (
        ("strategy", states["equity"], drawdown.lines[1]),
        ("buy and hold", benchmark, drawdown.lines[0]),
    ):
        np.testing.assert_allclose(line(growth, label).get_ydata(), values / values.iloc[0])
        expected = performance(values, periods_per_year=365).max_drawdown
        assert curve.get_ydata().min() == pytest.approx(expected)


def test_multiples_are_shown_on_a_log_scale_and_ruin_is_not(drawn):
    states = made_up_states(100)
    states["equity"] = np.geomspace(100.0, 9000.0, 100)
    pictures.equity_picture(states)
    states["equity"] = np.linspace(100.0, -20.0, 100)
    pictures.equity_picture(states)
    assert [canvas.axes[0].get_yscale() for canvas in drawn] == ["log", "linear"]


def test_long_curves_become_bands_that_lose_no_extreme(drawn):
    states = made_up_states(33_259, warm_up=3000)
    pictures.exposure_picture(states)
    axes = drawn[0].axes[0]
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == states["exposure"].min()
    assert band.max() == states["exposure"].max()
    pictures.likelihood_picture(states)
    median = line(drawn[1].axes[0], "log-likelihood")
    assert len(median.get_xdata()) < MOST_POINTS
    shown = np.isfinite(median.get_ydata())
    # A column holds 36 or 37 bars; the one with the first scored bar may start before it.
    began = pd.DatetimeIndex(median.get_xdata()).tz_localize("UTC")[shown][0]
    assert states.index[3000 - 37] < began <= states.index[3000]
    first = states["log_prob"].loc[began:].iloc[:37].dropna()
    assert first.min() <= median.get_ydata()[shown][0] <= first.max()
