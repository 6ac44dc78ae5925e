import math
import time
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import linregress

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.statistics import backtest_overfitting


def by_the_paper(gains, num_blocks):
    """Section 4 of the paper split by split, the halves put together bar by bar."""
    blocks = np.array_split(np.arange(len(gains)), num_blocks)
    scores = []
    for own in combinations(range(num_blocks), num_blocks // 2):
        others = [block for block in range(num_blocks) if block not in own]
        halves = [
            gains[np.concatenate([blocks[b] for b in sorted(half)])] for half in (own, others)
        ]
        scores.append([half.mean(axis=0) / half.std(axis=0, ddof=1) for half in halves])
    logits, pairs = [], []
    for inside, outside in scores:
        best = int(np.argmax(inside))
        rank = 1 + np.count_nonzero(outside < outside[best])
        share = rank / (len(outside) + 1)
        logits.append(math.log(share / (1 - share)))
        pairs.append((inside[best], outside[best]))
    return np.array(logits), np.array(pairs), np.array([outside for _, outside in scores])


def test_every_number_equals_a_loop_over_the_splits():
    gains = np.random.default_rng(0).standard_t(4, size=(120, 7)) + np.linspace(-0.1, 0.1, 7)
    found = backtest_overfitting(gains, num_blocks=6)
    logits, pairs, everyone = by_the_paper(gains, 6)
    assert found.logits == pytest.approx(logits)
    assert found.probability == np.mean(logits <= 0)
    assert np.column_stack([found.in_sample, found.out_of_sample]) == pytest.approx(pairs)
    line = linregress(*pairs.T)
    assert found.slope == pytest.approx(line.slope)
    assert found.intercept == pytest.approx(line.intercept)
    assert found.r_squared == pytest.approx(line.rvalue**2)
    assert found.loss_probability == np.mean(pairs[:, 1] < 0)
    assert found.advantage == pytest.approx(pairs[:, 1].mean() - everyone.mean())
    levels = np.linspace(everyone.min() - 0.1, everyone.max() + 0.1, 20_001)
    below_chosen = (pairs[:, 1] <= levels[:, None]).mean(axis=1)
    below_all = (everyone.ravel() <= levels[:, None]).mean(axis=1)
    assert found.first_order == bool((below_chosen <= below_all).all())
    area = np.cumsum(below_all - below_chosen) * (levels[1] - levels[0])
    assert found.second_order == bool((area >= -1e-4).all())


def test_unequal_blocks_use_every_bar():
    gains = np.random.default_rng(1).standard_normal((53, 4))
    found = backtest_overfitting(gains, num_blocks=2)
    halves = (gains[:26], gains[26:])
    expected = [half.mean(axis=0) / half.std(axis=0, ddof=1) for half in halves]
    assert found.in_sample == pytest.approx([scores.max() for scores in expected])


def test_no_configuration_better_than_another_is_overfitting_half_of_the_time():
    """By construction the line slopes down: what one half has the other lacks."""
    rng = np.random.default_rng(2)
    found = [
        backtest_overfitting(rng.standard_normal((500, 20)), num_blocks=8) for _ in range(150)
    ]
    probabilities = np.array([own.probability for own in found])
    error = probabilities.std() / math.sqrt(150)
    assert probabilities.mean() == pytest.approx(0.5, abs=3 * error)
    assert 0.1 < probabilities.std() < 0.3
    slopes = np.array([own.slope for own in found])
    assert -0.8 < slopes.mean() < -0.3
    assert not any(own.first_order for own in found)


def test_skill_is_no_overfitting():
    gains = np.random.default_rng(3).standard_normal((2000, 10))
    gains[:, 4] += 0.3
    found = backtest_overfitting(gains, num_blocks=10)
    assert (found.chosen == 4).all()
    assert found.probability == found.loss_probability == 0.0
    assert found.first_order
    assert found.second_order
    assert found.advantage > 0.2


def test_what_is_best_where_others_are_worst_is_overfitting():
    """Configuration b gains in block b alone and pays for it in all others."""
    gains = np.full((80, 8), -0.01) + 1e-3 * np.random.default_rng(4).standard_normal((80, 8))
    for block in range(8):
        gains[10 * block : 10 * block + 10, block] += 0.05
    found = backtest_overfitting(gains, num_blocks=8)
    assert found.probability == 1.0
    assert found.loss_probability == 1.0
    assert found.advantage < 0
    assert not found.second_order


def test_mean_gains_suit_the_losses_of_forecasts():
    """A fall in a loss that never varies much: the mean tells it, whatever the units."""
    losses = np.random.default_rng(5).gamma(4, size=(400, 5))
    losses[:, 2] -= 0.5
    found = backtest_overfitting(-losses, num_blocks=4, criterion="mean")
    assert (found.chosen == 2).all()
    assert found.in_sample == pytest.approx(
        [-losses[np.r_[a * 100 : a * 100 + 100, b * 100 : b * 100 + 100], 2].mean()
         for a, b in combinations(range(4), 2)]
    )  # fmt: skip


def test_configurations_that_never_trade_score_nothing():
    found = backtest_overfitting(np.zeros((64, 3)), num_blocks=4)
    assert not found.in_sample.any()
    assert found.probability == 1.0  # all are the median
    assert math.isnan(found.slope)
    losing = np.random.default_rng(6).standard_normal((64, 1)) - 1
    found = backtest_overfitting(np.hstack([losing, np.zeros((64, 1))]), num_blocks=4)
    assert (found.chosen == 1).all()
    assert found.probability == 0.0


def test_all_splits_of_sixteen_blocks_take_seconds():
    gains = np.random.default_rng(7).standard_normal((33_000, 50))
    began = time.process_time()
    found = backtest_overfitting(gains)
    assert found.logits.shape == (12_870,)
    assert time.process_time() - began < 5


def test_what_cannot_be_divided():
    gains = np.random.default_rng(8).standard_normal((100, 3))
    for num_blocks in (0, 7, 22):
        with pytest.raises(ConfigError, match=f"even number of blocks .* found {num_blocks}"):
            backtest_overfitting(gains, num_blocks=num_blocks)
    with pytest.raises(ConfigError, match="criterion among sharpe, mean, found 'omega'"):
        backtest_overfitting(gains, criterion="omega")
    with pytest.raises(ConfigError, match="at least 2 configurations to choose from, found 1"):
        backtest_overfitting(gains[:, :1])
    with pytest.raises(DataError, match=r"gains of shape \(N, K\), .* found \(100,\)"):
        backtest_overfitting(gains[:, 0])
    with pytest.raises(TooFewBarsError, match="needs at least 32 bars, found 31"):
        backtest_overfitting(gains[:31])
    gains[40, 1] = np.nan
    with pytest.raises(DataError, match="finite gains, found 1 that are not, the first at bar 40"):
        backtest_overfitting(gains)
