import tracemalloc

import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap
from arch.bootstrap import optimal_block_length as arch_block_length

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.statistics import (
    optimal_block_length,
    percentile_interval,
    resampled_positions,
    resampled_statistic,
)
from tests.statistics.processes import autoregressive


def all_positions(num_bars, **settings):
    return np.concatenate(list(resampled_positions(num_bars, **settings)))


def row_means(rows):
    return rows.mean(axis=1)


@pytest.mark.parametrize("block_length", [1, 1.5, 7.0, 400.0])
def test_blocks_begin_anywhere_and_go_on_with_the_stated_probability(block_length):
    rows = all_positions(97, draws=3000, block_length=block_length, seed=0)
    assert rows.shape == (3000, 97)
    assert (rows.min(), rows.max()) == (0, 96)
    share = np.bincount(rows[:, 50], minlength=97) / 3000
    assert np.abs(share - 1 / 97).max() < 5 * np.sqrt(1 / 97 / 3000)
    goes_on = (np.diff(rows, axis=1) % 97 == 1).mean()
    # A new block begins by chance where the old one would have gone on.
    expected = 1 - 1 / block_length + 1 / block_length / 97
    error = np.sqrt(expected * (1 - expected) / rows[:, 1:].size)
    assert goes_on == pytest.approx(expected, abs=4 * error + 1e-12)


def test_lengths_are_geometric():
    rows = all_positions(5000, draws=40, block_length=4.0, seed=1)
    breaks = [np.flatnonzero(np.diff(row) % 5000 != 1) for row in rows]
    lengths = np.concatenate([np.diff(at) for at in breaks])
    for k in (1, 2, 3, 8):
        expected = 0.25 * 0.75 ** (k - 1)
        error = np.sqrt(expected / lengths.size)
        assert (lengths == k).mean() == pytest.approx(expected, abs=4 * error + 1e-3)


def test_the_variance_of_a_mean_is_that_of_politis_and_romano():
    """Their lemma 1 gives the bootstrap's variance in closed form."""
    values = autoregressive(np.random.default_rng(2), 1, 60, 0.5)[0]
    centred = values - values.mean()
    lags = np.arange(1, 60)
    products = np.array([centred[lag:] @ centred[:-lag] for lag in lags]) / 60
    stay = 1 - 1 / 6.0
    kernel = (1 - lags / 60) * stay**lags + lags / 60 * stay ** (60 - lags)
    expected = (np.mean(centred**2) + 2 * kernel @ products) / 60
    drawn = resampled_statistic(row_means, values, draws=20_000, block_length=6.0)
    assert drawn.mean() == pytest.approx(values.mean(), abs=4 * np.sqrt(expected / 20_000))
    assert drawn.var() == pytest.approx(expected, rel=4 * np.sqrt(2 / 20_000))


def test_draws_are_those_of_arch_in_distribution():
    values = autoregressive(np.random.default_rng(3), 1, 200, 0.4)[0]
    theirs = StationaryBootstrap(5, values, seed=0).apply(
        lambda x: np.array([x.mean(), x.std()]), 3000
    )
    ours = np.column_stack(
        [
            resampled_statistic(row_means, values, draws=3000, block_length=5.0),
            resampled_statistic(lambda x: x.std(axis=1), values, draws=3000, block_length=5.0),
        ]
    )
    for level in (0.025, 0.5, 0.975):
        gap = np.quantile(ours, level, axis=0) - np.quantile(theirs, level, axis=0)
        assert (np.abs(gap) < 0.15 * theirs.std(axis=0)).all()
    assert ours.std(axis=0) == pytest.approx(theirs.std(axis=0), rel=0.08)


def test_columns_are_resampled_together_and_the_same_seed_gives_the_same_draws():
    values = np.arange(30.0)

    def gap(first, second):
        return (second - 2 * first).max(axis=1)

    assert not resampled_statistic(gap, values, 2 * values, draws=50).any()
    settings = {"block_length": 3.0, "seed": 7}
    many = all_positions(30, draws=20_000, **settings)
    assert np.array_equal(many[:45], all_positions(30, draws=45, **settings))
    assert not np.array_equal(many[:45], all_positions(30, draws=45, block_length=3.0, seed=8))


