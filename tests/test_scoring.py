import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from glow_bt.artifact import save_artifact
from glow_bt.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    LookAheadError,
    TooFewBarsError,
)
from glow_bt.features import FeatureSpec, compute_features, last_features, volatility_array
from glow_bt.scoring import SCORE_COLUMNS, BarScorer, ScheduledScorer, Scorer, open_scorer
from glow_bt.training import train
from tests.models import SMALL_BARS, small_artifact, small_config, sp500_bars, unseen_bars, utc

WARM_UP = 61
COUNT = 240


@pytest.fixture(scope="module")
def bars():
    return unseen_bars(COUNT)


@pytest.fixture(scope="module")
def scorer():
    return Scorer(small_artifact())


@pytest.fixture(scope="module")
def scores(scorer, bars):
    return scorer.score(bars)


@pytest.fixture(scope="module")
def later():
    """A model trained 100 bars later, which other windows and thresholds tell apart."""
    config = small_config(seed=1, false_alarm_rate=0.2)
    return train(sp500_bars(100, SMALL_BARS + 100), config, previous=small_artifact())


def arrays(bars):
    return bars.index.as_unit("ns").asi8, bars.to_numpy()


def test_scores_are_a_float_frame_on_the_bars_own_index_with_a_warm_up(scores, bars):
    assert tuple(scores.columns) == SCORE_COLUMNS
    names = "log_prob confidence in_distribution direction regime var cvar"
    assert names.split() == list(SCORE_COLUMNS)
    assert (scores.dtypes == np.float64).all()
    assert scores.index.equals(bars.index)
    assert scores.iloc[:WARM_UP].isna().all().all()
    assert np.isfinite(scores.iloc[WARM_UP:].to_numpy()).all()
    assert len(scores) == COUNT + WARM_UP


def test_scores_are_what_their_names_say(scores, bars):
    model, scored = small_artifact(), scores.iloc[WARM_UP:]
    features = compute_features(bars).to_numpy()[WARM_UP:]
    x = torch.from_numpy((features - model.scaler.centre) / model.scaler.scale)
    volatility = volatility_array(bars["close"].to_numpy())[WARM_UP:]
    z, _ = model.state_flow(x)

    log_prob = model.state_flow.log_prob(x).numpy() - np.log(model.scaler.scale).sum()
    np.testing.assert_allclose(scored["log_prob"], log_prob, rtol=1e-12)
    held_out = model.likelihood.quantiles
    ranks = np.interp(log_prob, held_out, np.linspace(0, 1, len(held_out)))
    np.testing.assert_allclose(scored["confidence"], ranks, atol=1e-12)
    inside = (log_prob >= model.likelihood.low) & (log_prob <= model.likelihood.high)
    np.testing.assert_array_equal(scored["in_distribution"], inside.astype(float))
    np.testing.assert_allclose(scored["direction"], model.direction(z.numpy()), atol=1e-12)
    np.testing.assert_array_equal(scored["regime"], model.regime_of(z.numpy()))
    quantile = model.return_flow.quantile(0.01, x).numpy()
    np.testing.assert_allclose(scored["var"], quantile * volatility, rtol=1e-12)
    shortfall = model.return_flow.expected_shortfall(0.01, x).numpy()
    np.testing.assert_allclose(scored["cvar"], shortfall * volatility, rtol=1e-12)


def test_the_fixture_moves_every_column(scores):
    scored = scores.iloc[WARM_UP:]
    assert (scored[["log_prob", "confidence", "direction", "var", "cvar"]].nunique() > 50).all()
    assert set(scored["in_distribution"]) == {0.0, 1.0}
    assert len(set(scored["regime"])) > 1


def test_risk_is_a_loss_and_the_shortfall_lies_below_it(scores):
    scored = scores.iloc[WARM_UP:]
    assert (scored["var"] < 0).all()
    assert (scored["cvar"] < scored["var"]).all()
    assert scored["direction"].abs().max() <= 1
    assert scored["confidence"].between(0, 1).all()


def test_each_bar_alone_scores_as_it_does_in_the_whole_history(scorer, scores, bars):
    stamps, array = arrays(bars)
    for last in range(WARM_UP, len(bars), 3):
        window = slice(last - WARM_UP, last + 1)
        alone = scorer.score_arrays(stamps[window], array[window])
        assert np.isnan(alone[:-1]).all()
        np.testing.assert_allclose(alone[-1], scores.iloc[last], rtol=1e-12, atol=1e-14)


