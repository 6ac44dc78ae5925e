import json

import numpy as np
import pandas as pd
import pytest

from glow_bt.errors import ConfigError, MissingExtraError, ResultsError, TooFewBarsError
from glow_bt.folds import walk_forward_folds
from glow_bt.scoring import Scorer
from glow_bt.training import TrainConfig, train
from glow_bt.training.search import search, untested_bars
from glow_bt.training.search_gains import (
    OBJECTIVES,
    gains_by_fold,
    search_folds,
    validation_stamps,
)
from glow_bt.training.search_space import DEFAULT_SPACE, SearchSpace
from tests.models import small_config, sp500_bars

pytest.importorskip("optuna")

SPACE = SearchSpace(
    {"hidden_dim": [4, 8], "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}}
)
CONFIG = small_config(max_epochs=1)


def seek(out, trials, bars=None, **changes):
    settings = {"space": SPACE, "config": CONFIG, "n_folds": 1, "seed": 3} | changes
    return search(sp500_bars(0, 1200) if bars is None else bars, out, trials=trials, **settings)


def made_up(bars, folds, config, objective, progress):
    """Gains that hang on the settings and differ from bar to bar, without any training."""
    for fold in folds:
        noise = np.random.default_rng(config.hidden_dim).normal(size=len(fold.test) - 1)
        yield noise - 1e3 * abs(config.learning_rate - 4e-3)


@pytest.fixture
def untrained(monkeypatch):
    monkeypatch.setattr("glow_bt.training.search.gains_by_fold", made_up)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("search") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glow_bt.training.search.gains_by_fold", made_up)
        return out, seek(out, 14)


def test_an_interrupted_search_goes_on_to_the_same_result(found, tmp_path, monkeypatch):
    def killed(bars, folds, config, objective, progress):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("glow_bt.training.search.gains_by_fold", made_up)
        seek(tmp_path, 12)
        patch.setattr("glow_bt.training.search.gains_by_fold", killed)
        with pytest.raises(KeyboardInterrupt):
            seek(tmp_path, 14)
        patch.setattr("glow_bt.training.search.gains_by_fold", made_up)
        result = seek(tmp_path, 14)
    result.trials.index = found[1].trials.index  # the one that was killed has a number too
    pd.testing.assert_frame_equal(result.trials, found[1].trials)
    np.testing.assert_array_equal(result.gains, found[1].gains)
    assert (tmp_path / "best.json").read_bytes() == (found[0] / "best.json").read_bytes()


def test_the_best_trial_has_the_largest_mean_gain(found):
    _, result = found
    means = result.gains.mean(axis=0)
    assert result.value == pytest.approx(means.max())
    complete = result.trials[result.trials["state"] == "complete"]
    row = complete.iloc[int(means.argmax())]
    assert result.config.hidden_dim == row["hidden_dim"]
    assert result.config.learning_rate == row["learning_rate"]


def test_what_is_written_is_what_was_found(found):
    out, result = found
    best = json.loads((out / "best.json").read_text())
    assert TrainConfig(**best["config"]) == result.config
    assert best["search"] == {**result.record(), "value": result.value}
    assert best["search"]["trials"] == 14
    assert best["search"]["bars_until"] == sp500_bars(0, 1200).index[-1].isoformat()
    assert 0.0 <= best["search"]["pbo"] <= 1.0
    with np.load(out / "gains.npz") as stored:
        np.testing.assert_array_equal(stored["gains"], result.gains)
        np.testing.assert_array_equal(stored["stamps_ns"], result.stamps.as_unit("ns").asi8)
    assert len(pd.read_csv(out / "trials.csv")) == 14


def test_a_folder_of_another_search_is_refused(found, untrained):
    with pytest.raises(ResultsError, match="a search of the same objective"):
        seek(found[0], 15, objective="quantile-loss")


def test_no_bar_after_the_first_test_border_is_handed_over():
    bars = sp500_bars(0, 2000)
    past = untested_bars(bars, 0.6)
    first = walk_forward_folds(len(bars), 4, purge=62, test_fraction=0.6)[0].test.start
    assert len(past) == first
    folds = search_folds(past, CONFIG, 1, 0.1)
    assert folds[-1].test.stop == len(past)
    assert validation_stamps(past, folds)[-1] < bars.index[first]


def test_gains_are_those_of_a_model_that_has_not_seen_the_span(monkeypatch):
    bars = sp500_bars(0, 1200)
    (fold,) = search_folds(bars, CONFIG, 1, 0.5)
    trained = []

    def train_once(known, settings, *, progress):
        assert known.index[-1] < bars.index[fold.test.start]
        if not trained:
            trained.append(train(known, settings))
        return trained[0]

    monkeypatch.setattr("glow_bt.training.search_gains.train", train_once)
    gains = {kind: next(gains_by_fold(bars, [fold], CONFIG, kind)) for kind in OBJECTIVES}
    for values in gains.values():
        assert len(values) == len(validation_stamps(bars, [fold])) == len(fold.test) - 1

    until = trained[0].training.trained_until
    assert until < bars.index[fold.validation.stop] < bars.index[fold.test.start]
    scorer, now = Scorer(trained[0]), fold.test.start + 7
    window = bars.iloc[now - scorer.min_bars + 1 : now + 1]
    came = np.log(bars["close"].iloc[now + 1] / bars["close"].iloc[now])
    forecast = scorer.distribution(window)
    density = float(forecast.log_prob(np.array([came]))[0])
    state = scorer.score(window)["log_prob"].iloc[-1]
    assert gains["likelihood"][7] == pytest.approx(state + density, rel=1e-9)
    losses = []
    for p in (0.01, 0.05):
        quantile = float(forecast.quantile(p)[0])
        losses.append((p - (came < quantile)) * (came - quantile))
    assert gains["quantile-loss"][7] == pytest.approx(-np.mean(losses), rel=1e-9)


def test_trials_that_fall_behind_are_pruned_and_counted(tmp_path, monkeypatch):
    def gains(bars, folds, config, objective, progress):
        for _ in folds:
            yield np.full(40, -config.learning_rate) + np.linspace(0.0, 1e-4, 40)

    monkeypatch.setattr("glow_bt.training.search.gains_by_fold", gains)
    told = []
    bars = sp500_bars(0, 1900)
    result = seek(tmp_path, 30, bars, n_folds=2, told=lambda *words: told.append(words))
    states = result.trials["state"].value_counts()
    assert states.sum() == len(told) == result.record()["trials"] == 30
    assert states["pruned"] > 0
    assert result.gains.shape[1] == states["complete"]
    assert result.config.learning_rate == result.trials["learning_rate"].min()


def test_a_setting_that_is_no_model_is_a_failed_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "glow_bt.training.search.gains_by_fold",
        lambda bars, folds, config, *rest: iter([np.arange(40.0) * config.num_regimes]),
    )
    space = SearchSpace({"regime_method": ["gmm", "base"], "num_regimes": [1, 2, 3]})
    result = seek(tmp_path, 8, space=space)
    failed = result.trials["state"] == "failed"
    assert failed.any()
    assert (result.trials["regime_method"][failed] == "base").all()
    assert result.config.regime_method == "gmm"


