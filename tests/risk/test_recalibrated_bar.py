import math

import numpy as np
import pytest
from hypothesis import given

from glow_bt.errors import ConfigError
from glow_bt.risk.recalibrated_bar import corrected_tail
from glow_bt.risk.recalibration import Recalibrated, Recalibration
from tests.risk.test_recalibration import ASKED, LEVELS, NORMAL, OFFSETS, Normals, many, offsets_of


def tail_of(distribution, offsets, p, levels=LEVELS):
    state = Recalibration(levels=levels, offsets=tuple(map(float, offsets)))
    return corrected_tail(distribution, state, p)


def check_beside_the_distribution(own, offsets, levels=LEVELS):
    whole = Recalibrated(own, np.array([offsets], dtype=float), levels)
    for p in ASKED:
        tail = tail_of(own, offsets, p, levels)
        np.testing.assert_allclose(tail.quantile, whole.quantile(p)[0], rtol=1e-12, atol=1e-16)
        np.testing.assert_allclose(tail.shortfall, whole.shortfall(p)[0], rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("size", [0.0, 0.02, 0.2, 1.0, 2.0])
def test_quantile_and_shortfall_are_those_of_the_corrected_distribution(size):
    for seed in range(6):
        check_beside_the_distribution(many(1, seed), offsets_of(1, size, seed)[0])


@given(OFFSETS)
def test_they_are_for_any_offsets_and_a_distribution_without_kinks(offsets):
    check_beside_the_distribution(Normals(np.array([0.7])), offsets)


@pytest.mark.parametrize("levels", [(0.05,), (0.3, 0.4), (1e-6, 0.5), (0.6, 1 - 1e-6)])
def test_they_are_for_any_levels(levels):
    check_beside_the_distribution(many(1), [0.2, -0.1][: len(levels)], levels)


def test_the_returns_that_are_followed_tell_a_latent_s_side():
    own, offsets = many(1, 4), offsets_of(1, 0.3, 2)[0]
    followed = tail_of(own, offsets, 0.01).followed
    np.testing.assert_allclose(followed, own.at_latent((NORMAL + offsets)[None])[0], rtol=1e-14)
    state = Recalibration(offsets=tuple(offsets.tolist()))
    for y in np.linspace(-0.06, 0.06, 41):
        below = [bool(y < value) for value in followed]
        assert below == state.below(float(own.latent(np.array([y]))[0]))


@pytest.mark.parametrize("p", [0.0, 1.0, math.nan])
def test_levels_outside_of_0_and_1_are_refused(p):
    with pytest.raises(ConfigError, match=r"probability inside \(0, 1\), found"):
        tail_of(many(1), np.zeros(11), p)
