import json
import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special
from scipy.integrate import quad
from scipy.stats import norm

from glow_bt.errors import ConfigError, DataError
from glow_bt.fused import SkewedTails
from glow_bt.risk.recalibration import Recalibrated, Recalibration
from tests.flows.univariate_samples import INDICES, tails_of

LEVELS = Recalibration().levels
NORMAL = special.ndtri(np.array(LEVELS))
ASKED = [1e-6, 0.004, 0.01, 0.03, 0.05, 0.3, 0.5, 0.6, 0.95, 0.99, 0.999, 1 - 1e-6]
OFFSETS = st.lists(st.floats(-5, 5), min_size=11, max_size=11)


@dataclass(frozen=True, eq=False)
class Normals:
    """N normal distributions, the plainest that can be recalibrated."""

    sigma: np.ndarray
    kinks = np.empty(0)

    def at_latent(self, z):
        return self.sigma[:, None] * z

    def latent(self, y):
        return y / self.sigma

    def log_prob(self, returns):
        return norm.logpdf(returns, scale=self.sigma)

    def rows(self, rows):
        return Normals(self.sigma[rows])


def many(count, seed=0):
    rng = np.random.default_rng(seed)
    left, right = 1.2 + rng.lognormal(0.5, 1.0, (2, count))
    spline = tails_of(3.0, 5.0).spline
    return SkewedTails(0.01 * rng.lognormal(0, 1, count), left, right, 0.02, spline)


def offsets_of(count, size=0.15, seed=1):
    return np.random.default_rng(seed).normal(0, size, (count, len(LEVELS)))


def corrected(distribution, offsets):
    return Recalibrated(distribution, np.asarray(offsets, dtype=float), LEVELS)


def one(offsets, left=3.0, right=5.0, scale=0.01):
    return corrected(tails_of(left, right, scale), [offsets])


# The online rule


def test_each_quantile_takes_the_step_that_the_return_asks_for():
    start = Recalibration(0.1, (0.1, 0.5), (0.2, 0.0))
    trail, end = start.follow(np.array([-3.0, 0.01, 0.05]))
    # -3 is below both; 0.01 and 0.05 are above the first, 0.01 above the second at -0.05.
    np.testing.assert_allclose(trail[0], [0.2, 0.0], atol=1e-15)
    np.testing.assert_allclose(trail[1], [0.2 - 0.09, -0.05], atol=1e-15)
    np.testing.assert_allclose(trail[2], [0.2 - 0.08, 0.0], atol=1e-15)
    np.testing.assert_allclose(trail[3], [0.2 - 0.07, 0.05], atol=1e-15)
    assert end.offsets == tuple(trail[3])
    assert (end.step, end.levels) == (0.1, (0.1, 0.5))


@given(st.integers(0, 10**6), st.floats(1e-3, 0.5), st.floats(0.1, 10))
def test_the_share_of_violations_is_right_up_to_how_far_a_quantile_has_moved(seed, step, spread):
    z = spread * np.random.default_rng(seed).standard_t(2, 300)
    trail, _ = Recalibration(step).follow(z)
    violations = (z[:, None] < NORMAL + trail[:-1]).mean(axis=0)
    telescoped = LEVELS - (trail[-1] - trail[0]) / (step * 300)
    np.testing.assert_allclose(violations, telescoped, rtol=0, atol=1e-9)


def test_at_once_and_one_by_one_are_the_same_to_the_bit():
    z = np.random.default_rng(0).standard_t(4, 400)
    trail, end = Recalibration().follow(z)
    state, rows = Recalibration(), []
    for value in z:
        rows.append(state.offsets)
        state = Recalibration.from_dict(json.loads(json.dumps(state.to_dict())))
        state = state.follow(np.array([value]))[1]
    np.testing.assert_array_equal(trail[:-1], rows)
    assert end == state


