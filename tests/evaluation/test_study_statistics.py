"""How sure a study's numbers are: each is what the statistics say of the same returns."""

import json
import math

import numpy as np
import pytest

from glow_bt.evaluation.metrics import bar_returns, performance
from glow_bt.evaluation.study_statistics import study_statistics
from glow_bt.statistics import (
    SharpeMoments,
    account,
    expected_maximum_sharpe,
    performance_intervals,
    probabilistic_sharpe_ratio,
    sharpe_difference_test,
)
from tests.evaluation.runs import CASH, YEARLY, account_states

STATES = {
    "glow": account_states(seed=1),
    "buy_and_hold": account_states(seed=2),
    "no_filter": account_states(seed=3),
}


def measured(states=STATES, **changes):
    settings = {"periods_per_year": YEARLY, "starting_equity": CASH, "draws": 200, "seed": 3}
    return study_statistics(states, **{**settings, **changes})


@pytest.fixture(scope="module")
def found():
    return measured()


@pytest.fixture(scope="module")
def returns():
    return {name: bar_returns(own["equity"], starting_equity=CASH) for name, own in STATES.items()}


def test_intervals_stand_around_what_is_measured(found):
    for name, own in STATES.items():
        numbers = performance(
            own["equity"], periods_per_year=YEARLY, exposure=own["exposure"], starting_equity=CASH
        ).to_dict()
        for measure, interval in found["intervals"][name].items():
            assert interval["estimate"] == pytest.approx(numbers[measure], rel=1e-9)
            if measure != "max_drawdown":
                assert interval["low"] < interval["estimate"] < interval["high"]
    used = found["bootstrap"]
    assert (used["bars"], used["draws"], used["coverage"]) == (400, 200, 0.95)
    assert used["block_length"] >= 1


def test_differences_are_the_first_ones_minus_the_other_ones_on_shared_draws(found, returns):
    accounts = [
        account(returns[name], STATES[name]["exposure"].to_numpy())
        for name in ("no_filter", "buy_and_hold", "glow")
    ]
    # With the other one first, differences come out the right way round.
    expected = performance_intervals(
        accounts,
        periods_per_year=YEARLY,
        draws=200,
        seed=3,
        block_length=found["bootstrap"]["block_length"],
    ).differences[1]
    for measure, own in found["differences"]["no_filter"].items():
        for key in ("estimate", "low", "high"):
            assert own[key] == pytest.approx(getattr(expected[measure], key), rel=1e-9)
    assert list(found["differences"]) == ["buy_and_hold", "no_filter"]


def test_sharpe_ratios_are_judged_as_the_statistics_do(found, returns):
    moments = SharpeMoments.of(returns["glow"])
    own = found["sharpe"]["glow"]
    assert own["probabilistic"] == pytest.approx(probabilistic_sharpe_ratio(moments))
    yearly = found["intervals"]["glow"]["sharpe"]["estimate"]
    assert own["per_bar"] * math.sqrt(YEARLY) == pytest.approx(yearly)
    test = sharpe_difference_test(returns["glow"], returns["no_filter"], draws=200, seed=3)
    told = found["sharpe_difference"]["no_filter"]
    assert told["pvalue"] == test.pvalue
    assert told["difference"] == pytest.approx(test.difference * math.sqrt(YEARLY))


def test_trials_deflate_the_sharpe_ratio(found):
    assert found["deflated_sharpe"]["probability"] == pytest.approx(
        found["sharpe"]["glow"]["probabilistic"]
    )
    searched = measured(num_trials=50)["deflated_sharpe"]
    assert searched["num_trials"] == 50
    assert searched["probability"] < found["deflated_sharpe"]["probability"]
    assert searched["expected_maximum_per_bar"] == expected_maximum_sharpe(50, 1 / 399)


def test_a_contender_that_is_far_better_is_superior():
    better = STATES["no_filter"].copy()
    rng = np.random.default_rng(0)
    better["equity"] = CASH * np.exp(np.cumsum(0.004 + 0.004 * rng.standard_normal(400)))
    found = measured({**STATES, "no_filter": better})["superiority"]
    assert found["best"] == "no_filter"
    assert found["contenders"] == ["glow", "no_filter"]
    assert found["pvalue"] < 0.01
    assert measured()["superiority"]["pvalue"] > 0.05


def test_superiority_does_not_ask_for_size():
    """A contender of a tenth of the positions has the same Sharpe ratio, and p-value."""
    small = STATES["no_filter"].copy()
    returns = bar_returns(small["equity"], starting_equity=CASH)
    small["equity"] = CASH * np.cumprod(1 + returns / 10)
    pair = {name: STATES[name] for name in ("glow", "buy_and_hold")}
    found = [measured({**pair, "no_filter": own}) for own in (small, STATES["no_filter"])]
    assert found[0]["superiority"]["pvalue"] == found[1]["superiority"]["pvalue"]


def test_an_account_that_never_traded_has_no_ratio_and_everything_is_json():
    found = measured({**STATES, "glow": account_states(held=False)})
    assert found["sharpe"]["glow"] is None
    assert found["deflated_sharpe"]["probability"] is None
    assert found["intervals"]["glow"]["sharpe"]["low"] is None
    assert found["sharpe_difference"] == {"buy_and_hold": None, "no_filter": None}
    assert found["superiority"]["contenders"] == ["glow", "no_filter"]
    text = json.dumps(found, allow_nan=False)
    assert "-0.0," not in text


def test_one_account_alone_and_a_ruined_one_are_measured():
    alone = measured({"glow": STATES["glow"]})
    assert alone["differences"] == {}
    assert alone["superiority"] is None
    ruined = STATES["no_filter"].copy()
    ruined.iloc[200:] = 0.0
    found = measured({**STATES, "no_filter": ruined})
    assert found["intervals"]["no_filter"]["total_return"]["estimate"] == -1.0
    json.dumps(found, allow_nan=False)


def test_a_handful_of_bars_tells_nothing():
    assert measured({name: own.iloc[:19] for name, own in STATES.items()}) is None
    assert measured({name: own.iloc[:20] for name, own in STATES.items()}) is not None
