import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glow_bt.errors import DataError
from glow_bt.statistics import label_stability, regime_table

HOUR = 3_600_000


def hours(count, first=0):
    return HOUR * np.arange(first, first + count)


def test_every_number_of_a_worked_example():
    labels = [np.nan, 0, 0, 2, 2, 2, 0, 2]
    returns = [0.9, 0.8, 0.01, 0.03, -0.02, 0.04, -0.06, 0.05]
    table = regime_table(hours(8), labels, returns)
    calm, wild = table.rows
    assert (calm.regime, calm.num_bars, calm.share, calm.num_spells) == (0, 3, 3 / 7, 2)
    assert (wild.regime, wild.num_bars, wild.share, wild.num_spells) == (2, 4, 4 / 7, 2)
    assert (calm.mean_duration, wild.mean_duration) == (1.5, 2.0)
    # Returns of the bars after: 0.01, 0.03, 0.05, and -0.02, 0.04, -0.06; the last has none.
    assert (calm.num_following, wild.num_following) == (3, 3)
    assert calm.mean_return == pytest.approx(0.03)
    assert calm.volatility == pytest.approx(0.02)
    assert wild.mean_return == pytest.approx(-0.04 / 3)
    assert wild.volatility == pytest.approx(np.std([-0.02, 0.04, -0.06], ddof=1))
    assert table.transition_counts.tolist() == [[1, 2], [1, 2]]
    assert table.transitions == pytest.approx(np.array([[1 / 3, 2 / 3], [1 / 3, 2 / 3]]))
    assert (table.num_labelled, table.num_bars) == (7, 8)


def test_the_return_that_made_the_label_does_not_flatter_it():
    """Labels that name the sign of their own bar's return earn nothing after it."""
    returns = 0.01 * np.random.default_rng(0).standard_normal(5000)
    for row in regime_table(hours(5000), returns > 0, returns).rows:
        assert abs(row.mean_return) < 4 * 0.01 / math.sqrt(2500)
        assert row.volatility == pytest.approx(0.01, rel=0.05)


def test_bars_across_a_gap_are_no_neighbours():
    stamps = np.concatenate([hours(3), hours(3, first=50)])
    labels, returns = [1, 1, 1, 1, 1, 0], [0.0, 0.1, 0.2, 0.9, 0.3, 0.4]
    (zero, one) = regime_table(stamps, labels, returns, max_step_ms=HOUR).rows
    assert (one.num_spells, one.mean_duration, one.num_following) == (2, 2.5, 4)
    assert one.mean_return == pytest.approx((0.1 + 0.2 + 0.3 + 0.4) / 4)
    assert zero.num_following == 0
    assert math.isnan(zero.mean_return)
    joined = regime_table(stamps, labels, returns)
    assert (joined.rows[1].num_spells, joined.rows[1].num_following) == (1, 5)
    assert joined.transitions[0] == pytest.approx([np.nan, np.nan], nan_ok=True)


@given(st.lists(st.sampled_from([np.nan, 0.0, 1.0, 2.0]), min_size=2, max_size=60))
def test_counts_add_up(labels):
    if np.isnan(labels).all():
        return
    table = regime_table(hours(len(labels)), labels, np.zeros(len(labels)))
    labelled = int((~np.isnan(labels)).sum())
    assert sum(row.num_bars for row in table.rows) == table.num_labelled == labelled
    assert math.isclose(sum(row.share for row in table.rows), 1.0)
    for number, row in enumerate(table.rows):
        # Each spell of n bars stays n - 1 times.
        assert table.transition_counts[number, number] == row.num_bars - row.num_spells
    told = table.transition_counts.sum(axis=1) > 0
    assert table.transitions[told].sum(axis=1) == pytest.approx(np.ones(told.sum()))


def test_a_markov_chain_is_found_again():
    rng = np.random.default_rng(1)
    stay = np.array([0.95, 0.8])
    labels = [0]
    for chance in rng.random(20_000):
        labels.append(labels[-1] if chance < stay[labels[-1]] else 1 - labels[-1])
    table = regime_table(hours(20_001), labels, np.zeros(20_001))
    assert np.diag(table.transitions) == pytest.approx(stay, abs=0.02)
    durations = [row.mean_duration for row in table.rows]
    assert durations == pytest.approx(1 / (1 - stay), rel=0.1)


def test_fits_agree_whatever_they_call_their_regimes():
    rng = np.random.default_rng(2)
    labels = rng.integers(3, size=300).astype(float)
    renamed = np.array([7.0, 5.0, 6.0])[labels.astype(int)]
    by_chance = rng.integers(3, size=300).astype(float)
    found = label_stability(
        [
            (hours(300), labels),
            (hours(200, first=100), renamed[100:]),
            (hours(300), by_chance),
            (hours(50, first=900), by_chance[:50]),
        ]
    )
    assert found.adjusted_rand[0, 1] == 1.0
    assert abs(found.adjusted_rand[0, 2]) < 0.05
    assert np.isnan(found.adjusted_rand[3, :3]).all()
    assert np.diag(found.adjusted_rand).tolist() == [1.0] * 4
    assert found.adjusted_rand[:3, :3] == pytest.approx(found.adjusted_rand[:3, :3].T)
    assert found.common_bars[0].tolist() == [300, 200, 300, 0]
    below = [found.adjusted_rand[at] for at in ((1, 0), (2, 0), (2, 1))]
    assert found.mean == pytest.approx(np.mean(below))


def test_bars_without_a_label_are_not_in_common():
    labels = np.array([0.0, 1.0, np.nan, 1.0])
    found = label_stability([(hours(4), labels), (hours(4), [np.nan, 1, 1, 0])])
    assert found.common_bars.tolist() == [[3, 2], [2, 3]]
    apart = label_stability([(hours(2), [0, 1]), (hours(2), [np.nan, np.nan])])
    assert math.isnan(apart.mean)
    assert math.isnan(apart.adjusted_rand[1, 1])


def test_what_no_table_can_be_made_of():
    with pytest.raises(DataError, match=r"stamps and labels of shape \(N,\), found \(3,\) and"):
        regime_table(hours(3), [0, 1], [0.0, 0.1, 0.2])
    with pytest.raises(DataError, match="stamps and labels of shape"):
        regime_table([], [], [])
    with pytest.raises(DataError, match="a return for each of 3 bars, found 2"):
        regime_table(hours(3), [0, 1, 1], [0.0, 0.1])
    with pytest.raises(DataError, match="finite returns"):
        regime_table(hours(2), [0, 1], [0.0, np.nan])
    with pytest.raises(DataError, match="labelled bars, found none among 2"):
        regime_table(hours(2), [np.nan, np.nan], [0.0, 0.1])
    for labels in ([0.5, 1], [np.inf, 1]):
        with pytest.raises(DataError, match="whole numbers as labels"):
            regime_table(hours(2), labels, [0.0, 0.1])
    for stamps in (hours(2)[::-1], [5, 5], [0.0, 1.0]):
        with pytest.raises(DataError, match="ascending order, each once"):
            regime_table(stamps, [0, 1], [0.0, 0.1])
    with pytest.raises(DataError, match="at least 2 fits to compare, found 1"):
        label_stability([(hours(2), [0, 1])])


def test_one_bar_has_a_label_and_nothing_after_it():
    (row,) = regime_table(hours(1), [4], [0.1]).rows
    assert (row.regime, row.num_bars, row.share, row.mean_duration) == (4, 1, 1.0, 1.0)
    assert math.isnan(row.mean_return)
    assert math.isnan(row.volatility)
