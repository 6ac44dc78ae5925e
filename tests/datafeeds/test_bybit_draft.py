import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datafeeds.bybit_draft import SETTLING_MS, Draft
from datafeeds.bybit_klines import Klines
from datafeeds.bybit_markets import Market
from datafeeds.bybit_series import series_of
from glow_bt.errors import MalformedAnswerError

MARKET = Market("BTC/USDT:USDT", "BTCUSDT", "linear")
BARS = series_of(MARKET, "bars", "1m")
FUNDING = series_of(MARKET, "funding_rate", "")
MINUTE, HOUR = 60_000, 3_600_000
WINDOW = range(0, 10 * MINUTE, MINUTE)


def bars(stamps, *, forming_from=None):
    """Bars whose values follow from their stamps; those still forming have others."""
    stamps = np.array(stamps, dtype=np.int64)
    values = np.repeat(1.0 + stamps[:, None] / MINUTE, 5, axis=1)
    if forming_from is not None:
        values[stamps >= forming_from] *= 0.5
    return Klines(stamps, values)


def seen_at(data_ms, window=WINDOW):
    """What the exchange shows of a window and the step after it at a moment."""
    stamps = [s for s in range(window.start, window.stop + MINUTE, MINUTE) if s <= data_ms]
    return bars(stamps, forming_from=data_ms - data_ms % MINUTE)


def assert_true(draft):
    expected = bars(draft.rows.stamps)
    np.testing.assert_array_equal(draft.rows.values, expected.values)


@given(st.lists(st.tuples(st.integers(0, 13 * MINUTE), st.integers(0, 5 * MINUTE)), max_size=12))
def test_values_of_a_forming_bar_are_never_final(moments):
    """However late the data are that answers show, and however often the same."""
    draft = Draft(BARS, WINDOW)
    for at_ms, late_ms in moments:
        draft.take(seen_at(max(at_ms - late_ms, 0)), at_ms, reaches_present=True)
        draft.accept_last(None)
    assert_true(draft)
    page = draft.page(None)
    if page is not None:
        missing = set(page.window) - set(page.stamps.tolist())
        assert page.window.start == 0
        assert not {stamp for stamp in missing if stamp in draft.rows.stamps}


@given(st.integers(0, 12 * MINUTE))
def test_an_answer_in_time_gives_all_that_has_closed(at_ms):
    draft = Draft(BARS, WINDOW)
    draft.take(seen_at(at_ms), at_ms, reaches_present=True)
    closed = [stamp for stamp in WINDOW if stamp + MINUTE <= at_ms]
    assert draft.rows.stamps.tolist() == closed
    page = draft.page(None)
    assert (page is None) == (not closed)
    if page is not None:
        assert page.window == range(0, closed[-1] + MINUTE, MINUTE)


@pytest.mark.parametrize(("age", "kept"), [(SETTLING_MS - 1, 9), (SETTLING_MS, 10)])
def test_without_a_later_row_a_bar_is_final_when_it_has_settled(age, kept):
    draft = Draft(BARS, WINDOW)
    draft.take(bars(WINDOW), WINDOW.stop + age, reaches_present=False)
    assert len(draft.rows) == kept


def test_at_the_present_the_last_bar_must_be_known_for_the_last_and_three_times_alike():
    draft = Draft(BARS, WINDOW)
    late, last = WINDOW.stop + SETTLING_MS, WINDOW[-1]
    for _ in range(3):
        draft.accept_last(last)
        assert draft.is_unsure == (draft.answers > 0)
        assert draft.page(None) is None or draft.page(None).window.stop == last
        draft.take(bars(WINDOW), late, reaches_present=True)
    for known in (None, WINDOW[-2]):
        draft.accept_last(known)
        assert draft.page(known).stamps[-1] == WINDOW[-2]
    draft.accept_last(last)
    assert not draft.is_unsure
    assert draft.page(last).window == WINDOW
    assert_true(draft)


def test_an_answer_that_contradicts_is_not_taken():
    draft = Draft(BARS, WINDOW)
    draft.take(bars(WINDOW[:5]), WINDOW.stop + HOUR, reaches_present=False)
    with pytest.raises(MalformedAnswerError, match="the same each time"):
        draft.take(bars(WINDOW, forming_from=0), WINDOW.stop + HOUR, reaches_present=False)
    assert draft.answers == 1
    assert_true(draft)


def test_what_is_missing_lies_between_the_first_row_and_the_last():
    draft = Draft(BARS, WINDOW)
    draft.take(bars([2 * MINUTE, 5 * MINUTE]), WINDOW.stop + HOUR, reaches_present=False)
    assert draft.missing(None, None).tolist() == [m * MINUTE for m in (0, 1, 3, 4, 6, 7, 8, 9)]
    assert draft.missing(2 * MINUTE, 5 * MINUTE).tolist() == [3 * MINUTE, 4 * MINUTE]
    assert draft.page(5 * MINUTE).window.stop == 6 * MINUTE


def rates(hours):
    stamps = np.array(hours, dtype=np.int64) * HOUR
    return Klines(stamps, np.ones((len(stamps), 1)))


@pytest.mark.parametrize(
    ("hours", "odd"),
    [
        (range(0, 48, 8), []),
        (range(0, 48, 4), []),
        (range(48), []),
        (range(7, 48, 8), []),
        ([0, 8, 16, 40], [16, 40]),  # longer than eight hours
        ([0, 8, 16, 24], [24, 47]),
        ([16, 24, 32, 40], [0, 16]),
        ([*range(20), *range(24, 48)], [19, 24]),  # longer than beside it
        ([*range(0, 24, 8), *range(24, 48)], [16, 24]),  # a change: asked about
        ([], [0, 47]),
    ],
)
def test_gaps_between_payments_that_may_hide_one(hours, odd):
    window = range(0, 48 * HOUR, HOUR)
    draft = Draft(FUNDING, window)
    draft.take(rates(hours), 100 * HOUR, reaches_present=False)
    assert (draft.missing(None, None) // HOUR).tolist() == odd
