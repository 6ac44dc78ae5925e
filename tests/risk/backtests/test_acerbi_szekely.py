import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student_t

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.risk import acerbi_szekely_test, distribution_tail, exponential_tail
from glow_bt.risk.backtests.acerbi_szekely import Z2_CRITICAL_VALUE

LEVEL = 0.025


class Scaled:
    """A distribution of unit scale, times a scale a bar."""

    def __init__(self, distribution, scale):
        self.distribution, self.scale = distribution, scale

    def quantile(self, p):
        return self.scale * self.distribution.ppf(p)

    def shortfall(self, p):
        var = self.distribution.ppf(p)
        if p > 0.5:
            return self.scale * self.distribution.expect(lb=var) / (1 - p)
        return self.scale * self.distribution.expect(ub=var) / p

    def draw(self, rng, *shape):
        return self.scale * self.distribution.ppf(rng.random((*shape, self.scale.size)))


def scaled(distribution, num_bars, seed=0):
    return Scaled(
        distribution, np.exp(0.3 * np.random.default_rng(seed).standard_normal(num_bars))
    )


def test_z1_and_z2_by_hand():
    returns = np.array([-3.0, 0.5, -2.5, -1.0, 9.0])
    result = acerbi_szekely_test(
        returns, -2.0, [-2.5, -2.5, -2.0, -2.5, -2.5], 0.2, np.zeros((9, 5))
    )
    # Ratios 1.2 and 1.25 beyond; one violation is expected.
    assert result.z1 == pytest.approx(1 - 2.45 / 2)
    assert result.statistic == pytest.approx(1 - 2.45 / 1)
    assert (result.num_violations, result.num_bars, result.num_simulations) == (2, 5, 9)
    assert result.below_critical_value


def test_pvalues_are_shares_of_the_simulated_paths():
    rng = np.random.default_rng(1)
    model = scaled(norm, 400)
    returns, simulated = model.draw(rng), model.draw(rng, 499)
    var, cvar = model.quantile(LEVEL), model.shortfall(LEVEL)
    result = acerbi_szekely_test(returns, var, cvar, LEVEL, simulated)

    def z(path):
        ratios = (path / cvar)[path < var]
        return 1 - ratios.mean(), 1 - ratios.sum() / (400 * LEVEL)

    z1, z2 = z(returns)
    null = np.array([z(path) for path in simulated])
    assert (result.z1, result.statistic) == pytest.approx((z1, z2), rel=1e-12)
    assert result.pvalue == pytest.approx((1 + (null[:, 1] <= z2).sum()) / 500)
    assert result.z1_pvalue == pytest.approx((1 + (null[:, 0] <= z1).sum()) / 500)


def test_the_upper_tail_is_the_mirror_image():
    model = scaled(student_t(5), 600)
    rng = np.random.default_rng(2)
    returns, simulated = model.draw(rng), model.draw(rng, 99)
    var, cvar = model.quantile(LEVEL), model.shortfall(LEVEL)
    lower = acerbi_szekely_test(returns, var, cvar, LEVEL, simulated)
    assert acerbi_szekely_test(-returns, -var, -cvar, 1 - LEVEL, -simulated) == lower
    tail, mirrored = exponential_tail(var, cvar, LEVEL), exponential_tail(-var, -cvar, 1 - LEVEL)
    assert acerbi_szekely_test(-returns, -var, -cvar, 1 - LEVEL, mirrored) == acerbi_szekely_test(
        returns, var, cvar, LEVEL, tail
    )


@pytest.mark.parametrize("level", [LEVEL, 1 - LEVEL])
def test_tails_of_distributions_are_drawn_as_the_paths_are(level):
    model = scaled(student_t(5), 300)
    rng = np.random.default_rng(3)
    returns = model.draw(rng)
    var, cvar = model.quantile(level), model.shortfall(level)
    paths = acerbi_szekely_test(returns, var, cvar, level, model.draw(rng, 4000))
    tail = distribution_tail(model, level)
    drawn = acerbi_szekely_test(returns, var, cvar, level, tail, simulations=4000)
    assert drawn.num_simulations == 4000
    assert drawn.pvalue == pytest.approx(paths.pvalue, abs=0.035)
    assert drawn.z1_pvalue == pytest.approx(paths.z1_pvalue, abs=0.035)
    bars = np.repeat(np.arange(300), 500)
    ratios = tail(bars, rng.random(bars.size)) / cvar[bars]
    assert ratios.mean() == pytest.approx(1, abs=0.004)
    assert (tail(bars, rng.random(bars.size)) / var[bars]).min() > 1


@pytest.mark.parametrize("level", [0.01, 0.95])
def test_exponential_tails_have_the_quantile_and_the_shortfall(level):
    model = scaled(student_t(5), 3)
    var, cvar = model.quantile(level), model.shortfall(level)
    bars = np.repeat(np.arange(3), 100_000)
    drawn = exponential_tail(var, cvar, level)(bars, np.random.default_rng(4).random(bars.size))
    excess = ((drawn - var[bars]) / (cvar - var)[bars]).reshape(3, -1)
    assert (excess >= 0).all()
    assert excess.mean(axis=1) == pytest.approx(1, abs=0.015)
    assert excess.var(axis=1) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize(
    ("distribution", "critical"), [(norm, -0.70), (student_t(5), -0.74), (student_t(4), -0.76)]
)
def test_the_published_critical_value_is_for_250_bars(distribution, critical):
    """Acerbi & Szekely 2014: about -0.7 at 5 %, hardly moved by the tail."""
    assert Z2_CRITICAL_VALUE == -0.70
    rng = np.random.default_rng(5)
    counts = rng.binomial(250, LEVEL, 200_000)
    var = distribution.ppf(LEVEL)
    cvar = distribution.expect(ub=var) / LEVEL
    ratios = distribution.ppf(LEVEL * rng.random(counts.sum())) / cvar
    rows = np.repeat(np.arange(counts.size), counts)
    z2 = 1 - np.bincount(rows, weights=ratios, minlength=counts.size) / (250 * LEVEL)
    assert z2.mean() == pytest.approx(0, abs=0.005)
    assert np.quantile(z2, 0.05) == pytest.approx(critical, abs=0.012)