def test_the_default_space_is_of_settings_there_are():
    assert set(SearchSpace(DEFAULT_SPACE).ranges) <= set(TrainConfig.names())


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({}, "a search space such as"),
        ({"hidden": [1]}, "among .*hidden_dim.*found 'hidden'"),
        ({"train_until": ["2001-01-01"]}, "found 'train_until'"),
        ({"noise": {"low": 1, "high": 0}}, "low below high"),
        ({"noise": {"low": 0, "high": 1, "log": True}}, "low below high"),
        ({"noise": []}, "a list of values"),
    ],
)
def test_ranges_that_are_none_are_refused(ranges, message):
    with pytest.raises(ConfigError, match=message):
        SearchSpace(ranges)


def test_a_file_that_is_no_space_is_refused(tmp_path):
    file = tmp_path / "space.json"
    file.write_text("{")
    with pytest.raises(ConfigError, match="as a JSON file"):
        SearchSpace.read(file)


def test_wrong_calls_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least 1 trial"):
        seek(tmp_path, 0)
    with pytest.raises(ConfigError, match="an objective among"):
        seek(tmp_path, 1, objective="sharpe")
    with pytest.raises(TooFewBarsError, match="1 folds with purge 62"):
        seek(tmp_path, 1, sp500_bars(0, 300))
    with pytest.raises(ConfigError, match="test_fraction"):
        untested_bars(sp500_bars(0, 300), 1.0)


def test_without_optuna_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"glow-bt\[search\]"):
        seek(tmp_path, 1)
