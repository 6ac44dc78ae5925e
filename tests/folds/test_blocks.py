"""Purge, embargo and the least number of bars."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glow_bt.errors import ConfigError
from glow_bt.folds import check_purge, training_ranges
from glow_bt.folds.blocks import least_length

reaches = st.integers(0, 30)


@st.composite
def held_out_blocks(draw, n_bars):
    starts = draw(st.lists(st.integers(0, n_bars), max_size=5))
    return [range(start, min(start + draw(st.integers(0, 40)), n_bars)) for start in starts]


@given(st.data(), st.integers(0, 300), reaches, reaches)
def test_training_goes_on_wherever_no_held_out_bar_is_near(data, n_bars, purge, embargo):
    """Bar by bar: in, unless a held-out bar lies up to `purge` ahead or both behind."""
    held_out = data.draw(held_out_blocks(n_bars))
    found = training_ranges(n_bars, held_out, purge=purge, embargo=embargo)
    bars = {bar for block in held_out for bar in block}
    expected = [
        bar
        for bar in range(n_bars)
        if bars.isdisjoint(range(bar - purge - embargo, bar + purge + 1))
    ]
    assert [bar for block in found for bar in block] == expected
    assert all(found)


@given(st.data(), st.integers(1, 300), st.integers(1, 20), st.integers(1, 20))
def test_no_window_or_label_is_shared_with_a_held_out_block(data, n_bars, window, horizon):
    held_out = data.draw(held_out_blocks(n_bars))

    def touched(bar):
        """What a bar's features and label are made of."""
        return range(bar - window + 1, bar + horizon + 1)

    used = {b for block in held_out for bar in block for b in touched(bar)}
    for block in training_ranges(n_bars, held_out, purge=window + horizon):
        assert used.isdisjoint(range(touched(block[0]).start, touched(block[-1]).stop))


def test_an_embargo_comes_on_top_of_the_purge_and_only_behind():
    held_out = [range(60, 70), range(30, 40)]
    assert training_ranges(100, held_out, purge=3) == (range(27), range(43, 57), range(73, 100))
    assert training_ranges(100, held_out, purge=3, embargo=5) == (
        range(27),
        range(48, 57),
        range(78, 100),
    )


def test_nothing_is_left_where_blocks_lie_close():
    assert training_ranges(10, [range(4, 6)], purge=4) == ()
    assert training_ranges(10, [], purge=4) == (range(10),)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"purge": -1}, "purge of 0 bars or more, at most .* found -1"),
        ({"purge": 0, "embargo": -2}, "embargo of 0 bars or more, at most .* found -2"),
    ],
)
def test_negative_purges_and_embargoes_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        training_ranges(10, [range(2, 4)], **settings)


def test_a_purge_must_reach_as_far_as_windows_and_horizon():
    check_purge(67, 67)
    with pytest.raises(ConfigError, match=r"at least 67 bars, .* found 66; raise the purge"):
        check_purge(66, 67)


@given(st.integers(0, 10**12), st.integers(1, 10**12))
def test_the_least_length_is_found_in_few_questions(too_few, more):
    asked = []

    def suffices(length):
        asked.append(length)
        return length >= too_few + more

    assert least_length(suffices, too_few) == too_few + more
    assert len(asked) <= 2 * more.bit_length() + 2
