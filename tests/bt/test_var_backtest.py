import itertools
import math
import pickle

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from glow_bt.bt import VaRBacktest
from glow_bt.bt.feed import ArrayFeed
from glow_bt.errors import ConfigError
from glow_bt.risk import (
    acerbi_szekely_test,
    binomial_test,
    christoffersen_test,
    conditional_coverage_test,
    dynamic_quantile_test,
    exponential_tail,
    fz0_loss,
    kupiec_test,
    mcneil_frey_test,
    quantile_loss,
    traffic_light,
)
from tests.bt.market import (
    WINDOW,
    LineProbe,
    WindowScorer,
    cerebro_over,
    random_bars,
    run_strategy,
    scores_of,
)

BARS = random_bars(400)
LEVEL = WindowScorer.var_level
COLUMNS = ["close", "var", "cvar", "next_return", "violation"]
MODES = [
    pytest.param(dict(zip(("preload", "runonce", "exactbars"), mode, strict=True)), id=str(mode))
    for mode in itertools.product([True, False], [True, False], [0, 1, -1, -2])
]


class Bare(bt.Strategy):
    pass


class Scheduled(WindowScorer):
    """Scores like its parent from the first of its starts on."""

    def __init__(self, *starts, bars=BARS):
        super().__init__()
        self.starts = [bars.index[start] for start in starts]

    def score_arrays(self, stamps_ns, bars):
        scores = super().score_arrays(stamps_ns, bars)
        scores[stamps_ns < self.starts[0].value] = np.nan
        return scores