def test_one_more_latent_moves_a_state_as_following_it_does():
    state = expected = Recalibration(0.02)
    for z in np.random.default_rng(1).standard_t(3, 300).tolist():
        state = state.after(state.below(z))
        expected = expected.follow(np.array([z]))[1]
        assert state == expected
    with pytest.raises(DataError, match="expected a latent, found NaN"):
        state.below(math.nan)


def test_a_trail_knows_nothing_of_latents_to_come():
    z = np.random.default_rng(0).standard_normal(50)
    trail, _ = Recalibration().follow(z)
    other, _ = Recalibration().follow(np.append(z[:20], -9 * np.ones(30)))
    np.testing.assert_array_equal(other[:21], trail[:21])
    assert (other[21] != trail[21]).any()


def test_without_latents_nothing_moves():
    start = Recalibration(offsets=tuple(np.linspace(-0.1, 0.1, 11).tolist()))
    trail, end = start.follow(np.empty(0))
    assert trail.shape == (1, 11)
    assert end == start


def test_a_step_of_0_never_moves():
    trail, end = Recalibration(0.0).follow(np.random.default_rng(0).standard_normal(100))
    np.testing.assert_array_equal(trail, np.zeros((101, 11)))
    assert end == Recalibration(0.0)


@pytest.mark.parametrize("wrong", [[[0.0]], 0.0, [0.0, math.nan]])
def test_latents_that_are_none_are_refused(wrong):
    with pytest.raises(DataError, match=r"latents of shape \(N,\) without NaN, found shape"):
        Recalibration().follow(np.array(wrong))


