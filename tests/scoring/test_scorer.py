import copy
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from glow_bt.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    LookAheadError,
    TooFewBarsError,
)
from glow_bt.features import compute_features, context_rows
from glow_bt.flows import UnivariateFlow
from glow_bt.scoring import SCORE_COLUMNS, ScheduledScorer, Scorer
from glow_bt.training import train
from tests.models import SMALL_BARS, small_artifact, small_config, sp500_bars, unseen_bars
from tests.scoring.samples import (
    COUNT,
    EVERY_RISK,
    FIRST_NEW,
    WARM_UP,
    arrays,
    model_of_funding,
    model_of_two_horizons,
    with_funding,
)


@pytest.fixture(scope="module")
def bars():
    return unseen_bars(COUNT)


@pytest.fixture(scope="module")
def scorer():
    return Scorer(small_artifact())


@pytest.fixture(scope="module")
def scores(scorer, bars):
    return scorer.score(bars)


def contexts_of(model, bars):
    """Scaled contexts of the return flow by the public route, and volatilities."""
    stamps, array = arrays(bars)
    rows = context_rows(array, stamps, 86_400.0, model.returns.spec)
    scaler = model.returns.scaler
    return torch.from_numpy((rows.values - scaler.centre) / scaler.scale), rows.volatility


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


@pytest.mark.parametrize("horizon", [1, 5])
def test_var_and_cvar_are_those_of_the_module(bars, horizon):
    """The normal quantile through the inverse of the flow, and the mean of those below it."""
    model, level = model_of_two_horizons(), 0.02
    scored = Scorer(model, var_level=level, horizon=horizon).score(bars).iloc[WARM_UP:]
    flow = model.returns.flows[horizon]
    contexts, volatility = contexts_of(model, bars)
    unit = volatility * np.sqrt(horizon)
    z = torch.full((len(contexts), 1), norm.ppf(level), dtype=torch.float64)
    quantile = flow.inverse(z, contexts)[0][:, 0].numpy()
    np.testing.assert_allclose(scored["var"], quantile * unit, rtol=1e-9)
    grid = torch.linspace(-12.0, norm.ppf(level), 100_001, dtype=torch.float64)[:, None]
    for row in (0, 100):
        below = flow.inverse(grid, contexts[[row]].expand(len(grid), -1))[0][:, 0].numpy()
        mean = np.trapezoid(below * norm.pdf(grid[:, 0].numpy()), grid[:, 0].numpy()) / level
        assert scored["cvar"].iloc[row] == pytest.approx(mean * unit[row], rel=1e-6)


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
    monkeypatch.setattr("glow_bt.scoring.states._BLOCK_ROWS", rows)
    np.testing.assert_allclose(scorer.score(bars), scores, rtol=1e-12, atol=1e-14)
    assert len(scorer.latents(bars)) == COUNT


def test_arrays_shorter_than_a_window_have_no_score(scorer, bars):
    stamps, array = arrays(bars)
    for length in (0, 1, WARM_UP):
        short = scorer.score_arrays(stamps[:length], array[:length])
        assert short.shape == (length, 7)
        assert np.isnan(short).all()


def test_a_frame_shorter_than_a_window_is_refused(scorer, bars):
    with pytest.raises(TooFewBarsError, match="scoring needs at least 121 bars, found 120"):
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
    with pytest.raises(LookAheadError, match=rf"expected bars after {until:%Y-%m-%d}.*120 bars"):
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
    table = Scorer(model).value_at_risk(bars, [0.01, 0.05, 0.99]).iloc[WARM_UP:]
    contexts, volatility = contexts_of(model, bars)
    for level in (0.01, 0.05, 0.99):
        scaled = torch.from_numpy(table[level].to_numpy() / volatility)[:, None]
        z, _ = model.returns.flows[1](scaled, contexts)
        np.testing.assert_allclose(norm.cdf(z.numpy()), level, rtol=1e-9)


def test_cvar_is_the_mean_below_var(scores, bars):
    """By drawing from the flow: 400,000 returns after one bar."""
    model, row = small_artifact(), WARM_UP + 17
    contexts, volatility = contexts_of(model, bars.iloc[row - WARM_UP : row + 1])
    generator = torch.Generator().manual_seed(0)
    flow = model.returns.flows[1]
    drawn = flow.sample(400_000, contexts, generator=generator)[:, 0].numpy()
    returns = drawn * volatility[0]
    var, cvar = scores["var"].iloc[row], scores["cvar"].iloc[row]
    below = returns[returns < var]
    assert (returns < var).mean() == pytest.approx(0.01, abs=6e-4)
    assert below.mean() == pytest.approx(cvar, abs=4 * below.std() / np.sqrt(len(below)))


