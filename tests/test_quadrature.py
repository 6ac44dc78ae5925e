import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import special
from scipy.integrate import quad
from scipy.stats import norm

from glow_bt.quadrature import (
    nodes_between,
    normal_tail_cuts,
    normal_tail_nodes,
    normal_tail_weights,
)

LEVELS = [1e-12, 1e-6, 0.01, 0.05, 0.3, 0.5, 0.7, 0.95, 0.99, 1 - 1e-6]


def beyond(p, of, borders=()):
    z, weights = normal_tail_nodes(p, borders)
    return float(weights @ of(z))


@pytest.mark.parametrize("p", LEVELS)
def test_weights_sum_to_1_and_nodes_lie_in_the_tail(p):
    z, weights = normal_tail_nodes(p)
    assert weights.sum() == pytest.approx(1, rel=1e-10)
    assert (weights >= 0).all()
    start = norm.ppf(p)
    assert (z > start).all() if p > 0.5 else (z < start).all()


@pytest.mark.parametrize("p", LEVELS)
def test_moments_of_the_tail_are_their_closed_forms(p):
    start, sign = norm.ppf(p), 1 if p > 0.5 else -1
    mass = min(p, 1 - p)
    mean = sign * norm.pdf(start) / mass
    assert beyond(p, lambda z: z) == pytest.approx(mean, rel=1e-10)
    assert beyond(p, np.square) == pytest.approx(1 + start * mean, rel=1e-10)
    growth = math.exp(0.5) * special.ndtr(1 - sign * start) / mass
    assert beyond(p, lambda z: np.exp(np.abs(z))) == pytest.approx(growth, rel=1e-10)


@pytest.mark.parametrize("p", [0.01, 0.5, 0.95])
@pytest.mark.parametrize("index", [1.2, 2.0, 30.0])
def test_power_laws_are_integrated_to_ten_digits(p, index):
    def stretched(z):
        return np.exp(0.5 * z * z / index) * np.sqrt(-index * np.expm1(-z * z / index))

    start = abs(norm.ppf(p))
    pieces = pairwise([start, *np.arange(math.floor(start) + 1.0, 37.0)])
    parts = [
        quad(lambda z: stretched(z) * norm.pdf(z), a, b, epsabs=0, epsrel=1e-12)[0]
        for a, b in pieces
    ]
    assert beyond(p, stretched) == pytest.approx(math.fsum(parts) / min(p, 1 - p), rel=1e-9)


@pytest.mark.parametrize("p", [0.01, 0.5, 0.7])
def test_kinks_at_borders_cost_nothing(p):
    kinks = np.array([3.1, -2.9, 2.7, -0.4, 0.6, 0.6, -90.0])

    def kinked(z):
        return np.abs(z[:, None] - kinks).sum(axis=1)

    mass, start = min(p, 1 - p), norm.ppf(p)
    sign = 1 if p > 0.5 else -1
    # E|Z - k| over the tail in closed form, through its two sides.
    expected = 0.0
    for k in sign * kinks:  # as if it were an upper tail
        a = sign * start
        outer = norm.pdf(max(a, k)) - k * norm.sf(max(a, k))
        inner = 0.0
        if k > a:
            inner = k * (norm.cdf(k) - norm.cdf(a)) - (norm.pdf(a) - norm.pdf(k))
        expected += (outer + inner) / mass
    assert beyond(p, kinked, kinks) == pytest.approx(expected, rel=1e-12)
    assert beyond(p, kinked) != pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("p", [0.01, 0.99])
def test_borders_of_many_rows_are_those_of_each(p):
    borders = np.random.default_rng(0).normal(0, 3, (6, 4))
    cuts = normal_tail_cuts(p, borders)
    z, weights = nodes_between(cuts), normal_tail_weights(p, cuts)
    assert (np.diff(cuts) >= 0).all()
    assert z.shape == weights.shape == (6, (cuts.shape[1] - 1) * 12)
    for row in range(6):
        own_z, own_weights = normal_tail_nodes(p, borders[row])
        held = weights[row] > 0
        np.testing.assert_allclose(z[row][held], own_z[own_weights > 0], rtol=1e-14)
        np.testing.assert_allclose(weights[row][held], own_weights[own_weights > 0], rtol=1e-12)
