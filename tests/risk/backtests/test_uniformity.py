import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.integrate import simpson
from scipy.special import kolmogorov
from scipy.stats import chi2

from glow_bt.errors import DataError, TooFewBarsError
from glow_bt.risk import anderson_darling_test, kolmogorov_smirnov_test
from glow_bt.risk.backtests.uniformity import anderson_darling_cdf

PIT = arrays(np.float64, st.integers(5, 40), elements=st.floats(0.001, 0.999))
BOTH = pytest.mark.parametrize("test", [kolmogorov_smirnov_test, anderson_darling_test])


@given(PIT)
def test_kolmogorov_smirnov_by_the_definition(pit):
    grid = np.sort(pit)
    above = np.arange(1, grid.size + 1) / grid.size - grid
    below = grid - np.arange(grid.size) / grid.size
    result = kolmogorov_smirnov_test(pit)
    assert result.statistic == pytest.approx(max(above.max(), below.max()), abs=1e-12)
    assert result.location in pit


def test_kolmogorov_smirnov_says_where():
    low = kolmogorov_smirnov_test(np.linspace(0.01, 0.5, 50))
    assert (low.above, low.location) == (True, 0.5)
    assert not kolmogorov_smirnov_test(np.linspace(0.5, 0.99, 50)).above


def test_kolmogorov_smirnov_has_the_limit_law_in_long_samples():
    pit = np.random.default_rng(0).random(20_000) ** 1.01
    result = kolmogorov_smirnov_test(pit)
    assert result.pvalue == pytest.approx(
        kolmogorov(np.sqrt(20_000) * result.statistic), abs=0.005
    )


@given(PIT)
def test_anderson_darling_is_the_weighted_squared_distance(pit):
    """N int (F_N(u) - u)^2 / (u (1 - u)) du, in closed form between neighbouring PITs."""
    count = pit.size
    edges = np.concatenate([[0.0], np.sort(pit), [1.0]])
    total = 0.0
    for share, low, high in zip(np.arange(count + 1) / count, edges, edges[1:], strict=False):
        # (c - u)^2 / (u (1 - u)) = -1 + c^2 / u + (1 - c)^2 / (1 - u)
        total += low - high
        total += share**2 * np.log(high / low) if share > 0 else 0.0
        total += (1 - share) ** 2 * np.log((1 - low) / (1 - high)) if share < 1 else 0.0
    assert anderson_darling_test(pit).statistic == pytest.approx(count * total, abs=1e-9)


@pytest.mark.parametrize(
    ("statistic", "pvalue"), [(1.933, 0.10), (2.492, 0.05), (3.070, 0.025), (3.857, 0.01)]
)
def test_critical_values_of_stephens_1974(statistic, pvalue):
    """Case 0, a fully specified distribution."""
    assert 1 - anderson_darling_cdf(statistic, 10_000) == pytest.approx(pvalue, abs=3e-4)


def limit_cdf(z):
    """The characteristic function of sum_j chi2_j / (j (j + 1)), inverted (Gil-Pelaez).

    phi(t)^2 = -2 pi i t / cos(pi / 2 sqrt(1 + 8 i t)), which is where A^2 tends to.
    """
    t = np.linspace(0.0, 400.0, 400_001)[1:]
    squared = -2j * np.pi * t / np.cos(np.pi / 2 * np.sqrt(1 + 8j * t))
    phi = np.sqrt(np.abs(squared)) * np.exp(0.5j * np.unwrap(np.angle(squared)))
    integrand = np.concatenate([[1.0 - z], np.imag(np.exp(-1j * t * z) * phi) / t])
    return 0.5 - simpson(integrand, dx=0.001) / np.pi


@pytest.mark.parametrize("z", [0.03, 0.1, 0.2, 0.5, 0.9, 1.5, 2.0, 2.5, 4.0, 9.0, 20.0, 29.9])
def test_the_limit_law_is_that_of_a_weighted_sum_of_squares(z):
    assert anderson_darling_cdf(z, 10**12) == pytest.approx(limit_cdf(z), abs=1e-10)


def test_far_out_the_limit_law_is_that_of_its_largest_weight():
    for z in (8.0, 12.0, 16.0):
        tail = 1 - anderson_darling_cdf(z, 10**15)
        assert tail == pytest.approx(np.sqrt(3) * chi2.sf(2 * z, 1), rel=0.05)
    assert anderson_darling_cdf(1e6, 10**12) == pytest.approx(1.0, abs=1e-12)
    assert anderson_darling_cdf(0.0, 100) == 0.0


@pytest.mark.parametrize("num_bars", [5, 8, 100])
def test_anderson_darling_pvalues_are_uniform(num_bars):
    draws = np.random.default_rng(5).random((4000, num_bars))
    pvalues = np.array([anderson_darling_test(pit).pvalue for pit in draws])
    for share in (0.01, 0.05, 0.25, 0.5, 0.75):
        error = np.sqrt(share * (1 - share) / 4000)
        assert (pvalues < share).mean() == pytest.approx(share, abs=3 * error)


@BOTH
def test_size(test):
    draws = np.random.default_rng(6).random((2000, 250))
    rejected = np.mean([test(pit).pvalue < 0.05 for pit in draws])
    assert rejected == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 2000))


@BOTH
def test_wrong_distributions_are_found(test):
    uniform = np.random.default_rng(7).random(2000)
    shifted = uniform**1.2
    narrow = 0.5 + 0.85 * (uniform - 0.5)  # the forecast is too wide
    for pit in (shifted, narrow):
        assert test(pit).pvalue < 1e-4


def test_anderson_darling_looks_at_the_tails():
    rng = np.random.default_rng(8)
    pit = rng.random(1000)
    pit[:25] = 1e-6 * rng.random(25)
    assert anderson_darling_test(pit).pvalue < 1e-4
    assert kolmogorov_smirnov_test(pit).pvalue > 0.05


def test_a_return_held_for_impossible():
    for impossible in (0.0, 1.0):
        result = anderson_darling_test([0.5, impossible, 0.4, 0.3, 0.9])
        assert (result.statistic, result.pvalue) == (np.inf, 0.0)


@BOTH
def test_what_is_no_pit(test):
    for values in ([0.5] * 5 + [1.5], [-0.1] * 5, [np.nan] + [0.5] * 5):
        with pytest.raises(DataError, match=r"expected a PIT inside \[0, 1\], found"):
            test(values)
    with pytest.raises(DataError, match=r"shape \(N,\), found \(2, 2\)"):
        test(np.full((2, 2), 0.5))
    with pytest.raises(TooFewBarsError, match=r"needs at least [15] bars, found 0"):
        test([])
