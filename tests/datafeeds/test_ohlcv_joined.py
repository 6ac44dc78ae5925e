"""Stored bars with funding and open interest: nothing that was not known yet, nothing stale."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datafeeds.ohlcv_joined import read_joined
from datafeeds.ohlcv_store import OhlcvStore
from datafeeds.series import FUNDING_STEP_MS, Page, SeriesKey
from glow_bt.errors import ConfigError, DataError
from tests.datafeeds.random_bars import make_bars

SYMBOL = "BTC/USDT:USDT"
HOUR = 3_600_000
START = pd.Timestamp("2024-01-01", tz="UTC").value // 1_000_000


def add(store, kind, window, values, step=HOUR):
    """Store values by hour since START; the window in hours as well."""
    timeframe = "" if kind == "funding_rate" else "1h"
    stamps = np.array([START + hour * HOUR for hour in sorted(values)], dtype=np.int64)
    span = range(START + window[0] * HOUR, START + window[1] * HOUR, step)
    numbers = np.array([[values[hour]] for hour in sorted(values)], dtype=float).reshape(-1, 1)
    with store.writer(SeriesKey("bybit", SYMBOL, kind, timeframe), step) as writer:
        writer.add(Page(span, stamps, numbers))


@pytest.fixture
def store(tmp_path):
    store = OhlcvStore(tmp_path)
    store.write("bybit", SYMBOL, "1h", make_bars(48))
    return store


def test_a_rate_counts_from_its_own_stamp_on(store):
    add(store, "funding_rate", (0, 49), {0: 1e-4, 8: 2e-4, 16: 3e-4, 24: 4e-4, 32: 5e-4, 40: 6e-4})
    bars = read_joined(store, "bybit", SYMBOL, "1h", also=["funding_rate"])
    np.testing.assert_allclose(bars["funding_rate"], np.repeat(np.arange(1, 7) * 1e-4, 8))


def test_open_interest_of_a_bar_is_what_was_known_at_its_close(store):
    add(store, "open_interest", (0, 48), {hour: 100.0 + hour for hour in range(48)})
    bars = read_joined(store, "bybit", SYMBOL, "1h", also=["open_interest"])
    assert bars["open_interest"].tolist() == [100.0 + hour for hour in range(48)]


def test_where_nothing_was_fetched_nothing_is_said(store):
    """A rate of an hour that was not asked for may have been another one since."""
    add(store, "funding_rate", (0, 10), {0: 1e-4, 8: 2e-4})
    add(store, "funding_rate", (20, 49), {24: 4e-4, 32: 5e-4, 40: 6e-4})
    rates = read_joined(store, "bybit", SYMBOL, "1h", also=["funding_rate"])["funding_rate"]
    assert rates.iloc[:10].notna().all()
    assert rates.iloc[10:24].isna().all()
    assert rates.iloc[24:].notna().all()


def test_bars_after_the_end_of_a_history_are_left_out(store):
    add(store, "funding_rate", (0, 30), {0: 1e-4, 8: 2e-4, 16: 3e-4, 24: 4e-4})
    assert len(read_joined(store, "bybit", SYMBOL, "1h", also=["funding_rate"])) == 30


@settings(deadline=None, max_examples=25)
@given(first=st.integers(0, 40), later=st.integers(0, 48), data=st.data())
def test_fetching_more_later_changes_no_value_that_was_there(tmp_path_factory, first, later, data):
    rates = {hour: (hour + 1) * 1e-5 for hour in data.draw(st.sets(st.integers(0, 48)))}
    store = OhlcvStore(tmp_path_factory.mktemp("store"))
    store.write("bybit", SYMBOL, "1h", make_bars(48))
    begin = data.draw(st.integers(0, first))
    for window in ((begin, first + 1), (begin, max(later, first) + 1)):
        inside = {hour: rate for hour, rate in rates.items() if window[0] <= hour < window[1]}
        add(store, "funding_rate", window, inside, FUNDING_STEP_MS)
        found = read_joined(store, "bybit", SYMBOL, "1h", also=["funding_rate"])
        if window[1] == first + 1:
            earlier = found
    same = found.loc[earlier.index]
    known = earlier["funding_rate"].notna()
    pd.testing.assert_frame_equal(same[known], earlier[known])
    pd.testing.assert_frame_equal(same.iloc[:, :5], earlier.iloc[:, :5])


def test_the_span_is_that_asked_for(store):
    add(store, "funding_rate", (0, 49), {0: 1e-4})
    bars = read_joined(
        store, "bybit", SYMBOL, "1h", "2024-01-01T10:00", "2024-01-02", also=["funding_rate"]
    )
    assert bars.index[0] == pd.Timestamp("2024-01-01T10:00", tz="UTC")
    assert len(bars) == 14
    assert (bars["funding_rate"] == 1e-4).all()


def test_what_is_not_stored_is_asked_for(store):
    with pytest.raises(DataError, match="expected stored funding_rate of bybit BTC/USDT:USDT"):
        read_joined(store, "bybit", SYMBOL, "1h")
    with pytest.raises(ConfigError, match="expected columns among funding_rate, open_interest"):
        read_joined(store, "bybit", SYMBOL, "1h", also=["mark"])