@given(st.integers(0, COUNT), st.integers(1, COUNT))
@settings(max_examples=30)
def test_a_history_may_begin_and_end_anywhere(start, length):
    scorer, bars = Scorer(small_artifact()), unseen_bars(COUNT)
    part = slice(start, start + length + WARM_UP)
    if len(bars.iloc[part]) > WARM_UP:
        whole = scorer.score(bars).iloc[part].iloc[WARM_UP:]
        scored = scorer.score(bars.iloc[part]).iloc[WARM_UP:]
        np.testing.assert_allclose(scored, whole, rtol=1e-12, atol=1e-14)


def test_no_score_depends_on_a_later_bar_or_one_before_its_window(scorer, scores, bars):
    row = WARM_UP + 100
    others = bars.copy()
    others.iloc[row + 1 :] *= [3.0] * 4 + [5.0]
    others.iloc[: row - WARM_UP] *= [0.2] * 4 + [9.0]
    moved = scorer.score(others)
    np.testing.assert_allclose(moved.iloc[row], scores.iloc[row], rtol=1e-12, atol=1e-14)
    assert not np.allclose(moved.iloc[row + 1], scores.iloc[row + 1])
    assert not np.allclose(moved.iloc[row - 1], scores.iloc[row - 1])


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_the_size_of_blocks_changes_nothing(scorer, scores, bars, monkeypatch, rows):
    monkeypatch.setattr("glow_bt.scoring._BLOCK_ROWS", rows)
    np.testing.assert_allclose(scorer.score(bars), scores, rtol=1e-12, atol=1e-14)
    assert len(scorer.latents(bars)) == COUNT


def test_arrays_shorter_than_a_window_have_no_score(scorer, bars):
    stamps, array = arrays(bars)
    for length in (0, 1, WARM_UP):
        short = scorer.score_arrays(stamps[:length], array[:length])
        assert short.shape == (length, 7)
        assert np.isnan(short).all()


def test_a_frame_shorter_than_a_window_is_refused(scorer, bars):
    with pytest.raises(TooFewBarsError, match="scoring needs at least 62 bars, found 61"):
        scorer.score(bars.iloc[:WARM_UP])
    assert scorer.min_bars == WARM_UP + 1


def test_bars_that_break_the_contract_are_refused(scorer, bars):
    broken = bars.copy()
    broken.iloc[100, 3] = -1.0
    with pytest.raises(DataError, match="positive prices"):
        scorer.score(broken)


@pytest.mark.parametrize("what", ["score", "latents", "value_at_risk", "score_arrays"])
def test_bars_of_the_training_interval_are_refused_unless_asked_for(what):
    first_new = small_artifact().training.n_bars
    seen = sp500_bars(first_new - 1 - WARM_UP, first_new + 50)

    def ask(scorer, bars):
        if what == "score_arrays":
            return scorer.score_arrays(*arrays(bars))
        return getattr(scorer, what)(bars, *([0.01],) * (what == "value_at_risk"))

    strict = Scorer(small_artifact())
    until = small_artifact().training.trained_until
    with pytest.raises(LookAheadError, match=rf"expected bars after {until:%Y-%m-%d}.*61 bars"):
        ask(strict, seen)
    ask(strict, seen.iloc[1:])
    allowed = np.asarray(ask(Scorer(small_artifact(), allow_training_bars=True), seen))
    new = np.asarray(ask(strict, seen.iloc[1:]))
    np.testing.assert_allclose(allowed[-40:], new[-40:], rtol=1e-12, atol=1e-14)


def test_latents_are_those_of_the_state_flow(scorer, bars):
    latents = scorer.latents(bars)
    assert list(latents.columns) == [f"z{i}" for i in range(1, 17)]
    assert latents.index.equals(bars.index[WARM_UP:])
    model = small_artifact()
    x = model.scaler.transform(compute_features(bars).to_numpy()[WARM_UP:])
    z, _ = model.state_flow(torch.from_numpy(x))
    np.testing.assert_allclose(latents, z.numpy(), rtol=1e-12, atol=1e-13)
    back, _ = model.state_flow.inverse(torch.from_numpy(latents.to_numpy().copy()))
    np.testing.assert_allclose(back.numpy(), x, atol=1e-9)


