"""Feature functions that look ahead are caught, and no others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.evaluation.leaks import target_of, verify
from glow_bt.features import compute_features
from tests.bt.market import random_bars
from tests.evaluation.leaks import planted

BARS = random_bars(700)


def leaks_of(function, **settings):
    return verify(target_of(function), BARS, **settings).leaks


@pytest.mark.parametrize("function", planted.FUNCTIONS, ids=lambda f: f.__name__)
def test_a_planted_leak_is_caught_with_its_line_and_how_far_it_looks(function):
    leaks, ahead = leaks_of(function), planted.FUNCTIONS[function]
    assert [leak.kind for leak in leaks] == ["value"]
    assert leaks[0].where.code.endswith("# leaks")
    assert leaks[0].stamp == BARS.index[leaks[0].row]
    assert ahead is None or leaks[0].to_end == (ahead == "end")
    if ahead not in ("end", None):
        assert leaks[0].ahead in np.ravel(ahead)


def test_only_the_column_that_looks_ahead_is_named():
    assert [leak.output for leak in leaks_of(planted.shifted)] == ["gain"]


def test_a_leak_that_begins_late_is_dated_there():
    assert leaks_of(planted.late_leak)[0].row >= planted.LATE


@pytest.mark.parametrize(
    "function",
    [planted.expanding_score, planted.four_hours_known, planted.words, compute_features],
    ids=lambda f: f.__name__,
)
def test_what_looks_at_the_past_alone_is_clean(function):
    report = verify(target_of(function), BARS)
    assert report.clean
    assert report.num_failed == 0
    assert report.num_runs == 2 + 3 * len(report.cuts)
    assert len(report.cuts) == 60


def rolled(x):
    return x.rolling(4).mean()


CLEAN = {
    "rolling": rolled,
    "ewm": lambda x: x.ewm(span=5).mean(),
    "expanding": lambda x: x / x.expanding().max(),
    "lag": lambda x: x.shift(1),
    "change": lambda x: x.diff(),
    "median": lambda x: x - x.rolling(7).median(),
}
LEAKY = {
    "lead": lambda x: x.shift(-2),
    "centred": lambda x: x.rolling(5, center=True).mean(),
    "score": lambda x: (x - x.mean()) / x.std(),
    "rank": lambda x: x.rank(pct=True),
    "backwards": lambda x: x.where(np.arange(len(x)) % 4 == 0).bfill(),
    "reversed": lambda x: x[::-1].expanding().max()[::-1],
}


@settings(max_examples=25, deadline=None)
@given(
    before=st.lists(st.sampled_from(sorted(CLEAN)), unique=True, max_size=3),
    leak=st.none() | st.sampled_from(sorted(LEAKY)),
    after=st.lists(st.sampled_from(sorted(CLEAN)), unique=True, max_size=2),
    column=st.sampled_from(["close", "high", "volume"]),
    seed=st.integers(0, 100),
)
def test_a_chain_of_steps_leaks_if_one_of_them_does(before, leak, after, column, seed):
    steps = [CLEAN[name] for name in before] + ([LEAKY[leak]] if leak else [])
    steps += [CLEAN[name] for name in after]

    def chain(bars):
        values = bars[column]
        for step in steps:
            values = step(values)
        return values

    report = verify(target_of(chain), random_bars(200, seed=seed), cut_points=20, seed=seed)
    assert report.clean == (leak is None)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (planted.drawn_by_chance, "to say the same of the same bars, found close at"),
        (
            planted.failing,
            r"found KeyError: 'clsoe' at .*planted.py:\d+ `return bars\[\"clsoe\"\]",
        ),
        (planted.kept_between_runs, "Over all 700 bars it does: let it use the bars that it is"),
        (
            planted.with_an_argument,
            "bars alone, found missing a required argument: 'window'; give",
        ),
        (planted.WithAnArgument, "no arguments, found missing a required argument: 'threshold'"),
        (planted.too_short, r"one row a bar \(700\), found ndarray of shape \(3,\)"),
    ],
)
def test_what_cannot_be_verified_is_refused(function, message):
    with pytest.raises(ConfigError, match=message):
        leaks_of(function)


def test_too_few_bars_for_a_first_value_are_refused():
    with pytest.raises(TooFewBarsError, match="needs_many to have a value with a future"):
        leaks_of(planted.needs_many)


def test_the_same_seed_tries_the_same():
    first, again = (verify(target_of(planted.volume_only), BARS, seed=3) for _ in range(2))
    assert first.facts() == again.facts()
    assert first.cuts != verify(target_of(planted.volume_only), BARS, seed=4).cuts


def test_no_cut_points_are_refused():
    with pytest.raises(ConfigError, match="at least 1 cut point, found 0"):
        leaks_of(planted.shifted, cut_points=0)