def simulated_market(model, steps, seed):
    """Bars whose every close is drawn from the model's own next-bar distribution."""
    rng = np.random.default_rng(seed)
    market, flow = unseen_bars(1), model.returns.flows[1]
    bars = list(market.to_numpy())
    latents = torch.from_numpy(rng.normal(size=(steps, 1)))
    for latent, noise in zip(latents, rng.normal(0, 0.3, (steps, 3)), strict=True):
        recent = np.array(bars[-WARM_UP - 1 :])
        rows = model.returns.contexts(recent, np.arange(len(recent)))
        shock = float(flow.inverse(latent[None], torch.from_numpy(rows.values))[0])
        before = recent[-1, 3]
        close = before * np.exp(rows.volatility[0] * shock)
        wick = np.exp(np.abs(rows.volatility[0] * noise[:2]))
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


def test_levels_that_are_none_are_refused(bars):
    for level in (0.0, 0.51, -0.01, float("nan")):
        with pytest.raises(ConfigError, match=r"VaR level inside \(0, 0.5\]"):
            Scorer(small_artifact(), var_level=level)
    for level in (0.0, 1.0, -0.01, float("nan")):
        with pytest.raises(ConfigError, match=r"level inside \(0, 1\)"):
            Scorer(small_artifact()).value_at_risk(bars, [0.01, level])


@pytest.mark.parametrize("horizon", [1, 5])
def test_levels_of_both_tails_are_those_of_the_distribution(bars, horizon):
    scorer = Scorer(model_of_two_horizons(), horizon=horizon)
    levels = [0.01, 0.3, 0.5, 0.7, 0.95, 0.999]
    table, distribution = scorer.value_at_risk(bars, levels), scorer.distribution(bars)
    for level in levels:
        np.testing.assert_array_equal(table[level].iloc[WARM_UP:], distribution.quantile(level))
    assert (table.iloc[WARM_UP:].diff(axis=1).iloc[:, 1:] > 0).all(axis=None)
    assert (table[0.95].iloc[WARM_UP:] > 0).all()


@pytest.mark.parametrize("risk", EVERY_RISK)
def test_a_row_hangs_on_its_window_alone_but_for_the_recalibration(bars, risk):
    """States and contexts; what VaR is recalibrated by is known from earlier bars too."""
    model = model_of_two_horizons()
    scorer = Scorer(model, **risk)
    whole = scorer.score(bars)
    columns = list(SCORE_COLUMNS[:5] if risk["recalibrate"] else SCORE_COLUMNS)
    stamps, array = arrays(bars)
    for last in (scorer.min_bars - 1, 200, len(bars) - 1):
        window = slice(last + 1 - scorer.min_bars, last + 1)
        alone = scorer.score_arrays(stamps[window], array[window])
        assert np.isnan(alone[:-1]).all()
        np.testing.assert_allclose(
            alone[-1, : len(columns)], whole.iloc[last][columns], rtol=1e-9, atol=1e-12
        )


def test_a_horizon_that_was_not_trained_is_refused():
    told = r"expected a horizon among 1, 5 bars.*found 24; train with --return-horizons 24"
    for horizon in (24, 0, None):
        with pytest.raises(ConfigError, match="expected a horizon among 1, 5 bars"):
            Scorer(model_of_two_horizons(), horizon=horizon)
    with pytest.raises(ConfigError, match=told):
        Scorer(model_of_two_horizons(), horizon=24)
    schedule = [(pd.Timestamp("2010-01-01"), small_artifact())]
    with pytest.raises(ConfigError, match="expected a horizon among 1 bars"):
        ScheduledScorer(schedule, horizon=5)


def of_members(model, *members):
    returns = replace(model.returns, flows={1: UnivariateFlow.averaged(members)})
    return replace(model, returns=returns)


def test_the_error_of_var_is_what_members_disagree_by(bars):
    model = model_of_two_horizons()
    flow = UnivariateFlow(len(model.returns.spec.names), 8).double().requires_grad_(False)
    stamps, array = arrays(bars)
    errors = []
    for apart in (0.0, 0.1, 0.4):
        other = copy.deepcopy(flow)
        other.log_scale += apart
        own = of_members(model, flow, other)
        errors.append(Scorer(own).var_error(stamps, array))
        quantiles = [
            Scorer(of_members(model, member)).value_at_risk(bars, [0.01]).to_numpy()[WARM_UP:, 0]
            for member in (flow, other)
        ]
        # Of two members sqrt(1/2 sum (q - mean)^2) is half of how far they are apart.
        expected = np.abs(quantiles[0] - quantiles[1]) / 2
        np.testing.assert_allclose(errors[-1][WARM_UP:], expected, rtol=1e-9, atol=1e-15)
        assert np.isnan(errors[-1][:WARM_UP]).all()
    assert (errors[0][WARM_UP:] < 1e-15).all()
    assert (errors[1][WARM_UP:] > 1e-4).all()
    assert (errors[2][WARM_UP:] > errors[1][WARM_UP:]).all()