def test_value_at_risk_at_the_scorers_level_is_its_var_to_the_bit(bars):
    levels = [0.001, 0.01, 0.05, 0.5]
    table = Scorer(small_artifact()).value_at_risk(bars, levels)
    assert list(table.columns) == levels
    assert table.iloc[:WARM_UP].isna().all().all()
    for level in levels:
        var = Scorer(small_artifact(), var_level=level).score(bars)["var"]
        np.testing.assert_array_equal(table[level], var)
    assert (table.iloc[WARM_UP:].diff(axis=1).iloc[:, 1:] > 0).all().all()


def test_var_is_the_quantile_of_the_next_log_return(bars):
    """The distribution function of the next return is the level where VaR is."""
    model = small_artifact()
    table = Scorer(model).value_at_risk(bars, [0.01, 0.05]).iloc[WARM_UP:]
    x = torch.from_numpy(model.scaler.transform(compute_features(bars).to_numpy()[WARM_UP:]))
    volatility = volatility_array(bars["close"].to_numpy())[WARM_UP:]
    for level in (0.01, 0.05):
        scaled = torch.from_numpy(table[level].to_numpy() / volatility)[:, None]
        np.testing.assert_allclose(model.return_flow.cdf(scaled, x), level, rtol=1e-9)


def test_cvar_is_the_mean_below_var(scores, bars):
    """By drawing from the flow: 400,000 returns after one bar."""
    model, row = small_artifact(), WARM_UP + 17
    window = bars.iloc[row - WARM_UP : row + 1].to_numpy()
    x = torch.from_numpy(model.scaler.transform(last_features(window))[None])
    generator = torch.Generator().manual_seed(0)
    drawn = model.return_flow.sample(400_000, x, generator=generator)[:, 0].numpy()
    returns = drawn * volatility_array(window[:, 3])[-1]
    var, cvar = scores["var"].iloc[row], scores["cvar"].iloc[row]
    below = returns[returns < var]
    assert (returns < var).mean() == pytest.approx(0.01, abs=6e-4)
    assert below.mean() == pytest.approx(cvar, abs=4 * below.std() / np.sqrt(len(below)))


def simulated_market(model, steps, seed):
    """Bars whose every close is drawn from the model's own next-bar distribution."""
    rng = np.random.default_rng(seed)
    window = unseen_bars(1).to_numpy()
    flow, bars = model.return_flow, list(window)
    # A level's standard quantile is the normal one through the inverse tail layer.
    latents = torch.from_numpy(rng.normal(size=(steps, 1)))
    shocks = flow.tails.inverse(latents)[0][:, 0].numpy()
    for shock, noise in zip(shocks, rng.normal(0, 0.3, (steps, 3)), strict=True):
        recent = np.array(bars[-WARM_UP - 1 :])
        state = model.scaler.transform(last_features(recent))[None]
        spread = model.read(state).spread[0]
        volatility = volatility_array(recent[:, 3])[-1]
        before = recent[-1, 3]
        close = before * np.exp(volatility * (float(flow.location) + spread * shock))
        wick = np.exp(np.abs(volatility * noise[:2]))
        high, low = max(before, close) * wick[0], min(before, close) / wick[1]
        bars.append(np.array([before, high, low, close, np.exp(noise[2]) * 1e9]))
    index = pd.date_range("2010-01-01", periods=len(bars), freq="D", tz="UTC", name="timestamp")
    return pd.DataFrame(bars, index=index, columns=["open", "high", "low", "close", "volume"])


def test_on_a_market_drawn_from_the_model_var_is_violated_as_often_as_it_says():
    steps, levels = 800, [0.05, 0.25]
    market = simulated_market(small_artifact(), steps, seed=1)
    var = Scorer(small_artifact()).value_at_risk(market, levels)
    log_return = np.diff(np.log(market["close"].to_numpy()))
    for level in levels:
        violated = (log_return < var[level].to_numpy()[:-1])[WARM_UP:]
        assert len(violated) == steps
        low, high = binom.interval(0.999, steps, level)
        assert low <= violated.sum() <= high


def test_var_levels_outside_0_and_a_half_are_refused(bars):
    for level in (0.0, 0.51, -0.01, float("nan")):
        with pytest.raises(ConfigError, match=r"VaR level inside \(0, 0.5\]"):
            Scorer(small_artifact(), var_level=level)
        with pytest.raises(ConfigError, match=r"VaR level inside \(0, 0.5\]"):
            Scorer(small_artifact()).value_at_risk(bars, [0.01, level])


