import timeit

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from glow_bt.bt import GlowIndicator
from glow_bt.bt.indicator import find_indicator
from glow_bt.errors import ConfigError, FeatureError
from glow_bt.risk.recalibration import Recalibration
from glow_bt.scoring import SCORE_COLUMNS, Scorer, StreamState
from glow_bt.training import TrainConfig, train
from tests.bt.market import (
    WINDOW,
    LineProbe,
    PeekingScorer,
    WindowScorer,
    cerebro_over,
    random_bars,
    run_strategy,
    scores_of,
    trained_model,
)


def test_lines_are_the_scores_in_their_order():
    assert GlowIndicator.lines._getlines() == SCORE_COLUMNS


def test_a_feed_of_any_kind_will_do():
    bars = random_bars(60)
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(bt.feeds.PandasData(dataname=bars))
    table = run_strategy(cerebro, LineProbe, model=WindowScorer()).table()
    expected = pd.DataFrame(scores_of(bars), index=bars.index).dropna()
    np.testing.assert_allclose(table, expected.loc[table.index], rtol=0, atol=1e-9)
    assert len(table) == len(expected)


def test_stamps_reach_the_scorer_exactly():
    class StampScorer(WindowScorer):
        def score_arrays(self, stamps_ns, bars):
            return np.repeat(stamps_ns[:, None].astype(float), 7, axis=1)

    bars = random_bars(50, freq="61s", start="2021-05-06 07:08:09.123")
    for runonce in (True, False):
        cerebro = cerebro_over(bars, runonce=runonce)
        table = run_strategy(cerebro, LineProbe, model=StampScorer(1)).table()
        assert table[1].tolist() == bars.index.as_unit("ns").asi8.astype(float).tolist()


def test_a_model_that_peeks_is_caught_by_running_both_ways():
    """Under runonce row t sees t + 1; bar by bar there is nothing to see."""
    bars = random_bars(60)
    at_once, by_bar = (
        run_strategy(cerebro_over(bars, runonce=runonce), LineProbe, model=PeekingScorer()).table()
        for runonce in (True, False)
    )
    assert not np.allclose(at_once, by_bar)


def test_two_feeds_have_an_indicator_each():
    class Both(bt.Strategy):
        def __init__(self):
            self.first, self.second = (
                GlowIndicator(data, model=WindowScorer()) for data in self.datas
            )

    bars = [random_bars(60, seed=1), random_bars(60, seed=2)]
    strategy = run_strategy(cerebro_over(bars), Both)
    for data, indicator, frame in zip(
        strategy.datas, (strategy.first, strategy.second), bars, strict=True
    ):
        assert find_indicator(strategy, data) is indicator
        assert indicator.lines.var[0] == scores_of(frame)[-1, 5]


def test_the_scorer_s_var_level_counts():
    strategy = run_strategy(cerebro_over(random_bars(20)), LineProbe, model=WindowScorer())
    assert strategy.glow.var_level == 0.05


@pytest.mark.parametrize("exactbars", [0, 1])
def test_a_bar_costs_little_beside_the_scorer(exactbars):
    """Less than 100 microseconds a bar on top of the scorer, with a window of 62 bars."""

    class Free(WindowScorer):
        def score_arrays(self, stamps_ns, bars):
            return scores

    class Timed(LineProbe):
        def next(self):
            def score_anew():
                self.glow._scored_bar = None
                self.glow.next()

            if len(self) == 100:
                self.seconds = min(timeit.repeat(score_anew, number=100, repeat=10)) / 100

    scores = np.zeros((62, 7))
    cerebro = cerebro_over(random_bars(100), runonce=False, exactbars=exactbars)
    assert run_strategy(cerebro, Timed, model=Free(62)).seconds < 100e-6


def legend_texts(axis):
    return axis.get_legend().get_texts() if axis.get_legend() else []


