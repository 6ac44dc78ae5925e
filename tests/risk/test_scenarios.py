"""Draws as distributions: order statistics, ties, mid-ranks, paths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glow_bt.errors import ConfigError, DataError
from glow_bt.risk.scenarios import EmpiricalShape, Scenarios, tail_rank

HUNDRED = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))


def test_quantiles_are_the_draws_of_the_stated_rank():
    scenarios = Scenarios(np.stack([HUNDRED, -HUNDRED]))
    for level, expected in {0.01: 1, 0.05: 5, 0.055: 6, 0.07: 7, 0.95: 96, 0.99: 100}.items():
        assert scenarios.quantile(level)[0] == expected
        assert scenarios.quantile(1 - level)[1] == -expected


def test_a_shortfall_is_the_mean_of_the_worst_with_a_part_of_the_last():
    scenarios = Scenarios(HUNDRED[None])
    assert scenarios.shortfall(0.05)[0] == pytest.approx(np.mean([1, 2, 3, 4, 5]))
    assert scenarios.shortfall(0.025)[0] == pytest.approx((1 + 2 + 0.5 * 3) / 2.5)
    assert scenarios.shortfall(0.975)[0] == pytest.approx((100 + 99 + 0.5 * 98) / 2.5)
    assert scenarios.shortfall(0.001)[0] == 1  # fewer than one draw: the worst


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=60),
    st.floats(0.001, 0.499),
)
def test_the_empirical_shape_says_what_scenarios_of_one_row_say(draws, level):
    sample = np.array(draws)
    shape, row = EmpiricalShape(sample), Scenarios(sample[None])
    assert shape.quantile(level) == row.quantile(level)[0]
    assert shape.quantile(1 - level) == row.quantile(1 - level)[0]
    assert shape.lower_mean(level) == pytest.approx(row.shortfall(level)[0])
    assert -shape.mirrored().lower_mean(level) == pytest.approx(row.shortfall(1 - level)[0])
    assert row.shortfall(level)[0] <= row.quantile(level)[0] + 1e-12
    at = np.array([draws[0]])
    assert shape.cdf(at) == pytest.approx(row.cdf(at))


def test_rounding_does_not_push_a_rank_up():
    for share, size in ((0.07, 100), (1 - 0.99, 1000), (0.29, 100), (1 - 0.975, 40_000)):
        assert tail_rank(share, size) == round(share * size)


def test_the_cdf_is_the_mid_rank_among_the_draws_and_itself():
    scenarios = Scenarios(np.array([[1.0, 2.0, 2.0, 3.0]] * 4))
    found = scenarios.cdf(np.array([0.0, 2.0, 2.5, 9.0]))
    np.testing.assert_allclose(found, [0.1, 0.5, 0.7, 0.9])


def test_returns_from_the_same_source_have_uniform_ranks():
    rng = np.random.default_rng(1)
    ranks = Scenarios(rng.standard_t(3, (4000, 9))).cdf(rng.standard_t(3, 4000))
    counts = np.bincount(np.round(ranks * 10 - 0.5).astype(int), minlength=10)
    assert abs(counts - 400).max() < 4 * np.sqrt(400 * 0.9)


def test_draws_have_no_density():
    assert np.isnan(Scenarios(np.ones((3, 2))).log_prob(np.zeros(3))).all()
    assert np.isnan(EmpiricalShape(np.ones(3)).log_density(np.zeros(2))).all()


def test_many_rows_are_the_same_in_blocks_as_alone():
    draws = np.random.default_rng(2).normal(size=(700, 900))
    scenarios = Scenarios(draws)
    np.testing.assert_array_equal(scenarios.quantile(0.03), np.sort(draws, axis=1)[:, 26])
    np.testing.assert_allclose(
        scenarios.shortfall(0.99), np.sort(draws, axis=1)[:, -9:].mean(axis=1)
    )
    alone = Scenarios(draws[699:])
    assert scenarios.cdf(np.zeros(700))[-1] == alone.cdf(np.zeros(1))[0]


def test_paths_are_summed_over_the_first_bars():
    paths = np.random.default_rng(3).normal(size=(2, 5, 4))
    np.testing.assert_allclose(Scenarios.from_paths(paths, 3).draws, paths[..., :3].sum(axis=2))
    np.testing.assert_array_equal(Scenarios.from_paths(paths, 1).draws, paths[..., 0])


@pytest.mark.parametrize("horizon", [0, -1, 5])
def test_a_horizon_outside_the_paths_is_refused(horizon):
    with pytest.raises(ConfigError, match=f"a horizon of 1 to 4 bars, found {horizon}"):
        Scenarios.from_paths(np.zeros((2, 5, 4)), horizon)


def test_draws_that_are_none_are_refused():
    with pytest.raises(DataError, match=r"shape \(N, S\) with S of 1 or more, found \(3,\)"):
        Scenarios(np.zeros(3))
    with pytest.raises(DataError, match=r"found \(3, 0\)"):
        Scenarios(np.zeros((3, 0)))
    with pytest.raises(DataError, match="finite draws, found NaN"):
        Scenarios(np.array([[0.0, np.nan]]))
    with pytest.raises(DataError, match=r"paths of shape \(N, S, H\)"):
        Scenarios.from_paths(np.zeros((2, 5)), 1)
    for sample in (np.zeros((2, 2)), np.zeros(0), np.array([np.inf])):
        with pytest.raises(DataError, match="a sample"):
            EmpiricalShape(sample)
