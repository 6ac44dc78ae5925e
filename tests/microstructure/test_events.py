import numpy as np
import pytest

from glow_bt.errors import DataError
from glow_bt.microstructure import BookStates, Trades
from tests.microstructure.markets import random_states, random_trades, trades_of


def test_parts_join_to_the_whole():
    trades = random_trades(0, 30, 1000)
    joined = Trades.joined([trades[:7], trades[7:7], trades[7:]])
    for name, values in vars(trades).items():
        assert np.array_equal(getattr(joined, name), values)
    states = random_states(0, 30, 1000)
    joined = BookStates.joined([states[:7], states[7:]])
    assert np.array_equal(joined.bids, states.bids, equal_nan=True)
    assert len(Trades.joined([])) == 0


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(2, "buy", 1, 1), (1, "buy", 1, 1)], "found 1 ms after 2 ms in row 1; sort"),
        ([(1, "buy", 1, 1), (1, "buy", 0, 1)], "positive prices, found 0.0 in row 1"),
        ([(1, "buy", float("nan"), 1)], "positive prices, found nan in row 0"),
        ([(1, "buy", 1, float("inf"))], "positive amounts, found inf"),
        ([(1, "buy", 1, -1)], "positive amounts, found -1.0"),
    ],
)
def test_trades_that_cannot_be_are_refused(rows, said):
    with pytest.raises(DataError, match=said):
        trades_of(*rows)


def test_a_side_is_known():
    trades = trades_of((1, "buy", 1, 1))
    with pytest.raises(DataError, match=r"sides of \+1 and -1, found 0"):
        Trades(trades.stamps, trades.prices, trades.amounts, np.zeros(1, np.int8))


def test_other_types_and_shapes_are_refused():
    trades = trades_of((1, "buy", 1, 1))
    with pytest.raises(DataError, match=r"prices as float64 of shape \(1,\), found int64"):
        Trades(trades.stamps, np.ones(1, np.int64), trades.amounts, trades.sides)
    with pytest.raises(DataError, match=r"prices as float64 .* found list"):
        Trades(trades.stamps, [1.0], trades.amounts, trades.sides)
    states = random_states(0, 3, 10)
    with pytest.raises(DataError, match=r"bids of shape \(N, K, 2\) with K levels"):
        BookStates(states.stamps, states.valid, states.bids[:, 0], states.asks)
    with pytest.raises(DataError, match=r"asks as float64 of shape \(3, 3, 2\)"):
        BookStates(states.stamps, states.valid, states.bids, states.asks[:, :2])
    with pytest.raises(DataError, match="in order of time"):
        BookStates(states.stamps[::-1] * 2, states.valid, states.bids, states.asks)


def test_states_of_different_depth_do_not_join():
    with pytest.raises(DataError, match=r"one number of levels, found \[2, 3\]"):
        BookStates.joined([random_states(0, 3, 10), random_states(0, 3, 10, levels=2)])