def test_the_plot_shows_lines_of_one_scale():
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    cerebro = cerebro_over(random_bars(60))
    run_strategy(cerebro, LineProbe, model=WindowScorer())
    [[figure]] = cerebro.plot(style="line")
    try:
        texts = [text.get_text() for axis in figure.axes for text in legend_texts(axis)]
        assert any(text.startswith("GLOW (VaR at 0.05)") for text in texts)
        labels = {
            line.get_label().split("\n")[-1].split()[0]: len(line.get_ydata())
            for axis in figure.axes
            for line in axis.get_lines()
        }
        assert {"confidence", "in_distribution", "direction"} <= labels.keys()
        assert not {"log_prob", "regime", "var", "cvar"} & labels.keys()
        assert labels["direction"] == 60
    finally:
        plt.close("all")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected model="),
        ({"model": 5}, "expected model="),
        ({"model": WindowScorer(), "modle": 1}, "did you mean 'model'"),
        ({"model": WindowScorer(), "quantile": 0.05}, "among model, var_level"),
    ],
)
def test_wrong_parameters_are_refused(arguments, message):
    class Wrong(bt.Strategy):
        def __init__(self):
            GlowIndicator(self.data, **arguments)

    with pytest.raises(ConfigError, match=message):
        run_strategy(cerebro_over(random_bars(20)), Wrong)


def test_parameters_without_a_name_are_refused():
    class Wrong(bt.Strategy):
        def __init__(self):
            GlowIndicator(self.data, "models/btc")

    with pytest.raises(ConfigError, match="by name, found 'models/btc'"):
        run_strategy(cerebro_over(random_bars(20)), Wrong)


def test_a_single_line_is_refused():
    class Wrong(bt.Strategy):
        def __init__(self):
            GlowIndicator(self.data.close, model=WindowScorer())

    with pytest.raises(ConfigError, match=r"give self\.data, not a line"):
        run_strategy(cerebro_over(random_bars(20)), Wrong)


class ErrorProbe(LineProbe):
    """Asks for the error of VaR at every bar, or at the last one only."""

    params = (("always", True),)

    def __init__(self):
        super().__init__()
        self.errors = []

    def next(self):
        if self.p.always or len(self) == self.data.buflen():
            self.errors.append(self.glow.var_error())


@pytest.mark.parametrize("always", [True, False])
@pytest.mark.parametrize("mode", [{}, {"runonce": False}, {"exactbars": 1}], ids=str)
@pytest.mark.parametrize("glow", [{}, {"horizon": 5, "recalibrate": True}], ids=str)
def test_the_error_of_var_is_the_scorer_s_in_every_mode(mode, glow, always):
    artifact, bars = trained_model()
    bars = bars[:150]
    cerebro = cerebro_over(bars, **mode)
    strategy = run_strategy(cerebro, ErrorProbe, model=artifact, glow=glow, always=always)
    scorer = Scorer(artifact, **glow)
    expected = scorer.var_error(bars.index.as_unit("ns").asi8, bars.to_numpy())
    known = expected[scorer.min_bars - 1 :]
    # With exactbars the feed does not know its end.
    if always:
        np.testing.assert_allclose(strategy.errors, known, rtol=1e-9)
    elif not mode.get("exactbars"):
        np.testing.assert_allclose(strategy.errors, known[-1:], rtol=1e-9)
    assert strategy.glow.horizon == glow.get("horizon", 1)


def test_a_scorer_that_knows_no_error_horizon_or_recalibration_has_none():
    strategy = run_strategy(cerebro_over(random_bars(20)), ErrorProbe, model=WindowScorer())
    assert set(strategy.errors) == {0.0}
    assert strategy.glow.horizon == 1
    assert strategy.glow.stream_state is None


def test_the_state_of_a_run_bar_by_bar_is_the_scorer_s():
    artifact, bars = trained_model()
    glow = {"recalibrate": True}
    strategy = run_strategy(
        cerebro_over(bars[:150], runonce=False), LineProbe, model=artifact, glow=glow
    )
    scorer = Scorer(artifact, **glow)
    assert strategy.glow.stream_state == StreamState(
        scorer.recalibrated(bars[:150]), bars.index[149].value
    )
    plain = run_strategy(cerebro_over(bars[:150], runonce=False), LineProbe, model=artifact)
    assert plain.glow.stream_state is None


@pytest.mark.parametrize("kind", ["scorer", "another's scorer"])
def test_a_state_needs_a_scorer_that_recalibrates(kind):
    artifact, bars = trained_model()
    model = Scorer(artifact) if kind == "scorer" else WindowScorer()
    glow = {"state": StreamState(Recalibration())}
    with pytest.raises(ConfigError, match="a scorer that recalibrates to go on from a state"):
        run_strategy(cerebro_over(bars[:130]), LineProbe, model=model, glow=glow)