def test_a_mixture_base_scores_too(bars):
    model = train(
        sp500_bars(0, SMALL_BARS),
        small_config(base="mixture", regime_method="base", max_epochs=1),
    )
    regime = Scorer(model).score(bars)["regime"].iloc[WARM_UP:]
    assert set(regime) <= {0.0, 1.0, 2.0}


def test_a_schedule_scores_each_bar_with_the_model_valid_then(later, bars):
    first, second = bars.index[WARM_UP + 30], bars.index[WARM_UP + 130]
    schedule = [(first, small_artifact()), (second, later)]
    scores = ScheduledScorer(schedule).score(bars)
    assert tuple(scores.columns) == SCORE_COLUMNS
    assert scores[: first - pd.Timedelta(1)].isna().all().all()
    for model, rows in (
        (small_artifact(), slice(WARM_UP + 30, WARM_UP + 130)),
        (later, slice(WARM_UP + 130, None)),
    ):
        alone = Scorer(model, allow_training_bars=True).score(bars)
        np.testing.assert_allclose(scores.iloc[rows], alone.iloc[rows], rtol=1e-12, atol=1e-14)
        others = (
            slice(WARM_UP + 30, WARM_UP + 130) if model is later else slice(WARM_UP + 130, None)
        )
        assert not np.allclose(scores["log_prob"].iloc[others], alone["log_prob"].iloc[others])


def test_a_schedule_scores_a_bar_alone_as_in_the_whole_history(later, bars):
    second = bars.index[WARM_UP + 120]
    scheduled = ScheduledScorer([(bars.index[WARM_UP + 5], small_artifact()), (second, later)])
    stamps, array = arrays(bars)
    whole = scheduled.score_arrays(stamps, array)
    for last in range(WARM_UP, len(bars), 5):
        window = slice(last - WARM_UP, last + 1)
        alone = scheduled.score_arrays(stamps[window], array[window])
        np.testing.assert_allclose(alone[-1], whole[last], rtol=1e-12, atol=1e-14)


def test_a_schedule_may_begin_before_between_or_after_the_bars(later, bars):
    start, end = bars.index[0], bars.index[-1]
    day = pd.Timedelta(days=1)
    both = ScheduledScorer(
        [(start - 9 * day, small_artifact()), (start - day, later)], allow_training_bars=True
    )
    alone = Scorer(later, allow_training_bars=True).score(bars)
    np.testing.assert_allclose(both.score(bars), alone, rtol=1e-12, atol=1e-14)
    none_yet = ScheduledScorer([(end + day, small_artifact())]).score(bars)
    assert none_yet.isna().all().all()
    last_only = ScheduledScorer([(end, small_artifact())]).score(bars)
    assert last_only.notna().all(axis=1).tolist() == [False] * (len(bars) - 1) + [True]


def test_a_schedule_needs_the_longest_of_its_windows(bars):
    spec = FeatureSpec(long=80)
    other = train(sp500_bars(0, 800), small_config(max_epochs=1), spec=spec)
    valid = [bars.index[WARM_UP + 10], other.training.trained_until + pd.Timedelta(days=1)]
    scheduled = ScheduledScorer(list(zip(valid, [small_artifact(), other], strict=True)))
    assert scheduled.min_bars == spec.min_bars == WARM_UP + 21
    scores = scheduled.score(bars)
    assert scores.notna().all(axis=1).argmax() == spec.min_bars - 1
    assert scores.iloc[spec.min_bars - 1 :].notna().all().all()
    stamps, array = arrays(bars)
    window = slice(150 - spec.min_bars + 1, 151)
    alone = scheduled.score_arrays(stamps[window], array[window])[-1]
    np.testing.assert_allclose(alone, scores.iloc[150], rtol=1e-12, atol=1e-14)


def test_a_model_in_force_on_bars_of_its_training_is_refused(bars):
    until = small_artifact().training.trained_until
    with pytest.raises(LookAheadError, match=r"trained before its valid_from .*; move valid_from"):
        ScheduledScorer([(until, small_artifact())])
    ScheduledScorer([(until + pd.Timedelta(1), small_artifact())])
    ScheduledScorer([(until, small_artifact())], allow_training_bars=True)


def test_a_schedule_out_of_order_or_empty_is_refused(later):
    day = utc("2005-01-01")
    with pytest.raises(ConfigError, match="at least one model"):
        ScheduledScorer([])
    for second in (day, day - pd.Timedelta(days=1)):
        with pytest.raises(ConfigError, match="ascending order"):
            ScheduledScorer([(day, small_artifact()), (second, later)])


