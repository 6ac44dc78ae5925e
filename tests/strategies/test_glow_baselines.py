import numpy as np
import pandas as pd
import pytest

from glow_bt.bt import BybitPerpetual, GlowRecorder
from glow_bt.bt.ledger import AccountLedger
from glow_bt.errors import ConfigError, DataError
from glow_bt.scoring import Scorer
from strategies.glow_baselines import BuyAndHold, RealisedVolatility, ScoredGlow, VolatilityTarget
from strategies.glow_strategy import GlowStrategy
from tests.bt.market import cerebro_over, random_bars, run_strategy
from tests.models import small_artifact, unseen_bars

BARS = random_bars(200, seed=7)
CASH = 10_000.0


def run_baseline(strategy, bars=BARS, *, leverage=1.0, mode=None, **params):
    cerebro = cerebro_over(bars, **(mode or {}))
    cerebro.broker.setcash(CASH)
    cerebro.broker.addcommissioninfo(BybitPerpetual(leverage=leverage))
    cerebro.addanalyzer(GlowRecorder, _name="recorder")
    cerebro.addanalyzer(AccountLedger, _name="ledger")
    return run_strategy(cerebro, strategy, **params)


def states_of(run):
    return run.analyzers.recorder.frame()


def test_buy_and_hold_buys_once():
    run = run_baseline(BuyAndHold)
    fills = run.analyzers.ledger.fills()
    assert fills["created"].tolist() == [BARS.index[0]]
    assert fills["size"].iloc[0] == pytest.approx(0.99 * CASH / BARS["close"].iloc[0])
    size, price = fills["size"].iloc[0], BARS["open"].iloc[1]
    expected = CASH + size * (BARS["close"] - price) - size * price * 0.00055
    np.testing.assert_allclose(states_of(run)["equity"].iloc[1:], expected.iloc[1:], rtol=1e-12)


def test_buy_and_hold_begins_where_it_is_told_to():
    fills = run_baseline(BuyAndHold, start=BARS.index[61]).analyzers.ledger.fills()
    assert fills["created"].tolist() == [BARS.index[61]]


def test_buy_and_hold_tries_again_after_a_gap():
    bars = random_bars(20, volatility=1e-4)
    bars.loc[bars.index[1:], ["open", "high", "low", "close"]] *= 1.05
    run = run_baseline(BuyAndHold, bars)
    assert len(run.rejected) == 1
    assert run.analyzers.ledger.fills()["created"].tolist() == [bars.index[1]]


@pytest.mark.parametrize("mode", [{}, {"runonce": False}, {"exactbars": 1}], ids=str)
def test_volatility_target_is_target_over_realised(mode):
    lookback, periods, target = 24, 8760.0, 0.4
    params = {"target_volatility": target, "lookback": lookback, "periods_per_year": periods}
    run = run_baseline(
        VolatilityTarget, leverage=3.0, leverage_cap=3.0, dead_band=0.0, mode=mode, **params
    )
    squares = np.log(BARS["close"]).diff() ** 2
    realised = np.sqrt(periods * squares.rolling(lookback).mean())
    wanted = np.minimum(target / realised, 0.99 * 3.0).dropna()
    fills = run.analyzers.ledger.fills().set_index("created")
    held = fills["size"].cumsum()
    equity = run.analyzers.ledger.equity()
    assert len(fills) == len(wanted) - 1
    np.testing.assert_allclose(
        held * BARS["close"].loc[held.index] / equity.loc[held.index],
        wanted.loc[held.index],
        rtol=1e-9,
    )
    assert wanted.std() > 0.01


def test_volatility_target_has_a_cap_and_a_band():
    calm = random_bars(200, seed=7, volatility=1e-5)
    run = run_baseline(VolatilityTarget, calm)
    assert run.analyzers.ledger.fills()["size"].tolist() == pytest.approx(
        [(0.99 - 0.8 * 0.1) * CASH / calm["close"].iloc[60]]
    )
    banded = run_baseline(VolatilityTarget, periods_per_year=8760.0, lookback=12)
    free = run_baseline(VolatilityTarget, periods_per_year=8760.0, lookback=12, dead_band=0.0)
    counts = [len(run.analyzers.ledger.fills()) for run in (banded, free)]
    assert 0 < counts[0] < 0.3 * counts[1]


def test_prices_that_do_not_move_are_held_at_the_cap():
    flat = random_bars(30)
    flat[["open", "high", "low", "close"]] = 100.0
    run = run_baseline(VolatilityTarget, flat, lookback=5, dead_band=0.0)
    assert run.position.size == pytest.approx(0.99 * CASH / 100.0, rel=1e-3)


def test_every_feed_has_its_own_volatility():
    bars = [random_bars(60, seed=1), random_bars(60, seed=2, volatility=0.02)]
    run = run_baseline(VolatilityTarget, bars, lookback=10)
    values = [indicator.lines.volatility[0] for indicator in run.volatility]
    assert values[0] < values[1]