def funded(bars):
    rng = np.random.default_rng(0)
    return bars.assign(funding_rate=rng.normal(1e-4, 1e-4, len(bars)))


@pytest.fixture(scope="module")
def model_of_funding():
    """A model that was told of funding rates, and bars that have them."""
    artifact, _ = trained_model()
    bars = funded(random_bars(900, seed=11))
    return train(bars[:700], TrainConfig(**artifact.training.config)), bars[700:]


@pytest.mark.parametrize("runonce", [True, False])
@pytest.mark.parametrize("recalibrate", [False, True])
def test_a_funding_rate_reaches_the_model_that_knows_it(model_of_funding, runonce, recalibrate):
    artifact, bars = model_of_funding
    glow = {"recalibrate": recalibrate}
    table = run_strategy(
        cerebro_over(bars, runonce=runonce), LineProbe, model=artifact, glow=glow
    ).table()
    expected = Scorer(artifact, **glow).score(bars).dropna()
    np.testing.assert_allclose(table, expected, rtol=0, atol=1e-9)
    assert artifact.returns.spec.funding


def test_a_feed_without_the_funding_rate_is_refused_by_a_model_that_knows_it(model_of_funding):
    artifact, bars = model_of_funding
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(bt.feeds.PandasData(dataname=bars.drop(columns="funding_rate")))
    with pytest.raises(
        ConfigError, match=r"found none of funding_rate; .* all that the model was"
    ):
        run_strategy(cerebro, LineProbe, model=artifact)


@pytest.mark.parametrize("runonce", [True, False])
def test_bars_whose_funding_rate_is_missing_are_refused(model_of_funding, runonce):
    artifact, bars = model_of_funding
    cerebro = cerebro_over(bars.drop(columns="funding_rate"), runonce=runonce)
    with pytest.raises(FeatureError, match="expected a funding rate for every bar"):
        run_strategy(cerebro, LineProbe, model=artifact)


def test_a_run_in_one_call_leaves_no_state_to_save():
    artifact, bars = trained_model()
    strategy = run_strategy(
        cerebro_over(bars[:150]), LineProbe, model=artifact, glow={"recalibrate": True}
    )
    with pytest.raises(ConfigError, match="run Cerebro with runonce=False"):
        _ = strategy.glow.stream_state


class Looks(bt.Strategy):
    """Looks at the lines in every way that there is, and at an indicator on one of them."""

    def __init__(self):
        self.glow = GlowIndicator(self.data, model=WindowScorer())
        self.average = bt.indicators.SMA(self.glow.lines.confidence, period=3)
        self.rows = []

    def next(self):
        glow, lines = self.glow, self.glow.lines
        assert len(glow) == len(self.data) == len(lines.var)
        now = glow.current_scores()
        np.testing.assert_array_equal(now, [line[0] for line in lines])
        assert glow[-1] == lines.log_prob[-1] == lines.log_prob.get(size=2)[0]
        assert lines.log_prob.get(ago=-1)[0] == glow[-1]
        assert self.average[0] == pytest.approx(np.mean(lines.confidence.get(size=3)))
        self.rows.append(now)


@pytest.mark.parametrize("settings", [{}, {"runonce": False}, {"exactbars": 1}], ids=str)
def test_lines_may_be_looked_at_in_any_way_in_any_mode(settings):
    bars = random_bars(40)
    strategy = run_strategy(cerebro_over(bars, **settings), Looks)
    np.testing.assert_allclose(strategy.rows, scores_of(bars)[WINDOW + 1 :], rtol=1e-12)
    assert len(strategy.rows) == 40 - WINDOW - 1


def test_moving_the_lines_by_hand_is_what_backtrader_does():
    class Plain(bt.Indicator):
        lines = SCORE_COLUMNS

    class Both(bt.Strategy):
        def __init__(self):
            self.pair = GlowIndicator(self.data, model=WindowScorer()), Plain(self.data)

    strategy = run_strategy(cerebro_over(random_bars(20)), Both)
    for move in (("forward", 1.0, 3), ("rewind", 5), ("advance", 2), ("home",), ("advance",)):
        for own in strategy.pair:
            getattr(own, move[0])(*move[1:])
        ours, theirs = (
            [(len(i), i.buflen(), i.lines[k].idx) for k in range(7)] for i in strategy.pair
        )
        assert ours == theirs
    assert list(strategy.pair[0].lines.cvar.array[-3:]) == [1.0] * 3