def test_memory_does_not_grow_with_the_draws():
    tracemalloc.start()
    seen = sum(
        len(rows) for rows in resampled_positions(33_259, draws=200, block_length=5.0, seed=0)
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen == 200
    assert peak < 20e6  # all at once: 53 MB of positions alone


def test_the_block_length_is_that_of_arch_and_near_the_optimum():
    samples = autoregressive(np.random.default_rng(4), 40, 5000, 0.5)
    found = [optimal_block_length(row) for row in samples]
    assert found[0] == pytest.approx(arch_block_length(samples[0])["stationary"].iloc[0])
    # (G^2 / g(0)^2 N)^(1/3) of an AR(1): Politis & White 2004, section 3.2.
    optimum = (2 * 0.5 / (1 - 0.5**2)) ** (2 / 3) * 5000 ** (1 / 3)
    assert np.mean(found) == pytest.approx(optimum, rel=0.15)


def test_the_longest_block_counts_and_constant_columns_need_none():
    rng = np.random.default_rng(5)
    dependent, independent = autoregressive(rng, 1, 500, 0.8)[0], rng.standard_normal(500)
    assert optimal_block_length(independent, dependent, np.ones(500)) == optimal_block_length(
        dependent
    )
    assert optimal_block_length(np.full(30, 0.1)) == 1.0
    assert optimal_block_length(np.tile([1.0, -1.0], 50)) >= 1.0


@pytest.mark.parametrize(("persistence", "shortfall"), [(0.0, 0.01), (0.3, 0.03)])
def test_intervals_of_a_mean_cover_it(persistence, shortfall):
    """A little less often than they say: 93 to 94 % with 300 bars, 92 % if these depend."""
    samples = autoregressive(np.random.default_rng(6), 300, 300, persistence)
    covered = 0
    for seed, values in enumerate(samples):
        drawn = resampled_statistic(row_means, values, draws=200, seed=seed)
        low, high = percentile_interval(drawn, 0.95)
        covered += low <= 0 <= high
    error = np.sqrt(0.95 * 0.05 / 300)
    assert covered / 300 == pytest.approx(0.95 - shortfall, abs=3 * error)


def test_ends_are_order_statistics_of_the_draws_that_are_defined():
    drawn = np.column_stack([np.arange(101.0), np.full(101, np.nan), np.full(101, np.inf)])
    drawn[:50, 2] = 1.0
    low, high = percentile_interval(drawn, 0.9)
    assert low.tolist() == pytest.approx([5.0, np.nan, 1.0], nan_ok=True)
    assert high.tolist() == pytest.approx([95.0, np.nan, np.inf], nan_ok=True)
    drawn[::2, 0] = np.nan
    low, high = percentile_interval(drawn[:, 0], 0.9)
    assert low in {3.0, 5.0}
    assert high in {95.0, 97.0}
    assert np.isnan(percentile_interval(np.full(20, np.nan), 0.9)[0])


def test_what_cannot_be_resampled():
    values = np.arange(30.0)
    with pytest.raises(ConfigError, match="at least 20 draws, found 5"):
        resampled_statistic(row_means, values, draws=5)
    with pytest.raises(ConfigError, match=r"mean block of at least 1 bar, found 0\.5"):
        resampled_statistic(row_means, values, block_length=0.5)
    with pytest.raises(ConfigError, match="mean block of at least 1 bar, found nan"):
        resampled_statistic(row_means, values, block_length=np.nan)
    with pytest.raises(ConfigError, match=r"a coverage inside \(0, 1\), found 95"):
        percentile_interval(values, 95)
    with pytest.raises(DataError, match=r"same bars, found \[30, 29\]"):
        resampled_statistic(row_means, values, values[1:])
    with pytest.raises(DataError, match="finite values, found 1 that are not, the first at bar 2"):
        optimal_block_length([1.0, 2.0, np.nan] + [0.5] * 20)
    with pytest.raises(DataError, match=r"shape \(N,\), found \(2, 30\)"):
        optimal_block_length(np.ones((2, 30)))
    with pytest.raises(TooFewBarsError, match="block length needs at least 20 bars, found 1;"):
        optimal_block_length([1.0])