def test_stamps_of_a_schedule_without_zone_are_utc(bars):
    naive = bars.index[WARM_UP + 50].tz_localize(None)
    elsewhere = bars.index[WARM_UP + 50].tz_convert("Asia/Tokyo")
    for stamp in (naive, elsewhere):
        assert ScheduledScorer([(stamp, small_artifact())]).starts == [bars.index[WARM_UP + 50]]


def test_open_scorer_takes_whatever_names_a_model(tmp_path, later, bars):
    save_artifact(small_artifact(), tmp_path / "model")
    save_artifact(later, tmp_path / "later")
    expected = Scorer(small_artifact(), var_level=0.05).score(bars)
    for model in (tmp_path / "model", str(tmp_path / "model"), small_artifact()):
        opened = open_scorer(model, var_level=0.05)
        assert isinstance(opened, Scorer)
        np.testing.assert_array_equal(opened.score(bars), expected)
    second = bars.index[WARM_UP + 130]
    schedule = [(bars.index[0], small_artifact()), (second, str(tmp_path / "later"))]
    scheduled = open_scorer(schedule, var_level=0.05, allow_training_bars=True)
    assert isinstance(scheduled, ScheduledScorer)
    rows = slice(WARM_UP, WARM_UP + 130)
    np.testing.assert_allclose(
        scheduled.score(bars).iloc[rows], expected.iloc[rows], rtol=1e-12, atol=1e-14
    )
    text = open_scorer([(str(second), small_artifact())])
    assert text.starts == [second]


def test_open_scorer_returns_any_scorer_as_it_is(scorer):
    class Constant:
        min_bars = 3

        def score_arrays(self, stamps_ns, bars):
            return np.zeros((len(bars), 7))

    assert isinstance(Constant(), BarScorer)
    for given_scorer in (
        scorer,
        Constant(),
        ScheduledScorer([(utc("2010-01-01"), small_artifact())]),
    ):
        assert open_scorer(given_scorer) is given_scorer


def test_open_scorer_looks_ahead_no_more_than_asked(bars):
    seen = sp500_bars(0, 300)
    with pytest.raises(LookAheadError):
        open_scorer(small_artifact()).score_arrays(*arrays(seen))
    open_scorer(small_artifact(), allow_training_bars=True).score_arrays(*arrays(seen))


@pytest.mark.parametrize(
    "wrong",
    [3, None, 1.5, ["model"], [("2020-01-01",)], [("soon", "model")], {"a": "b"}, [(1, 2, 3)]],
)
def test_open_scorer_refuses_what_names_no_model(wrong):
    with pytest.raises(ConfigError, match="expected model= an artifact folder"):
        open_scorer(wrong)


def test_open_scorer_says_what_is_wrong_with_a_folder(tmp_path):
    with pytest.raises(ArtifactError, match="found none at"):
        open_scorer(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="found none at"):
        open_scorer([(utc("2020-01-01"), tmp_path / "nowhere")])
    with pytest.raises(ConfigError, match="at least one model"):
        open_scorer([])


def test_likelihood_of_the_return_flow_is_that_of_a_normal_latent():
    """The standard quantiles are those of N(0, 1) through the tail layer."""
    flow = small_artifact().return_flow
    for level in (0.01, 0.25, 0.5):
        z = torch.tensor([[norm.ppf(level)]], dtype=torch.float64)
        assert flow.standard_quantile(level) == pytest.approx(float(flow.tails.inverse(z)[0]))


@pytest.mark.parametrize("freq", ["h", "12h", "2D", "7D"])
@pytest.mark.parametrize("what", ["score", "latents"])
def test_bars_of_another_interval_than_the_models_are_refused(scorer, bars, freq, what):
    index = pd.date_range("2010-01-01", periods=len(bars), freq=freq, tz="UTC", name="timestamp")
    with pytest.raises(ArtifactError, match=r"every 1 days .* found bars every"):
        getattr(scorer, what)(bars.set_axis(index))


def test_bars_at_uneven_intervals_like_the_models_are_scored(scorer, scores, bars):
    hours = np.random.default_rng(0).integers(-5, 6, len(bars))
    uneven = bars.set_axis(bars.index + pd.to_timedelta(hours, unit="h"))
    np.testing.assert_array_equal(scorer.score(uneven), scores)
