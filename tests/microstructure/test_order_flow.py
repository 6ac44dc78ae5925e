import numpy as np
import pytest

from glow_bt.microstructure import BookStates
from glow_bt.microstructure.order_flow import order_flow
from tests.microstructure.markets import mirrored, random_states, states_of

BEFORE = (0, [(100, 5)], [(101, 4)])


@pytest.mark.parametrize(
    ("after", "flow"),
    [
        ((1, [(100, 7)], [(101, 4)]), 7 - 5 - 4 + 4),  # two more on the bid
        ((1, [(100.5, 3)], [(101, 4)]), 3 - 4 + 4),  # a better bid of three
        ((1, [(99, 6)], [(101, 4)]), -5 - 4 + 4),  # the bid of five is gone
        ((1, [(100, 5)], [(101, 1)]), 5 - 5 - 1 + 4),  # three taken from the ask
        ((1, [(100, 5)], [(100.5, 2)]), 5 - 5 - 2),  # a better ask of two
        ((1, [(100, 5)], [(102, 9)]), 5 - 5 + 4),  # the ask of four is gone
        ((1, [(101, 2)], [(102, 9)]), 2 + 4),  # both prices up
        (BEFORE, 0),
    ],
)
def test_the_best_level_by_hand(after, flow):
    np.testing.assert_array_equal(order_flow(states_of(BEFORE, after)), [[np.nan], [flow]])


def test_each_level_by_hand():
    states = states_of(
        (0, [(100, 5), (99, 8)], [(101, 4), (102, 6)]),
        (1, [(100.5, 3), (100, 5)], [(101, 4), (103, 1)]),
        levels=2,
    )
    # Level 2: bid 99 -> 100 gives +5; ask 102 -> 103 gives +6.
    np.testing.assert_array_equal(order_flow(states)[1], [3, 5 + 6])


def test_a_level_that_comes_or_goes_counts_with_its_size():
    states = states_of((0, [(100, 5)], []), (1, [(100, 5)], [(101, 4)]), (2, [], [(101, 4)]))
    np.testing.assert_array_equal(order_flow(states)[1:, 0], [-4, -5])


def test_no_flow_is_known_beside_a_lost_book():
    flow = order_flow(states_of(BEFORE, (1, None, None), (2, *BEFORE[1:]), (3, *BEFORE[1:])))
    np.testing.assert_array_equal(flow[:, 0], [np.nan, np.nan, np.nan, 0])


def test_swapped_sides_turn_the_sign():
    states = random_states(1, 300, 9000)
    np.testing.assert_allclose(order_flow(mirrored(states)), -order_flow(states))


def test_flow_has_the_unit_of_sizes():
    states = random_states(2, 100, 9000)
    scale = np.array([3.0, 7.0])
    scaled = BookStates(states.stamps, states.valid, states.bids * scale, states.asks * scale)
    np.testing.assert_allclose(order_flow(scaled), 7 * order_flow(states))
