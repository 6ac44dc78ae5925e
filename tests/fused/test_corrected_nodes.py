"""Nodes of a recalibrated tail; what is made of them is in tests/risk/test_recalibrated_bar.py."""

import numpy as np
import pytest
from scipy.stats import norm

from glow_bt.fused.corrected_nodes import corrected_nodes

LEVELS = np.array([0.05, 0.3, 0.9])
OWN = norm.ppf(LEVELS)
NORMAL = np.array([-68.0, -4.0, *OWN, 4.0, 68.0])
RULE = np.array(np.polynomial.legendre.leggauss(12))
RULE[0] = 0.5 * (RULE[0] + 1)


def nodes_of(offsets, p, kinks=()):
    far = [cut for cut in (-30, -20, -12, -8, -6, -5, -4, *OWN) if cut < norm.ppf(min(p, 1 - p))]
    tail = np.array([*far, norm.ppf(min(p, 1 - p))])
    fixed = np.sort(-tail if p > 0.5 else tail)
    rows = (np.array(values, dtype=float) for values in (offsets, fixed, kinks))
    offsets, fixed, kinks = rows
    return corrected_nodes(NORMAL, offsets, 2, 0.25, fixed, kinks, RULE, p)


@pytest.mark.parametrize("p", [0.001, 0.02, 0.2, 0.97])
def test_without_offsets_weights_sum_to_1_and_give_the_mean_of_a_normal_tail(p):
    latents, weights = nodes_of([0, 0, 0], p, [-2.2, 3.0])
    assert latents[0] == pytest.approx(norm.ppf(p), rel=1e-12)
    np.testing.assert_allclose(latents[1:4], OWN, rtol=1e-14)
    np.testing.assert_array_equal(weights[:4], 0)
    assert weights.sum() == pytest.approx(1, rel=1e-10)
    sign = 1 if p > 0.5 else -1
    assert weights @ latents == pytest.approx(
        sign * norm.pdf(norm.ppf(p)) / min(p, 1 - p), rel=1e-9
    )


def test_kinks_inside_the_tail_alone_end_pieces():
    plain = nodes_of([0, 0, 0], 0.05).shape[1]
    cut = nodes_of([0, 0, 0], 0.05, [-40.0, -2.2, -1.0, -2.5, 5.0])
    assert cut.shape[1] == plain + 2 * RULE.shape[1]
    assert (np.diff(cut[0, 4:]) > 0).all()


def test_levels_that_cross_are_followed_as_they_are_and_spread_for_the_tail():
    latents = nodes_of([2.0, -1.0, 0.5], 0.4)[0]
    np.testing.assert_allclose(latents[1:4], OWN + np.array([2.0, -1.0, 0.5]), rtol=1e-14)
    assert (np.diff(latents[4:]) > 0).all()
