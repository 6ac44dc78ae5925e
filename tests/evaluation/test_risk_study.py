"""Who forecasts what from where: alignment, no look-ahead, and input that cannot be studied."""

from dataclasses import replace

import numpy as np
import pytest

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.evaluation.risk_study import RISK_LEVELS, check_baselines, run_risk_study
from glow_bt.features import ContextSpec
from glow_bt.folds import walk_forward_folds
from glow_bt.ohlcv import bars_sha256
from glow_bt.risk import BASELINES
from glow_bt.training import TrainConfig, return_bars_needed
from tests.evaluation.risk_studies import CHEAP, fake_flow, made_up_study, small_study
from tests.models import small_config, sp500_bars

BARS = sp500_bars(0, 800)


@pytest.fixture(scope="module")
def study():
    return small_study()


def test_every_model_forecasts_the_return_into_each_test_bar(study):
    folds = walk_forward_folds(800, 2, purge=62)
    into = np.log(BARS["close"]).diff()
    tested = [bar for fold in folds for bar in fold.test]
    assert list(study.forecasts) == ["flow", "flow_recalibrated", *CHEAP]
    for own in study.forecasts.values():
        np.testing.assert_array_equal(own.returns, into.iloc[tested])
        assert own.levels == RISK_LEVELS
    assert list(study.stamps) == list(BARS.index[[bar - 1 for bar in tested]])
    assert list(study.bounds) == [BARS.index[fold.test.start - 1] for fold in folds]


def test_a_baseline_is_estimated_on_everything_before_its_test_span(study):
    returns = np.log(BARS["close"]).diff().to_numpy()[1:]
    gaussian = study.forecasts["gaussian"]
    for fold, start in zip(walk_forward_folds(800, 2, purge=62), (0, 240), strict=True):
        # The return into the last bar before the test span is the newest that counts.
        past = returns[: fold.test.start - 1]
        mean, spread = past.mean(), past.std()
        expected = mean + spread * -1.6448536269514722
        assert gaussian.quantile(0.05)[start] == pytest.approx(expected, rel=1e-9)
        assert fold.test.start - 320 == start


def test_later_bars_change_no_earlier_forecast(study):
    bars = BARS.copy()
    cut = 700
    bars.iloc[cut:] *= 2.0
    changed = small_study(bars)
    known = study.stamps < BARS.index[cut]
    assert 0 < known.sum() < len(known)
    for name, own in study.forecasts.items():
        other = changed.forecasts[name]
        np.testing.assert_array_equal(own.quantiles[known], other.quantiles[known])
        np.testing.assert_array_equal(own.shortfalls[known], other.shortfalls[known])


def test_the_manifest_says_where_the_numbers_come_from(study):
    known = study.manifest
    assert known["bars"]["sha256"] == bars_sha256(BARS)
    assert known["bars"]["count"] == 800
    assert known["baselines"] == list(CHEAP)
    assert [fold["bars"] for fold in known["folds"]] == [240, 240]
    assert known["folds"][1]["tested_from"] == BARS.index[560].isoformat()
    assert known["flow"]["seed"] == known["seed"] == 0
    assert {"glow_bt", "python", "numpy", "arch"} <= set(known["versions"])


def test_settings_and_seed_reach_the_flow():
    seen = []

    def flow(*args, config, progress):
        seen.append(config)
        return fake_flow(*args, config=config, progress=progress)

    assert small_study(flow=flow, seed=7).manifest["flow"]["seed"] == 7
    small_study(flow=flow, config=small_config(seed=3))
    assert seen[0].seed == 7
    assert seen[1] == small_config(seed=3)


def test_progress_names_each_model():
    told = []
    small_study(progress=lambda *step: told.append(step))
    assert told == [
        ("flow", 2, 2),
        ("gaussian", 1, 2),
        ("gaussian", 2, 2),
        ("historical", 1, 2),
        ("historical", 2, 2),
    ]


