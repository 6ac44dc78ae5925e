import numpy as np
import pytest
from scipy.stats import bootstrap, norm, ttest_1samp
from scipy.stats import t as student_t

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.risk import mcneil_frey_test

LEVEL = 0.025
VAR = norm.ppf(LEVEL)
CVAR = -norm.pdf(VAR) / LEVEL


def beyond(rng, shape, distribution=norm):
    return distribution.ppf(LEVEL * rng.random(shape))


def test_the_statistic_is_the_t_statistic_of_the_residuals():
    rng = np.random.default_rng(0)
    scale = np.exp(0.3 * rng.standard_normal(3000))
    returns = scale * rng.standard_normal(3000)
    result = mcneil_frey_test(returns, scale * VAR, scale * CVAR, LEVEL, scale=scale)
    residuals = (CVAR - returns / scale)[returns < scale * VAR]
    expected = ttest_1samp(residuals, 0.0, alternative="greater")
    assert result.statistic == pytest.approx(expected.statistic, rel=1e-12)
    assert result.mean_residual == pytest.approx(residuals.mean(), rel=1e-9)
    assert (result.num_violations, result.num_bars) == (residuals.size, 3000)
    # With 80 residuals the bootstrap differs little from Student's law.
    assert result.pvalue == pytest.approx(expected.pvalue, abs=0.05)
    assert result.pvalue + result.too_cautious == pytest.approx(1.0, abs=1e-3)


def test_the_null_distribution_is_that_of_scipys_bootstrap():
    residuals = CVAR - beyond(np.random.default_rng(1), 40)
    centred = residuals - residuals.mean()
    null = bootstrap(
        (centred,),
        lambda x, axis: x.mean(axis) / (x.std(axis, ddof=1) / np.sqrt(40)),
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).bootstrap_distribution
    for shift in (-0.15, 0.0, 0.1):
        moved = CVAR - centred - shift * residuals.std()
        result = mcneil_frey_test(moved, VAR + 3, CVAR, LEVEL, resamples=20_000)
        assert result.pvalue == pytest.approx((null >= result.statistic).mean(), abs=0.015)


def test_the_upper_tail_is_the_mirror_image():
    returns = beyond(np.random.default_rng(3), 50)
    lower = mcneil_frey_test(returns, VAR, CVAR, LEVEL, seed=4)
    assert mcneil_frey_test(-returns, -VAR, -CVAR, 1 - LEVEL, seed=4) == lower


def test_equal_seeds_give_equal_pvalues():
    returns = beyond(np.random.default_rng(5), 50)
    first, again, other = (
        mcneil_frey_test(returns, VAR, CVAR, LEVEL, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first.pvalue != other.pvalue
    assert first.pvalue == pytest.approx(other.pvalue, abs=0.03)


def sizes(distribution, count, paths=2000):
    """Shares rejected on each side at 5 % of right forecasts with so many violations."""
    var = distribution.ppf(LEVEL)
    cvar = distribution.expect(lb=-np.inf, ub=var) / LEVEL
    results = [
        mcneil_frey_test(row, var, cvar, LEVEL, resamples=399, seed=seed)
        for seed, row in enumerate(beyond(np.random.default_rng(6), (paths, count), distribution))
    ]
    return np.mean([(r.pvalue <= 0.05, r.too_cautious <= 0.05) for r in results], axis=0)


@pytest.mark.slow
def test_size_of_a_right_normal_forecast():
    assert sizes(norm, 100) == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 2000))


@pytest.mark.parametrize(
    ("distribution", "count", "too_small", "too_cautious"),
    [(norm, 5, 0.02, 0.06), (student_t(4), 5, 0.01, 0.12), (student_t(4), 25, 0.04, 0.08)],
)
def test_size_with_few_violations_that_the_docstring_states(
    distribution, count, too_small, too_cautious
):
    assert sizes(distribution, count, 1000) == pytest.approx([too_small, too_cautious], abs=0.02)


def test_wrong_shortfalls_are_found():
    rng = np.random.default_rng(7)
    returns = student_t(4).rvs(8000, random_state=rng)
    var = student_t(4).ppf(LEVEL)
    normal = var * CVAR / VAR  # the right quantile, the tail of a normal distribution
    assert mcneil_frey_test(returns, var, normal, LEVEL).pvalue < 0.001
    assert mcneil_frey_test(-returns, -var, -normal, 1 - LEVEL).pvalue < 0.001
    assert mcneil_frey_test(returns, var, 2 * normal, LEVEL).too_cautious < 0.001


def test_what_cannot_be_tested():
    returns = np.concatenate([beyond(np.random.default_rng(8), 3), np.zeros(97)])
    with pytest.raises(
        TooFewBarsError,
        match="McNeil-Frey test with 3 of 5 violations needs at least 180 bars, found 100",
    ):
        mcneil_frey_test(returns, VAR, CVAR, LEVEL)
    with pytest.raises(TooFewBarsError, match="at least 1 bars"):
        mcneil_frey_test([], VAR, CVAR, LEVEL)
    with pytest.raises(DataError, match="residuals that differ"):
        mcneil_frey_test(np.full(10, -3.0), VAR, CVAR, LEVEL)
    with pytest.raises(DataError, match="positive scales, found 0"):
        mcneil_frey_test(returns, VAR, CVAR, LEVEL, scale=0.0)
    with pytest.raises(DataError, match="finite"):
        mcneil_frey_test(returns, VAR, np.nan, LEVEL)
    with pytest.raises(ConfigError, match="at least one resample, found 0"):
        mcneil_frey_test(returns, VAR, CVAR, LEVEL, resamples=0)
    with pytest.raises(ConfigError, match=r"level in \(0, 1\)"):
        mcneil_frey_test(returns, VAR, CVAR, 0.0)
