import numpy as np

from glow_bt.microstructure import BookStates, MicrostructureSpec
from glow_bt.microstructure.book_features import BookFeatures
from tests.microstructure.markets import mirrored, random_states, states_of

NAN = np.nan
A = ([(99, 3)], [(101, 1)])
B = ([(99.5, 1)], [(100.5, 3)])
NOTHING = ("book_valid_share", "book_updates")


def features(states, bars, levels=1, standing=None):
    spec = MicrostructureSpec(1000, levels=levels)
    return BookFeatures(spec, 0, standing).update(states, 1000 * np.arange(bars + 1))


def test_bars_by_hand():
    got = features(states_of((0, *A), (250, *B), (1999, *A)), 2)
    assert got["book_valid_share"].tolist() == [1, 1]
    assert got["book_updates"].tolist() == [2, 1]
    # Spreads of 200 and 100 basis points, imbalances of 1/2 and -1/2.
    np.testing.assert_allclose(got["spread_bps"], [0.25 * 200 + 0.75 * 100, 100.1])
    np.testing.assert_allclose(got["depth_imbalance"], [0.125 - 0.375, -0.4995 + 0.0005])
    np.testing.assert_allclose(got["depth_imbalance_close"], [-0.5, 0.5])
    assert got["mid"].tolist() == [100, 100]
    np.testing.assert_allclose(got["microprice"], [99.75, 100.5])
    # Bid 99 -> 99.5 adds 1, ask 101 -> 100.5 adds 3; then the bid loses 1 and the ask 3.
    assert got["ofi_1"].tolist() == [1 - 3, -1 + 3]


def test_a_state_from_the_close_on_is_of_the_next_bar():
    got = features(states_of((0, *A), (1000, *B)), 2)
    assert got["spread_bps"].tolist() == [200, 100]
    assert got["ofi_1"].tolist() == [0, -2]


def test_a_bar_without_messages_has_the_book_that_stands():
    got = features(states_of((0, *A)), 3)
    assert got["book_updates"].tolist() == [1, 0, 0]
    assert got["spread_bps"].tolist() == [200] * 3
    assert got["ofi_1"].tolist() == [0] * 3


def test_bars_that_touch_a_lost_book_are_told_apart():
    got = features(
        states_of((100, *A), (1500, None, None), (3000, *B), (4000, None, None), (4000, *A)), 6
    )
    np.testing.assert_allclose(got["book_valid_share"], [0.9, 0.5, 0, 1, 1, 1])
    known = [False, False, False, True, False, True]
    for name, values in got.items():
        if name not in NOTHING:
            np.testing.assert_array_equal(np.isfinite(values), known, err_msg=name)


def test_an_empty_side_has_no_spread_but_depth():
    got = features(states_of((0, *A), (500, A[0], [])), 1)
    assert np.isnan([got[name][0] for name in ("spread_bps", "mid", "microprice")]).all()
    np.testing.assert_allclose(got["depth_imbalance"], [0.5 * 0.5 + 0.5])
    assert got["ofi_1"].tolist() == [1]


def test_the_book_that_stood_before_counts_from_the_first_open():
    got = features(states_of((250, *B)), 1, standing=states_of((-7000, *A)))
    np.testing.assert_allclose(got["spread_bps"], [125])
    assert got["ofi_1"].tolist() == [-2]


def test_levels_beyond_those_asked_for_do_not_count():
    states = random_states(0, 400, 20_000, levels=4)
    got = features(states, 20, levels=2)
    cut = BookStates(states.stamps, states.valid, states.bids[:, :2], states.asks[:, :2])
    for name, values in features(cut, 20, levels=2).items():
        np.testing.assert_array_equal(got[name], values)


def test_swapped_sides_turn_what_has_a_sign():
    states = random_states(1, 900, 20_000, losses=0.02)
    got, turned = (features(events, 20, levels=3) for events in (states, mirrored(states)))
    assert np.isfinite(got["ofi_1"]).sum() > 5
    for name in ("depth_imbalance", "depth_imbalance_close", "ofi_1", "ofi_3"):
        np.testing.assert_allclose(turned[name], -got[name], err_msg=name, atol=1e-12)
    np.testing.assert_allclose(turned["mid"], 1000 - got["mid"])
    np.testing.assert_array_equal(turned["book_valid_share"], got["book_valid_share"])


def brute_force(states, bars, level):
    """Spread, imbalance and flow of each bar, millisecond by millisecond and state by state."""

    def row_at(ms):
        rows = [i for i, stamp in enumerate(states.stamps.tolist()) if stamp <= ms]
        return rows[-1] if rows else None

    for bar in range(bars):
        spread = imbalance = 0.0
        touched = False
        for ms in range(1000 * bar, 1000 * bar + 1000):
            row = row_at(ms)
            if row is None or not states.valid[row]:
                touched = True
                continue
            (bid, q), (ask, r) = states.bids[row][0], states.asks[row][0]
            spread += 1e4 * (ask - bid) / ((ask + bid) / 2) / 1000
            q, r = (np.nansum(side[row][: level + 1, 1]) for side in (states.bids, states.asks))
            imbalance += (q - r) / (q + r) / 1000
        flow = 0.0
        for i in range(1, len(states)):
            if states.stamps[i] // 1000 == bar:
                touched |= not states.valid[i]
                if states.valid[i] and states.valid[i - 1]:
                    (b0, q0), (b1, q1) = states.bids[i - 1][level], states.bids[i][level]
                    (a0, r0), (a1, r1) = states.asks[i - 1][level], states.asks[i][level]
                    flow += q1 * (b1 >= b0) - q0 * (b1 <= b0)
                    flow += -r1 * (a1 <= a0) + r0 * (a1 >= a0)
        yield (NAN, NAN, NAN) if touched else (spread, imbalance, flow)


def test_bars_are_what_going_through_every_millisecond_gives():
    states = random_states(7, 120, 6000, levels=2, losses=0.01)
    assert np.isfinite(states.bids[states.valid]).all()
    got = features(states, 6, levels=2)
    want = np.array(list(brute_force(states, 6, level=1))).T
    assert 0 < np.isnan(want[0]).sum() < 5
    for name, values in zip(("spread_bps", "depth_imbalance", "ofi_2"), want, strict=True):
        np.testing.assert_allclose(got[name], values, err_msg=name)