class Patchy(WindowScorer):
    """No forecast in even hours."""

    def score_arrays(self, stamps_ns, bars):
        scores = super().score_arrays(stamps_ns, bars)
        scores[stamps_ns // 3_600_000_000_000 % 2 == 0, 5] = np.nan
        return scores


class Table(WindowScorer):
    """VaR and CVaR as written down for each bar."""

    var_level = 0.25

    def __init__(self, bars, var, cvar):
        super().__init__(1)
        self.rows = {stamp.value: row for stamp, *row in zip(bars.index, var, cvar, strict=True)}

    def score_arrays(self, stamps_ns, bars):
        scores = np.zeros((len(bars), 7))
        scores[:, 5:] = [self.rows[stamp] for stamp in stamps_ns]
        return scores


def cerebro_with(bars=BARS, *, mode=None, **settings):
    cerebro = cerebro_over(bars, **(mode or {}))
    cerebro.addanalyzer(VaRBacktest, _name="it", **settings)
    return cerebro


def analysed(bars=BARS, *, model=None, strategy=LineProbe, mode=None, on=0, **settings):
    cerebro = cerebro_with(bars, mode=mode, **settings)
    params = (
        {"model": model or WindowScorer(), "on": on} if issubclass(strategy, LineProbe) else {}
    )
    return run_strategy(cerebro, strategy, **params).analyzers.it


def flat_bars(closes):
    bars = random_bars(len(closes))
    return bars.assign(**dict.fromkeys(("open", "high", "low", "close"), np.array(closes)))


def due(first=WINDOW - 1, stop=-1, bars=BARS):
    """Return, VaR and CVaR of the forecasts made at bars from first to before stop."""
    returns = np.diff(np.log(bars["close"].to_numpy()), append=np.nan)
    _, _, _, _, _, var, cvar = scores_of(bars).T
    return returns[first:stop], var[first:stop], cvar[first:stop]


def cells_of(returns, var, cvar):
    """Every cell, straight from the tests."""
    hits = returns < var
    risk = (returns, var, cvar, LEVEL)
    z2 = acerbi_szekely_test(*risk, exponential_tail(var, cvar, LEVEL), seed=0)
    return {
        "bars": len(hits),
        "violations": hits.sum(),
        "expected": LEVEL * len(hits),
        "rate": hits.mean(),
        "kupiec_p": kupiec_test(hits, LEVEL).pvalue,
        "binomial_p": binomial_test(hits, LEVEL).pvalue,
        "christoffersen_p": christoffersen_test(hits).pvalue,
        "conditional_coverage_p": conditional_coverage_test(hits, LEVEL).pvalue,
        "dq_p": dynamic_quantile_test(returns, var, LEVEL).pvalue,
        "traffic_light": traffic_light(hits, LEVEL).zone,
        "quantile_loss": quantile_loss(returns, var, LEVEL),
        "mcneil_frey_p": mcneil_frey_test(*risk, scale=-cvar, seed=0).pvalue,
        "acerbi_szekely_z2": z2.statistic,
        "acerbi_szekely_z2_p": z2.pvalue,
        "fz0_loss": fz0_loss(*risk),
        "untested": {},
    }


def assert_cells(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        approximate = isinstance(value, float)
        assert found[name] == (pytest.approx(value, rel=1e-9) if approximate else value), name


def test_a_few_bars_by_hand():
    bars = flat_bars([100.0, 90.0, 99.0, 99.0, 80.0])
    model = Table(bars, [-0.1, -0.05, -0.02, -0.3, -0.1], [-0.2, -0.1, -0.03, -0.5, -0.2])
    analyzer = analysed(bars, model=model)
    # Returns: ln 0.9 = -0.105, ln 1.1 = 0.095, 0, ln (80/99) = -0.213.
    frame = analyzer.frame()
    assert list(frame.columns) == COLUMNS
    assert frame.index.equals(bars.index)
    assert frame["close"].tolist() == [100.0, 90.0, 99.0, 99.0, 80.0]
    expected = [math.log(0.9), math.log(1.1), 0.0, math.log(80 / 99), math.nan]
    np.testing.assert_allclose(frame["next_return"], expected, atol=1e-15)
    np.testing.assert_array_equal(frame["violation"], [1.0, 0.0, 0.0, 0.0, math.nan])
    analysis = analyzer.get_analysis()
    counts = {"level": 0.25, "bars": 4, "violations": 1, "expected": 1.0, "rate": 0.25}
    assert counts.items() <= analysis.items()
    assert analysis["kupiec_pvalue"] == 1.0  # exactly as many as expected
    overall = analysis["overall"]
    assert overall["binomial_p"] == 1.0
    assert overall["traffic_light"] == "green"
    # (p - 1[r < q]) (r - q), added up by hand.
    losses = [
        -0.75 * (math.log(0.9) + 0.1),
        0.25 * (math.log(1.1) + 0.05),
        0.25 * 0.02,
        0.25 * (math.log(80 / 99) + 0.3),
    ]
    assert overall["quantile_loss"] == pytest.approx(sum(losses) / 4, rel=1e-12)
    # 1 - (ln 0.9 / -0.2) / (4 x 0.25)
    assert overall["acerbi_szekely_z2"] == pytest.approx(1.0 + math.log(0.9) / 0.2, rel=1e-12)


def test_it_says_of_the_whole_run_what_the_tests_say():
    analysis = analysed().get_analysis()
    cells = cells_of(*due())
    assert 10 < cells["violations"] < 60
    assert_cells(analysis["overall"], cells)
    old = {"kupiec_pvalue": "kupiec_p", "christoffersen_pvalue": "christoffersen_p"}
    for name in ("bars", "violations", "expected", "rate", *old):
        assert analysis[name] == analysis["overall"][old.get(name, name)]
    assert analysis["level"] == LEVEL
    (fold,) = analysis["folds"]
    assert (fold.pop("from"), fold.pop("until")) == (BARS.index[WINDOW - 1], BARS.index[-2])
    assert fold == analysis["overall"]


def test_each_model_of_a_schedule_is_a_fold():
    analysis = analysed(model=Scheduled(50, 180, 300)).get_analysis()
    assert_cells(analysis["overall"], cells_of(*due(50)))
    bounds = [(50, 180), (180, 300), (300, 399)]
    assert len(analysis["folds"]) == 3
    for fold, (first, stop) in zip(analysis["folds"], bounds, strict=True):
        assert fold.pop("from") == BARS.index[first]
        assert fold.pop("until") == BARS.index[stop - 1]
        assert_cells(fold, cells_of(*due(first, stop)))


def test_a_fold_with_too_few_bars_says_what_its_tests_need():
    folds = analysed(model=Scheduled(20, 380, 392, 399)).get_analysis()["folds"]
    few = folds[2]
    assert few["bars"] == 7
    assert few["traffic_light"] is not None
    assert math.isnan(few["dq_p"])
    assert "dynamic quantile test needs at least 11 bars, found 7" in few["untested"]["dq_p"]
    assert math.isnan(few["mcneil_frey_p"])
    assert "McNeil-Frey test with" in few["untested"]["mcneil_frey_p"]
    none = folds[3]
    assert (none["from"], none["until"], none["bars"]) == (BARS.index[399], None, 0)
    assert none["traffic_light"] is None
    numbers = {name: cell for name, cell in none.items() if name.endswith(("_p", "loss", "rate"))}
    assert len(numbers) == 10
    assert all(math.isnan(cell) for cell in numbers.values())
    assert (none["violations"], none["expected"]) == (0, 0.0)
    assert folds[0]["untested"] == {}


def test_a_schedule_may_begin_before_and_end_after_the_bars():
    model = Scheduled(0, 200, bars=random_bars(600, start="2023-12-20"))
    model.starts.append(pd.Timestamp("2030-01-01", tz="UTC"))
    folds = analysed(model=model).get_analysis()["folds"]
    assert [fold["bars"] for fold in folds] == [0, len(BARS) - WINDOW, 0]
    assert folds[2]["until"] is None


def test_forecasts_before_the_first_start_belong_to_the_first_fold():
    model = WindowScorer()
    model.starts = [BARS.index[i].tz_localize(None) for i in (100, 200)]  # read as UTC
    first, second = analysed(model=model).get_analysis()["folds"]
    assert (first["from"], first["bars"]) == (BARS.index[100], 200 - (WINDOW - 1))
    assert (second["from"], second["bars"]) == (BARS.index[200], 199)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_says_the_same(mode):
    expected, found = analysed(), analysed(mode=mode)
    pd.testing.assert_frame_equal(found.frame(), expected.frame(), rtol=0, atol=1e-9)
    assert_cells(found.get_analysis()["overall"], cells_of(*due()))
    scheduled = Scheduled(50, 200)
    folds = analysed(model=scheduled, mode=mode).get_analysis()["folds"]
    assert [fold["bars"] for fold in folds] == [150, 199]


@pytest.mark.parametrize("mode", MODES)
def test_a_forming_bar_counts_once_it_is_formed(mode):
    cerebro = bt.Cerebro(stdstats=False, **mode)
    cerebro.replaydata(
        ArrayFeed(dataname=BARS), timeframe=bt.TimeFrame.Minutes, compression=240, boundoff=60
    )
    cerebro.addanalyzer(VaRBacktest, _name="it")
    analyzer = run_strategy(cerebro, LineProbe, model=WindowScorer()).analyzers.it
    grouped = BARS.resample("4h")
    whole = grouped.agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    )
    whole = whole.set_axis(whole.index + pd.Timedelta(hours=3))
    returns, var, cvar = due(bars=whole)
    frame = analyzer.frame()
    np.testing.assert_array_equal(frame["close"], whole["close"].iloc[WINDOW - 1 :])
    np.testing.assert_allclose(frame["next_return"][:-1], returns, rtol=0, atol=1e-12)
    np.testing.assert_allclose(frame[["var", "cvar"]][:-1], np.c_[var, cvar], rtol=0, atol=1e-9)
    assert analyzer.get_analysis()["violations"] == (returns < var).sum() > 2


def test_violations_carry_the_stamp_of_their_forecast():
    hits = analysed().violations()
    assert hits.index.equals(BARS.index[WINDOW - 1 : -1])
    returns, var, _ = due()
    np.testing.assert_array_equal(hits, returns < var)


def test_bars_without_a_forecast_are_left_out():
    whole, patchy = analysed(), analysed(model=Patchy())
    expected = whole.violations()[whole.violations().index.hour % 2 == 1]
    pd.testing.assert_series_equal(patchy.violations(), expected)
    assert patchy.frame()["violation"].isna().sum() > 190
    assert patchy.get_analysis()["overall"]["bars"] == len(expected)


@pytest.mark.parametrize("num_bars", [WINDOW - 1, WINDOW, WINDOW + 1])
def test_nothing_to_test_has_no_pvalue(num_bars):
    analyzer = analysed(BARS[:num_bars])
    analysis = analyzer.get_analysis()
    assert analysis["bars"] == max(num_bars - WINDOW, 0)
    assert np.isnan(analysis["kupiec_pvalue"])
    assert np.isnan(analysis["christoffersen_pvalue"])
    assert list(analyzer.frame().columns) == COLUMNS
    assert len(analysis["folds"]) == 1
    assert len(analyzer.violations()) == analysis["bars"]


def test_a_shortfall_that_is_none_leaves_var_tested():
    class NoMean(WindowScorer):
        def score_arrays(self, stamps_ns, bars):
            scores = super().score_arrays(stamps_ns, bars)
            scores[:, 6] = -np.inf
            return scores

    found = analysed(model=NoMean()).get_analysis()["overall"]
    expected = analysed().get_analysis()["overall"]
    assert found["dq_p"] == expected["dq_p"]
    assert np.isnan([found["mcneil_frey_p"], found["acerbi_szekely_z2"], found["fz0_loss"]]).all()
    assert "found NaN or infinity" in found["untested"]["fz0_loss"]


def test_prices_that_have_no_logarithm_have_no_return():
    bars = flat_bars([100.0, 90.0, -1.0, 99.0, 98.0])
    model = Table(bars, [-0.1] * 5, [-0.2] * 5)
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(bt.feeds.PandasData(dataname=bars.tz_localize(None)))
    cerebro.addanalyzer(VaRBacktest, _name="it")
    frame = run_strategy(cerebro, LineProbe, model=model).analyzers.it.frame()
    assert frame["violation"].notna().tolist() == [True, False, False, True, False]


@pytest.mark.parametrize("wanted", ["number", "name", "feed"])
@pytest.mark.parametrize("runonce", [True, False])
def test_another_feed_can_be_chosen(wanted, runonce):
    other = random_bars(300, seed=9)
    cerebro = cerebro_over([BARS, other], runonce=runonce)
    cerebro.datas[1]._name = "other"
    data = {"number": 1, "name": "other", "feed": cerebro.datas[1]}[wanted]
    cerebro.addanalyzer(VaRBacktest, _name="it", data=data)
    analyzer = run_strategy(cerebro, LineProbe, model=WindowScorer(), on=1).analyzers.it
    expected = analysed(other)
    pd.testing.assert_frame_equal(analyzer.frame(), expected.frame(), rtol=0, atol=1e-9)
    assert (
        analyzer.get_analysis()["overall"]["violations"] == expected.get_analysis()["violations"]
    )


def test_a_feed_that_is_none_is_refused():
    for wanted in (1, -1, "gold", None):
        with pytest.raises(ConfigError, match=r"one of the strategy's 1 feeds.*found"):
            analysed(data=wanted)


def test_it_needs_a_model_on_its_feed():
    with pytest.raises(ConfigError, match="expected a GlowIndicator on the strategy's first"):
        analysed(strategy=Bare)
    cerebro = cerebro_over([BARS, BARS])
    cerebro.datas[1]._name = "other"
    cerebro.addanalyzer(VaRBacktest, data=1)
    with pytest.raises(ConfigError, match="GlowIndicator on the strategy's data 'other'"):
        run_strategy(cerebro, LineProbe, model=WindowScorer())


def test_forecasts_over_several_bars_are_tested_without_overlap():
    class ThreeBars(WindowScorer):
        horizon = 3

    analyzer = analysed(model=ThreeBars())
    log_close = np.log(BARS["close"].to_numpy())[WINDOW - 1 :]
    returns = log_close[3:] - log_close[:-3]
    np.testing.assert_allclose(analyzer.frame()["next_return"][:-3], returns, atol=1e-15)
    assert analyzer.frame()["violation"].isna().sum() == 3
    _, var, _ = due(stop=-3)
    np.testing.assert_array_equal(analyzer.violations(), (returns < var)[::3])
    assert analyzer.violations().index.equals(BARS.index[WINDOW - 1 : -3 : 3])
    assert analyzer.get_analysis()["bars"] == len(returns[::3])


def test_the_seed_is_that_of_the_resampling():
    first, again, other = (analysed(seed=seed).get_analysis()["overall"] for seed in (0, 0, 5))
    assert first == again
    assert first["mcneil_frey_p"] != other["mcneil_frey_p"]
    assert first["fz0_loss"] == other["fz0_loss"]


@pytest.mark.parametrize("maxcpus", [1, 2])
def test_it_comes_back_from_an_optimisation(maxcpus):
    cerebro = cerebro_over(BARS, maxcpus=maxcpus)
    cerebro.addanalyzer(VaRBacktest, _name="it", data=cerebro.datas[0])
    cerebro.optstrategy(LineProbe, model=[WindowScorer(), Scheduled(60, 200)])
    plain, scheduled = (run.analyzers.it for [run] in cerebro.run())
    assert plain.get_analysis() == analysed().get_analysis()
    assert [fold["bars"] for fold in scheduled.get_analysis()["folds"]] == [140, 199]
    assert b"LineBuffer" not in pickle.dumps(scheduled)  # nor the feed, by way of its lines
    copy = pickle.loads(pickle.dumps(scheduled))  # noqa: S301
    assert copy.get_analysis() == scheduled.get_analysis()
    pd.testing.assert_frame_equal(copy.frame(), scheduled.frame())


def test_it_can_be_asked_during_the_run():
    class Asking(LineProbe):
        def stop(self):
            self.last = self.analyzers.it.get_analysis()["bars"]

        def next(self):
            super().next()
            if len(self) == 100:
                self.first = self.analyzers.it.get_analysis()["bars"]

    strategy = run_strategy(cerebro_with(), Asking, model=WindowScorer())
    assert (strategy.first, strategy.last) == (99 - WINDOW, len(BARS) - WINDOW)


def test_right_forecasts_pass_in_a_run_and_narrow_ones_do_not():
    rng = np.random.default_rng(4)
    bars = flat_bars(100.0 * np.exp(np.cumsum(0.01 * rng.standard_normal(1500))))
    var, cvar = -0.00674490, -0.01271111  # a normal quarter quantile, and the mean below it
    right = analysed(bars, model=Table(bars, [var] * 1500, [cvar] * 1500)).get_analysis()
    narrow = analysed(
        bars, model=Table(bars, [0.7 * var] * 1500, [0.7 * cvar] * 1500)
    ).get_analysis()
    for name in ("kupiec_p", "conditional_coverage_p", "mcneil_frey_p", "acerbi_szekely_z2_p"):
        assert right["overall"][name] > 0.01
    assert narrow["overall"]["kupiec_p"] < 1e-4
    assert narrow["overall"]["acerbi_szekely_z2_p"] < 0.01
    assert narrow["overall"]["traffic_light"] != "green"
    assert narrow["overall"]["fz0_loss"] > right["overall"]["fz0_loss"]