def test_too_few_bars_leave_the_account_alone():
    run = run_baseline(VolatilityTarget, BARS[:30])
    assert len(run.analyzers.ledger.fills()) == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"target_volatility": 0.0}, "target_volatility above 0"),
        ({"lookback": 0}, "lookback of at least 1"),
        ({"periods_per_year": 0.0}, "periods_per_year above 0"),
        ({"target_vol": 0.2}, "did you mean 'target_volatility'"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        run_baseline(VolatilityTarget, **setting)


def test_realised_volatility_refuses_what_it_does_not_know():
    with pytest.raises(ConfigError, match="did you mean 'lookback'"):
        RealisedVolatility(cerebro_over(BARS).datas[0], look_back=5)


UNSEEN = 150  # bars


@pytest.fixture(scope="module")
def scores():
    scorer = Scorer(small_artifact())
    bars = unseen_bars(UNSEEN)
    scored = scorer.score(bars)
    errors = scorer.var_error(bars.index.as_unit("ns").asi8, bars.to_numpy())
    return scored.assign(var_error=errors)


def sizes_of(run):
    return run.analyzers.ledger.fills()[["created", "size"]].reset_index(drop=True)


POLICY = {"risk_budget": 0.05, "dead_band": 0.02, "cost_rate": 1e-4, "half_life": 3.0}


@pytest.mark.parametrize(
    "settings",
    [{}, {"stance": 0.0, "long_only": True}, {"es_budget": 0.03, "error_margin": 2.0}],
    ids=str,
)
def test_scores_that_are_given_are_traded_as_the_model_itself_is(scores, settings):
    own = run_baseline(
        GlowStrategy, unseen_bars(UNSEEN), model=small_artifact(), **POLICY, **settings
    )
    given = run_baseline(ScoredGlow, unseen_bars(UNSEEN), scores=scores, **POLICY, **settings)
    fills = sizes_of(own)
    assert len(fills) > 10
    pd.testing.assert_frame_equal(sizes_of(given), fills, rtol=1e-9)


def target_of(scores, **settings):
    """The exposures of a strategy that trades every change, by the bar they are wanted at."""
    run = run_baseline(ScoredGlow, unseen_bars(UNSEEN), scores=scores, dead_band=0.0, **settings)
    return states_of(run)["exposure"].shift(-1)


def test_left_out_parts_leave_the_product_of_the_others(scores):
    sized = {"constant_limit": 0.5, "error_margin": 0.0, "use_filter": False}
    held = target_of(scores, **sized, use_direction=False)
    known = scores["var"].notna()
    # The price moves until the fill's bar has closed.
    assert held[known].dropna().between(0.47, 0.53).all()
    assert (held[~known].iloc[:-1] == 0.0).all()
    directed = target_of(scores, **sized, stance=0.0)
    wanted = 0.5 * scores["direction"]
    np.testing.assert_allclose(directed[known].dropna(), wanted[known].iloc[:-1], atol=0.03)


def test_a_random_direction_is_a_coin_tossed_now_and_then(scores):
    settings = {"use_filter": False, "constant_limit": 0.5, "toss_every": 5, "stance": 0.0}
    held = target_of(scores, random_direction=1, **settings)
    again = target_of(scores, random_direction=1, **settings)
    other = target_of(scores, random_direction=2, **settings)
    pd.testing.assert_series_equal(held, again)
    known = scores["var"].notna().to_numpy() & held.notna().to_numpy()
    signs = np.sign(held.to_numpy())[known]
    assert (np.sign(other.to_numpy())[known] != signs).any()
    assert set(signs) == {-1.0, 1.0}
    rows = np.arange(len(scores))[known]
    changes = rows[1:][np.diff(signs) != 0]
    assert len(changes) > 5
    assert (changes % 5 == 0).all()
    assert (target_of(scores, random_direction=1, long_only=True, **settings).dropna() >= 0).all()


def test_bars_without_scores_are_flat(scores):
    run = run_baseline(
        ScoredGlow, unseen_bars(UNSEEN), scores=scores.iloc[:140], use_direction=False
    )
    states = states_of(run)
    assert (states["exposure"].iloc[141:] == 0.0).all()
    assert (states["exposure"].iloc[120:140] != 0.0).any()


def test_scores_that_cannot_be_traded_are_refused(scores):
    with pytest.raises(ConfigError, match=r"scores=<frame .*found NoneType"):
        run_baseline(ScoredGlow, unseen_bars(UNSEEN))
    with pytest.raises(DataError, match="found none of var_error"):
        run_baseline(ScoredGlow, unseen_bars(UNSEEN), scores=scores.drop(columns="var_error"))
    with pytest.raises(ConfigError, match="toss_every of at least 1"):
        run_baseline(
            ScoredGlow, unseen_bars(UNSEEN), scores=scores, random_direction=0, toss_every=0
        )
