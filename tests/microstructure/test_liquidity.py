import numpy as np
import pytest

from glow_bt.microstructure.liquidity import (
    depth_imbalance,
    hold,
    microprice,
    mid_price,
    spread_bps,
)
from tests.microstructure.markets import mirrored, random_states, states_of

STATES = states_of(
    (0, [(99, 3), (98, 1)], [(101, 1), (103, 2)]),
    (1, [(99.5, 1)], [(100.5, 3)]),
    (2, [], [(100.5, 3)]),
    (3, None, None),
    levels=2,
)
NAN = np.nan


def test_prices_and_spread_by_hand():
    np.testing.assert_array_equal(mid_price(STATES), [100, 100, NAN, NAN])
    np.testing.assert_allclose(spread_bps(STATES), [200, 100, NAN, NAN])
    # One part of 99 and three of 101; three of 99.5 and one of 100.5.
    np.testing.assert_array_equal(microprice(STATES), [100.5, 99.75, NAN, NAN])


def test_depth_imbalance_by_hand():
    np.testing.assert_array_equal(depth_imbalance(STATES, 1), [0.5, -0.5, -1, NAN])
    np.testing.assert_allclose(depth_imbalance(STATES, 2), [(4 - 3) / 7, -0.5, -1, NAN])


def test_swapped_sides_turn_the_imbalance_and_reflect_the_microprice():
    states = random_states(4, 200, 9000)
    swapped = mirrored(states)
    np.testing.assert_allclose(depth_imbalance(swapped, 3), -depth_imbalance(states, 3))
    np.testing.assert_allclose(microprice(swapped), 1000 - microprice(states))


def test_the_microprice_lies_within_the_spread():
    states = random_states(5, 200, 9000)
    assert (np.abs(microprice(states) - mid_price(states)) * 2e4 / mid_price(states)).max() <= (
        spread_bps(states).max()
    )


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_basis_points_do_not_depend_on_the_unit_of_prices(factor):
    scaled = states_of((0, [(99 * factor, 3)], [(101 * factor, 1)]))
    np.testing.assert_allclose(spread_bps(scaled), [200])


def test_states_hold_until_the_next_one():
    stamps, edges = np.array([0, 300, 300, 1500]), np.array([0, 1000, 2000, 3000])
    held = hold(stamps, edges)
    # State 1 is replaced within its millisecond.
    assert held.bars.tolist() == [0, 0, 1, 1, 2]
    assert held.states.tolist() == [0, 2, 2, 3, 3]
    assert held.lengths_ms.tolist() == [300, 700, 500, 500, 1000]
    np.testing.assert_array_equal(
        held.total(np.array([1.0, 50.0, 2.0, 4.0])), [300 + 1400, 1000 + 2000, 4000]
    )