def test_an_infinite_latent_is_one_step_like_any_other():
    trail, _ = Recalibration().follow(np.array([-math.inf, math.inf]))
    expected, _ = Recalibration().follow(np.array([-9.0, 9.0]))
    np.testing.assert_array_equal(trail, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": -0.1}, "step of 0 or more, found -0.1"),
        ({"step": math.nan}, "step of 0 or more"),
        ({"step": math.inf}, "step of 0 or more"),
        ({"levels": ()}, "ascending levels"),
        ({"levels": (0.5, 0.1)}, "ascending levels"),
        ({"levels": (0.1, 0.1)}, "ascending levels"),
        ({"levels": (0.0, 0.5)}, "ascending levels"),
        ({"levels": (0.5, 1.0)}, "ascending levels"),
        ({"levels": (math.nan,)}, "ascending levels"),
        ({"offsets": (0.1,)}, "11 finite offsets"),
        ({"offsets": (math.nan,) * 11}, "11 finite offsets"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Recalibration(**settings)


def test_a_state_goes_through_json_with_every_bit():
    state = Recalibration(0.02).follow(np.random.default_rng(0).standard_t(3, 77))[1]
    assert Recalibration.from_dict(json.loads(json.dumps(state.to_dict()))) == state
    with pytest.raises(ConfigError, match=r"step, levels and offsets, found \['step'\]"):
        Recalibration.from_dict({"step": 0.1})
    for change in ({"step": "fast"}, {"levels": None}, {"offsets": ["x"] * 11}):
        with pytest.raises(ConfigError, match="expected a recalibration of numbers"):
            Recalibration.from_dict(state.to_dict() | change)


# The corrected distribution


def test_without_offsets_it_is_the_distribution_itself():
    own = many(300)
    same, y = corrected(own, np.zeros((300, 11))), own.quantile(0.2) * 1.3
    for p in ASKED:
        np.testing.assert_allclose(same.quantile(p), own.quantile(p), rtol=1e-12)
        np.testing.assert_allclose(same.shortfall(p), own.shortfall(p), rtol=1e-6)
    np.testing.assert_allclose(same.cdf(y), own.cdf(y), rtol=1e-12)
    np.testing.assert_allclose(same.latent(y), own.latent(y), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(same.log_prob(y), own.log_prob(y), rtol=1e-12)


def test_at_its_levels_a_quantile_is_the_one_followed():
    own, offsets = many(50), offsets_of(50, 0.02)
    for k, p in enumerate(LEVELS):
        expected = own.at_latent(NORMAL[k] + offsets[:, [k]])[:, 0]
        np.testing.assert_allclose(corrected(own, offsets).quantile(p), expected, rtol=1e-12)


def test_a_scale_of_its_own_is_a_scaling():
    """Offsets of (s - 1) w_k make N(0, 1) into N(0, s^2), up to 4 deviations."""
    same = corrected(Normals(np.ones(1)), [0.5 * NORMAL])
    for p in (4e-5, 0.001, *np.linspace(0.01, 0.99, 45), 0.9999):
        assert same.quantile(p)[0] == pytest.approx(1.5 * norm.ppf(p), abs=1e-12)
    assert same.quantile(norm.cdf(-5))[0] == pytest.approx(-1.5 * 4 - 1)
    y = np.linspace(-5.9, 5.9, 30)
    wide = corrected(Normals(np.ones(30)), np.tile(0.5 * NORMAL, (30, 1)))
    np.testing.assert_allclose(wide.cdf(y), norm.cdf(y, scale=1.5), rtol=1e-12)
    np.testing.assert_allclose(wide.log_prob(y), norm.logpdf(y, scale=1.5), rtol=1e-12)


def test_one_shift_for_all_levels_is_a_shift_of_the_latent_between_them():
    shifted = corrected(Normals(np.ones(1)), np.full((1, 11), 0.3))
    for p in np.linspace(0.01, 0.99, 45):
        assert shifted.quantile(p)[0] == pytest.approx(norm.ppf(p) + 0.3)
    for p, last in ((0.001, NORMAL[0]), (0.9999, NORMAL[-1])):
        assert shifted.quantile(p)[0] == pytest.approx(norm.ppf(p) * (last + 0.3) / last)


@given(OFFSETS)
def test_quantiles_never_cross(offsets):
    own = one(offsets)
    quantiles = np.array([own.quantile(p)[0] for p in np.linspace(0.001, 0.999, 333)])
    assert (np.diff(quantiles) > 0).all()
    assert (np.diff(own.knots) >= 0.25 * np.diff(own.normal) - 1e-12).all()


@given(OFFSETS)
def test_quantile_and_cdf_undo_each_other(offsets):
    own = one(offsets)
    for p in ASKED:
        assert own.cdf(own.quantile(p))[0] == pytest.approx(p, rel=1e-7)


def test_the_middle_stays_where_it_is_and_ascending_offsets_all_do():
    crossing = np.zeros((1, 11))
    crossing[0, 4:7] = (0.9, 0.1, -0.9)
    own = corrected(Normals(np.ones(1)), crossing)
    assert own.quantile(0.5)[0] == pytest.approx(0.1)
    fine = offsets_of(20, 0.02)
    inner = corrected(many(20), fine).knots[:, 1:-1]
    np.testing.assert_allclose(inner, NORMAL + fine, rtol=1e-14)


@given(st.lists(st.floats(-1, 1), min_size=11, max_size=11), st.integers(-8, 3))
def test_every_figure_is_finite_for_any_scale_and_heavy_tails(offsets, size):
    own = one(offsets, 1.2, 1.2, 10.0**size)
    for p in ASKED:
        y = own.quantile(p)
        assert np.isfinite([y, own.shortfall(p), own.cdf(y), own.log_prob(y)]).all()
        outside = own.shortfall(p) - y
        assert outside[0] > 0 if p > 0.5 else outside[0] < 0


def moved(own, w):
    """Return the latent that the normal quantile w stands for, of one row."""
    beyond = w - np.clip(w, own.normal[0], own.normal[-1])
    return np.interp(w, own.normal, own.knots[0]) + beyond


@pytest.mark.parametrize(("left", "right"), INDICES)
@pytest.mark.parametrize("seed", [0, 1])
def test_shortfall_is_the_mean_of_the_quantiles_beyond(left, right, seed):
    own = one(offsets_of(1, 0.1, seed)[0], left, right)
    kinks = [
        own.latent(own.distribution.at_latent(np.array([k]))[0])[0] for k in own.distribution.kinks
    ]
    for p in (0.004, 0.03, 0.3, 0.6, 0.99, 1 - 1e-6):
        sign = 1 if p > 0.5 else -1
        start = abs(norm.ppf(p))
        inner = [sign * kink for kink in (*kinks, *own.normal) if sign * kink > start]
        borders = sorted({start, *inner, *(start + np.array([1, 2, 4, 8, 14, 22, 32]))})

        def integrand(w, sign=sign):
            return own.distribution.at_latent(np.array([moved(own, sign * w)]))[0, 0] * norm.pdf(w)

        parts = [
            quad(integrand, a, b, epsabs=0, epsrel=1e-9)[0]
            for a, b in pairwise(borders)
            if b - a > 1e-9
        ]
        expected = math.fsum(parts) / min(p, 1 - p)
        assert own.shortfall(p)[0] == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_density_integrates_to_1_and_is_the_slope_of_the_cdf(seed):
    offsets = offsets_of(1, 0.2, seed)[0]
    own = one(offsets, 2.0, 4.0, 1.0)
    edges = np.array([own.quantile(p)[0] for p in norm.cdf(own.normal)])
    mass = [math.exp(own.log_prob(np.array([y]))[0]) for y in edges]
    assert np.isfinite(mass).all()
    total = 0.0
    for a, b in pairwise(edges):
        # Open at both ends: the density jumps at a level.
        places = a + (b - a) * (np.arange(20_000) + 0.5) / 20_000
        total += np.exp(own_at(own, places)).sum() * (b - a) / 20_000
    t = np.linspace(-40, 60, 40_001)
    for end, sign in ((edges[0], -1), (edges[-1], 1)):
        total += np.trapezoid(np.exp(own_at(own, end + sign * np.exp(t)) + t), t)
    assert total == pytest.approx(1, abs=1e-6)
    places = np.setdiff1d(np.linspace(-6, 6, 61), edges)
    step = 1e-6
    rise = corrected_cdf(own, places + step) - corrected_cdf(own, places - step)
    np.testing.assert_allclose(np.exp(own_at(own, places)), rise / (2 * step), rtol=1e-3)


def repeated(own, count):
    """Return the distribution of one row as many."""
    inner = own.distribution
    tiled = [np.repeat(getattr(inner, name), count) for name in ("scale", "left", "right")]
    offsets = np.repeat(own.knots[:, 1:-1] - NORMAL, count, axis=0)
    return corrected(SkewedTails(*tiled, inner.location, inner.spline), offsets)


def own_at(own, places):
    return repeated(own, len(places)).log_prob(places)


def corrected_cdf(own, places):
    return repeated(own, len(places)).cdf(places)


def test_rows_are_cut_together_and_the_same_in_any_company():
    own = corrected(many(5000), offsets_of(5000))
    y = own.quantile(0.3)
    for i in (0, 2047, 2048, 4999):
        row = slice(i, i + 1)
        alone = own.rows(row)
        for p in (0.01, 0.05, 0.9):
            np.testing.assert_allclose(alone.quantile(p), own.quantile(p)[row], rtol=1e-13)
            np.testing.assert_allclose(alone.shortfall(p), own.shortfall(p)[row], rtol=1e-12)
        np.testing.assert_allclose(alone.log_prob(y[row]), own.log_prob(y)[row], rtol=1e-13)
        np.testing.assert_allclose(alone.cdf(y[row]), 0.3, rtol=1e-12)


def test_none_at_all_give_no_figures():
    none = corrected(many(5), offsets_of(5)).rows(slice(0, 0))
    assert none.quantile(0.1).shape == none.shortfall(0.1).shape == (0,)
    assert none.cdf(np.empty(0)).shape == none.log_prob(np.empty(0)).shape == (0,)


def test_one_level_alone_is_a_shift_inwards_and_a_scaling_outwards():
    own = Recalibrated(Normals(np.ones(2)), np.array([[0.5], [-0.2]]), (0.05,))
    shifts, w = np.array([0.5, -0.2]), norm.ppf(0.05)
    np.testing.assert_allclose(own.quantile(0.3), norm.ppf(0.3) + shifts)
    np.testing.assert_allclose(own.quantile(0.01), norm.ppf(0.01) * (w + shifts) / w)


def test_the_mean_beyond_a_level_scales_with_a_wrong_scale():
    """The forecasts are half as wide as the returns: the shortfall is mended with the VaR."""
    own = corrected(Normals(np.ones(1)), [NORMAL])
    for p in (0.01, 0.025, 0.05):
        assert own.shortfall(p)[0] == pytest.approx(-2 * norm.pdf(norm.ppf(p)) / p, rel=1e-3)


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, 2.0, math.nan])
def test_levels_outside_of_0_and_1_are_refused(p):
    own = corrected(many(2), offsets_of(2))
    for ask in (own.quantile, own.shortfall):
        with pytest.raises(ConfigError, match=r"probability inside \(0, 1\), found"):
            ask(p)


@pytest.mark.parametrize("shape", [(11,), (4, 10), (4, 12)])
def test_offsets_of_other_levels_are_refused(shape):
    with pytest.raises(DataError, match=r"offsets of shape \(N, 11\), one a level, found"):
        Recalibrated(many(4), np.zeros(shape), LEVELS)


# Along a stream of returns


def stream(count, wrong_by, seed=0, step=0.01):
    """Return latents of normal returns under a forecast of 1 / wrong_by times their deviation."""
    z = wrong_by * np.random.default_rng(seed).standard_normal(count)
    trail, _ = Recalibration(step).follow(z)
    return z, trail[:-1]


def test_a_forecast_of_a_wrong_scale_is_violated_as_often_as_it_says_in_the_end():
    z, offsets = stream(20_000, 1.5)
    own = corrected(Normals(np.ones(20_000)), offsets)
    plain = Normals(np.ones(20_000))
    for k, p in enumerate(LEVELS):
        rate = (z < own.quantile(p)).mean()
        moved = abs(offsets[-1, k]) + 0.01
        assert abs(rate - p) <= moved / (0.01 * 20_000) + 1e-3
        if p != 0.5:
            uncorrected = (z < plain.at_latent(NORMAL[[k]])[:, 0]).mean()
            assert abs(uncorrected - p) > 3 * abs(rate - p)
    after = slice(2000, None)
    gain = own.log_prob(z)[after].mean() - plain.log_prob(z)[after].mean()
    best = norm.logpdf(z, scale=1.5)[after].mean() - plain.log_prob(z)[after].mean()
    assert gain > 0.9 * best > 0.1


def test_a_right_forecast_loses_little_likelihood():
    """0.0048 nats a bar at the default step of 0.01, in proportion to the step."""
    losses = []
    for step in (0.01, 0.005):
        z, offsets = stream(100_000, 1.0, step=step)
        own = corrected(Normals(np.ones(100_000)), offsets)
        losses.append(norm.logpdf(z).mean() - own.log_prob(z).mean())
    assert losses == pytest.approx([0.0048, 0.0024], rel=0.15)


def test_a_right_forecast_keeps_its_shortfall():
    _, offsets = stream(20_000, 1.0)
    own = corrected(Normals(np.ones(20_000)), offsets)
    exact = -norm.pdf(norm.ppf(0.025)) / 0.025
    assert own.shortfall(0.025).mean() == pytest.approx(exact, rel=0.01)
    assert own.shortfall(0.025).std() < 0.1