def rejected(distribution, tail_of, num_bars, **kwargs):
    model = scaled(distribution, num_bars)
    var, cvar = model.quantile(LEVEL), model.shortfall(LEVEL)
    tail = tail_of(model, var, cvar)
    results = [
        acerbi_szekely_test(path, var, cvar, LEVEL, tail, simulations=199, seed=seed, **kwargs)
        for seed, path in enumerate(model.draw(np.random.default_rng(6), 2000))
    ]
    return np.mean([(r.pvalue <= 0.05, (r.z1_pvalue or 1.0) <= 0.05) for r in results], axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("distribution", [norm, student_t(4)])
def test_size(distribution):
    """Right forecasts, simulated from themselves: exact for any number of bars."""
    size = rejected(distribution, lambda model, *_: distribution_tail(model, LEVEL), 500)
    assert size == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 2000))


@pytest.mark.slow
def test_size_with_exponential_tails_that_the_docstring_states():
    for distribution, z1, z2 in ((norm, 0.035, 0.05), (student_t(4), 0.09, 0.055)):
        size = rejected(distribution, lambda _, *risk: exponential_tail(*risk, LEVEL), 400)
        assert size == pytest.approx([z2, z1], abs=0.018)


def test_wrong_forecasts_are_found():
    model = scaled(student_t(4), 2000)
    returns = model.draw(np.random.default_rng(7))
    for level in (LEVEL, 1 - LEVEL):
        var, cvar = model.quantile(level), model.shortfall(level)
        narrow = acerbi_szekely_test(
            returns, 0.8 * var, 0.8 * cvar, level, exponential_tail(0.8 * var, 0.8 * cvar, level)
        )
        assert narrow.pvalue < 0.01
        thin = var * norm.expect(ub=norm.ppf(LEVEL)) / LEVEL / norm.ppf(LEVEL)
        light = acerbi_szekely_test(returns, var, thin, level, exponential_tail(var, thin, level))
        assert light.z1_pvalue < 0.01
        right = acerbi_szekely_test(returns, var, cvar, level, distribution_tail(model, level))
        assert 0.05 < right.pvalue < 0.99


def test_without_a_violation():
    result = acerbi_szekely_test(np.zeros(50), -2.0, -2.5, 0.01, np.zeros((3, 50)))
    assert (result.statistic, result.pvalue) == (1.0, 1.0)
    assert (result.z1, result.z1_pvalue) == (None, None)


def test_what_cannot_be_tested():
    returns, paths = np.zeros(4), np.zeros((9, 4))
    with pytest.raises(DataError, match=r"shape \(S, 4\), found \(9, 3\)"):
        acerbi_szekely_test(returns, -2.0, -2.5, 0.05, paths[:, :3])
    with pytest.raises(DataError, match=r"found \(0, 4\)"):
        acerbi_szekely_test(returns, -2.0, -2.5, 0.05, paths[:0])
    with pytest.raises(DataError, match="finite simulated returns"):
        acerbi_szekely_test(returns, -2.0, -2.5, 0.05, np.nan * paths)
    with pytest.raises(DataError, match="finite returns"):
        acerbi_szekely_test(returns, np.nan, -2.5, 0.05, paths)
    with pytest.raises(DataError, match="below zero in a lower tail"):
        acerbi_szekely_test(returns, -2.0, 2.5, 0.05, paths)
    with pytest.raises(TooFewBarsError, match="Acerbi-Szekely test needs at least 1"):
        acerbi_szekely_test([], -2.0, -2.5, 0.05, paths)
    with pytest.raises(ConfigError, match="at least one simulation, found 0"):
        acerbi_szekely_test(returns, -2.0, -2.5, 0.05, paths, simulations=0)
    with pytest.raises(ConfigError, match=r"level in \(0, 1\)"):
        acerbi_szekely_test(returns, -2.0, -2.5, 1.0, paths)


def test_tails_that_are_none():
    with pytest.raises(DataError, match="found 1 of 2 nearer to the middle"):
        exponential_tail([-2.0, -2.0], [-1.9, -2.1], 0.05)
    with pytest.raises(DataError, match="found 2 of 2 nearer"):
        exponential_tail([-2.0, -2.0], [-2.2, -2.1], 0.95)
    with pytest.raises(TooFewBarsError, match="exponential tail needs at least 1"):
        exponential_tail([], [], 0.05)
    with pytest.raises(ConfigError, match=r"level in \(0, 1\)"):
        exponential_tail([-2.0], [-2.1], 0.0)
    with pytest.raises(ConfigError, match="at least one stratum, found 0"):
        distribution_tail(scaled(norm, 3), 0.05, strata=0)
    with pytest.raises(ConfigError, match=r"level in \(0, 1\)"):
        distribution_tail(scaled(norm, 3), 1.0)