@pytest.mark.parametrize("fault", ["shifted", "short", "levels"])
def test_a_flow_that_forecasts_something_else_is_refused(fault):
    def flow(bars, folds, levels, **others):
        first, second = fake_flow(bars, folds, levels, **others)
        if fault == "shifted":
            return first, replace(second, returns=np.roll(second.returns, 1))
        if fault == "short":
            return first.rows(slice(0, -1)), second
        return fake_flow(bars, folds, (0.01, 0.99), **others)

    with pytest.raises(DataError, match="return from bar t to t \\+ 1 at the close of bar t"):
        small_study(flow=flow)


def test_too_few_bars_says_how_many_are_needed():
    with pytest.raises(TooFewBarsError, match=r"8 folds .* needs at least") as error:
        run_risk_study(BARS[:300], flow=fake_flow)
    enough = sp500_bars(0, error.value.needed)
    assert len(small_study(enough, n_folds=8).stamps) >= 400
    with pytest.raises(TooFewBarsError):
        run_risk_study(enough[:-1], flow=fake_flow)


@pytest.mark.parametrize("levels", [(0.0, 0.99), (0.05, 0.01), (0.5,), ()])
def test_levels_that_are_none_are_refused(levels):
    with pytest.raises(ConfigError, match="expected levels"):
        small_study(levels=levels)


@pytest.mark.parametrize("settings", [{"n_folds": 0}, {"test_fraction": 1.0}])
def test_folds_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigError, match="expected"):
        small_study(**settings)


def test_unknown_baselines_are_told_who_there_is():
    with pytest.raises(ConfigError, match=r"garch_t.* found garchx; name"):
        check_baselines(["gaussian", "garchx"])
    with pytest.raises(ConfigError, match="found none"):
        small_study(baselines=())
    assert check_baselines(None) == list(BASELINES)
    assert check_baselines(["ewma", "ewma"]) == ["ewma"]


def test_constant_prices_are_refused():
    bars = BARS.copy()
    bars[["open", "high", "low", "close"]] = 100.0
    with pytest.raises(DataError, match="closes that change, found the same close at all 800"):
        small_study(bars)


def test_a_halted_market_runs():
    bars = BARS.copy()
    rows, last = bars.index[500:520], bars["close"].iloc[499]
    bars.loc[rows, ["open", "high", "low", "close"]] = last
    bars.loc[rows, "volume"] = 0.0
    study = small_study(bars, baselines=("ewma", "garch_t"))
    assert (study.forecasts["garch_t"].returns == 0.0).sum() >= 20
    for own in study.forecasts.values():
        assert np.isfinite(own.quantiles).all()
        assert np.isfinite(own.log_prob).all()


def test_forecasts_and_stamps_belong_together():
    study = made_up_study(100)
    with pytest.raises(DataError, match="expected 99 forecasts of each model"):
        replace(study, stamps=study.stamps[:-1])
    with pytest.raises(DataError, match=r"found \{\}"):
        replace(study, forecasts={})


def test_the_flow_has_bars_enough_where_the_message_says_so(monkeypatch):
    """The default flow's need is part of the number, so that nobody has to ask twice."""
    with pytest.raises(TooFewBarsError) as error:
        run_risk_study(BARS.iloc[:500], n_folds=2, baselines=["gaussian"])
    spec, config = ContextSpec(), TrainConfig()
    for count, suffices in ((error.value.needed, True), (error.value.needed - 1, False)):
        folds = walk_forward_folds(count, 2, purge=62)
        past = folds[0].test.start - folds[0].train.start
        assert (past >= return_bars_needed(spec, config)) >= suffices


def test_a_level_that_no_return_is_expected_beyond_is_refused_before_any_work():
    with pytest.raises(TooFewBarsError, match=r"testing the level 1e-07 needs at least 16666667"):
        run_risk_study(BARS, levels=(1e-7, 0.05), n_folds=2, baselines=CHEAP, flow=fake_flow)