def test_the_error_of_a_trained_models_var_is_a_part_of_it(bars):
    stamps, array = arrays(bars)
    for horizon in (1, 5):
        scorer = Scorer(model_of_two_horizons(), horizon=horizon)
        error, var = scorer.var_error(stamps, array), scorer.score(bars)["var"].to_numpy()
        assert (error[WARM_UP:] > 0).all()
        assert (error[WARM_UP:] < -var[WARM_UP:]).all()
        alone = scorer.var_error(stamps[9 : WARM_UP + 10], array[9 : WARM_UP + 10])
        assert alone[-1] == pytest.approx(error[WARM_UP + 9], rel=1e-9)
    assert np.isnan(scorer.var_error(stamps[:50], array[:50])).all()


def test_a_model_that_knows_funding_scores_bars_that_have_it():
    scorer = Scorer(model_of_funding())
    assert scorer.columns[-1] == "funding_rate"
    bars = with_funding(sp500_bars(0, 800)).iloc[FIRST_NEW - WARM_UP :]
    scores = scorer.score(bars)
    assert scores.iloc[WARM_UP:].notna().all(axis=None)
    others = bars.copy()
    others.iloc[WARM_UP, -1] *= 3.0
    moved = (scorer.score(others) != scores).iloc[WARM_UP:]
    assert moved.iloc[0][["var", "cvar"]].all()
    assert not moved.iloc[0, :5].any()
    assert not moved.iloc[1:].any(axis=None)  # only the bar's own rate is in its context
    pd.testing.assert_frame_equal(scorer.score(bars.iloc[:, ::-1]), scores)
    beside = bars.assign(open_interest=1.0)
    pd.testing.assert_frame_equal(scorer.score(beside), scores)


@pytest.mark.parametrize("ask", ["score", "latents", "distribution"])
def test_bars_without_the_funding_rate_are_refused_by_a_model_that_knows_it(bars, ask):
    with pytest.raises(DataError, match=r"expected bars with funding_rate, which the model was"):
        getattr(Scorer(model_of_funding()), ask)(bars)
    with pytest.raises(DataError, match="expected bars with funding_rate"):
        model_of_funding().returns.inputs(bars)


def test_a_schedule_of_models_with_and_without_funding():
    bars = with_funding(sp500_bars(0, 800)).iloc[FIRST_NEW - WARM_UP :]
    border = bars.index[WARM_UP + 50]
    schedule = [(bars.index[WARM_UP], small_artifact()), (border, model_of_funding())]
    scores = ScheduledScorer(schedule).score(bars)
    for model, rows in (
        (small_artifact(), slice(WARM_UP, WARM_UP + 50)),
        (model_of_funding(), slice(WARM_UP + 50, None)),
    ):
        alone = Scorer(model).score(bars)
        np.testing.assert_allclose(scores.iloc[rows], alone.iloc[rows], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("recalibrate", [False, True])
def test_it_is_fast_enough(recalibrate):
    """Below 1 s and 1 ms on a quiet core; here with room for a slower one."""
    scorer = Scorer(model_of_two_horizons(), recalibrate=recalibrate, allow_training_bars=True)
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.standard_t(4, 33_000) * 0.005))
    array = np.column_stack(
        [close, close * 1.003, close / 1.003, close, rng.lognormal(size=33_000)]
    )
    stamps = np.arange(33_000) * 86_400_000_000_000
    start = time.thread_time()
    scores = scorer.score_arrays(stamps, array)
    assert time.thread_time() - start < 5.0
    assert np.isfinite(scores[scorer.min_bars - 1 :]).all()
    window = slice(33_000 - scorer.min_bars, None)
    scorer.score_arrays(stamps[window], array[window])
    times = []
    for _ in range(50):
        start = time.thread_time()
        scorer.score_arrays(stamps[window], array[window])
        times.append(time.thread_time() - start)
    assert np.median(times) < 5e-3


def test_a_mixture_base_scores_too(bars):
    model = train(
        sp500_bars(0, SMALL_BARS),
        small_config(base="mixture", regime_method="base", max_epochs=1),
    )
    regime = Scorer(model).score(bars)["regime"].iloc[WARM_UP:]
    assert set(regime) <= {0.0, 1.0, 2.0}


@pytest.mark.parametrize(
    ("freq", "words"), [("h", "1 hour"), ("90min", "1.5 hours"), ("2D", "2 days"), ("30s", "30 s")]
)
@pytest.mark.parametrize("what", ["score", "latents"])
def test_bars_of_another_interval_than_the_models_are_refused(scorer, bars, freq, words, what):
    index = pd.date_range("2010-01-01", periods=len(bars), freq=freq, tz="UTC", name="timestamp")
    with pytest.raises(ArtifactError, match=rf"every 1 day, .* found bars every {words}"):
        getattr(scorer, what)(bars.set_axis(index))


def test_bars_at_uneven_intervals_like_the_models_are_scored(scorer, scores, bars):
    hours = np.random.default_rng(0).integers(-5, 6, len(bars))
    uneven = bars.set_axis(bars.index + pd.to_timedelta(hours, unit="h"))
    np.testing.assert_array_equal(scorer.score(uneven), scores)
