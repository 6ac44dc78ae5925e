import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glow_bt.errors import ConfigError, DataError
from glow_bt.microstructure import (
    BookStates,
    MicrostructureSpec,
    MicrostructureStream,
    Trades,
    microstructure_bars,
)
from tests.microstructure.markets import random_states, random_trades, states_of, trades_of

START = 1_700_000_000_000
SPAN = 60_000
SPECS = [
    MicrostructureSpec(1000, levels=2, bucket_volume=7.3, buckets=4, window=8),
    MicrostructureSpec(2000, levels=3, bucket_volume=1.0, classification="bulk", interval_ms=500),
    MicrostructureSpec(500, levels=1, vwap_reference="mid", impact="sqrt", window=20),
]


def market(seed, trades=700, messages=900):
    return (
        random_trades(seed, trades, SPAN, START),
        random_states(seed, messages, SPAN, start_ms=START, losses=0.01),
    )


def cut_at(events, stamps):
    rows = np.searchsorted(events.stamps, stamps)
    return [events[a:b] for a, b in zip([0, *rows], [*rows, len(events)], strict=True)]


@pytest.mark.parametrize("spec", SPECS)
def test_bars_as_events_arrive_are_those_of_the_whole_record(spec):
    trades, states = market(0)
    whole = microstructure_bars(spec, trades, states)
    since = START - START % spec.step_ms
    stream = MicrostructureStream(spec, since)
    now = np.sort(np.random.default_rng(1).integers(START, START + SPAN, 200))
    frames = []
    stamps = [*now.tolist(), START + SPAN]
    for piece, new, stamp in zip(cut_at(trades, now), cut_at(states, now), stamps, strict=True):
        stream.add_trades(piece)
        stream.add_book(new)
        frames.append(stream.close(stamp))
    parts = pd.concat([frame for frame in frames if len(frame)])
    pd.testing.assert_frame_equal(parts.iloc[: len(whole)], whole, check_exact=True)
    assert parts.index[0] == pd.Timestamp(since, unit="ms", tz="UTC")
    assert len(parts) - len(whole) <= 1


@settings(max_examples=12)
@given(st.integers(0, 10_000), st.integers(1, SPAN - 1), st.sampled_from(SPECS))
def test_what_comes_later_changes_nothing_before(seed, moment, spec):
    trades, states = market(seed, 200, 200)
    other_trades, other_states = market(seed + 1, 200, 200)
    close = START + moment
    mixed_trades = Trades.joined([cut_at(trades, [close])[0], cut_at(other_trades, [close])[1]])
    mixed_states = BookStates.joined(
        [cut_at(states, [close])[0], cut_at(other_states, [close])[1]]
    )
    reach = {"since_ms": START, "until_ms": START + SPAN}
    whole = microstructure_bars(spec, trades, states, **reach)
    mixed = microstructure_bars(spec, mixed_trades, mixed_states, **reach)
    closed = whole.index + pd.Timedelta(milliseconds=spec.step_ms) <= pd.Timestamp(
        close, unit="ms", tz="UTC"
    )
    pd.testing.assert_frame_equal(mixed[closed], whole[closed], check_exact=True)


def test_an_event_at_the_close_is_of_the_next_bar():
    trades = trades_of(
        (0, "buy", 1, 1), (999, "buy", 1, 1), (1000, "buy", 1, 8), (2000, "buy", 1, 1)
    )
    bars = microstructure_bars(MicrostructureSpec(1000), trades)
    assert bars["buy_volume"].tolist() == [2, 8]
    assert bars.index.tolist() == [pd.Timestamp(s, unit="s", tz="UTC") for s in (0, 1)]


def test_a_bar_that_no_event_closes_is_left_out_unless_the_record_is_known_to_reach():
    trades = trades_of((100, "buy", 1, 1), (1500, "buy", 1, 1))
    assert len(microstructure_bars(MicrostructureSpec(1000), trades)) == 1
    bars = microstructure_bars(MicrostructureSpec(1000), trades, until_ms=4000)
    assert bars["trade_count"].tolist() == [1, 1, 0, 0]
    assert np.isnan(bars["vwap"].tolist()[2:]).all()
    states = states_of((0, [(99, 1)], [(101, 1)]))
    bars = microstructure_bars(MicrostructureSpec(1000, levels=1), None, states, until_ms=2000)
    assert bars["spread_bps"].tolist() == [200, 200]


def test_two_records_are_joined_where_both_are():
    trades, states = market(2)
    spec = SPECS[0]
    late = cut_at(trades, [START + 20_000])[1]
    early = cut_at(states, [START + 40_000])[0]
    bars = microstructure_bars(spec, late, early)
    first, last = (
        pd.Timestamp(e.stamps[i], unit="ms", tz="UTC") for e, i in ((late, 0), (early, -1))
    )
    assert bars.index[0] == first.floor("s")
    assert bars.index[-1] == last.floor("s") - pd.Timedelta(seconds=1)
    whole = microstructure_bars(spec, trades, states)
    names = list(spec.book_columns)
    pd.testing.assert_frame_equal(bars[names], whole.loc[bars.index, names])


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_a_book_may_come_in_pieces(size):
    trades, states = market(3)
    pieces = (states[i : i + size] for i in range(0, len(states), size))
    for since in (None, START + 10_300):
        pieces = [states[i : i + size] for i in range(0, len(states), size)]
        bars = microstructure_bars(SPECS[0], trades, iter(pieces), since_ms=since)
        whole = microstructure_bars(SPECS[0], trades, states, since_ms=since)
        pd.testing.assert_frame_equal(bars, whole, check_exact=True)


def test_a_later_start_has_the_book_that_stood_then():
    _, states = market(4)
    whole = microstructure_bars(SPECS[0], None, states)
    late = microstructure_bars(SPECS[0], None, states, since_ms=START + 30_000)
    pd.testing.assert_frame_equal(late, whole.loc[late.index])


def test_bars_hold_the_columns_of_what_was_given():
    trades, states = market(5)
    spec = SPECS[0]
    assert tuple(microstructure_bars(spec, trades).columns) == spec.trade_columns
    assert tuple(microstructure_bars(spec, None, states).columns) == spec.book_columns
    stream = MicrostructureStream(spec, 0)
    nothing = stream.close(999)
    assert tuple(nothing.columns) == spec.trade_columns + spec.book_columns
    assert len(nothing) == 0
    assert nothing.index.name == "timestamp"


def test_vwap_is_compared_with_the_mid_of_the_same_bar():
    trades = trades_of((500, "buy", 102, 1), (1000, "buy", 1, 1))
    states = states_of((0, [(99, 1)], [(101, 1)]), (1000, [(1, 1)], [(3, 1)]))
    spec = MicrostructureSpec(1000, levels=1, vwap_reference="mid")
    bars = microstructure_bars(spec, trades, states)
    assert bars["vwap_deviation_bps"].tolist() == pytest.approx([200])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "expected events in every record"),
        ({"trades": trades_of()}, "found no trades; check"),
        ({"trades": trades_of(), "book": random_states(0, 9, 9000)}, "found no trades; check"),
        (
            {"trades": random_trades(0, 9, 9000), "book": iter(())},
            "found no states of a book; check",
        ),
        ({"trades": trades_of(), "book": iter(())}, "no trades and no states of a book; check"),
        ({"trades": trades_of((0, "buy", 1, 1))}, "at least one bar of 1000 ms, found none"),
        ({"book": random_states(0, 9, 9000, levels=1)}, "at least 2 levels, found 1"),
    ],
)
def test_records_that_give_no_bar_are_refused(given, said):
    with pytest.raises(DataError, match=said):
        microstructure_bars(SPECS[0], **given)


ENDS = {
    "trades": trades_of((2000, "buy", 1, 1), (8500, "buy", 1, 1)),
    "book": random_states(0, 9, 6000, 2, start_ms=1000),
}


@pytest.mark.parametrize("kinds", [("trades",), ("book",), ("trades", "book")])
@pytest.mark.parametrize("until", [{}, {"until_ms": 60_000}, {"until_ms": 10**12}])
def test_a_start_after_the_record_is_told_what_that_covers(kinds, until):
    given = {name: ENDS[name] for name in kinds}
    start = max(events.stamps[0] for events in given.values())
    end = (max if until else min)(events.stamps[-1] for events in given.values())
    shown = [
        f"1970-01-01 00:00:0{stamp / 1000:.3f}".removesuffix(".000") for stamp in (start, end)
    ]
    said = (
        rf"since within the record, which covers {shown[0]} UTC to {shown[1]} UTC, found .*:50 U"
    )
    with pytest.raises(ConfigError, match=said):
        microstructure_bars(SPECS[0], **given, **until, since_ms=50_000)


@pytest.mark.parametrize("since", [{}, {"since_ms": -(10**9)}])
def test_an_end_before_the_record_is_told_when_that_begins(since):
    said = r"until after the record begins, 1970-01-01 00:00:02 UTC, found 1970-.*:01\.999 UTC"
    with pytest.raises(ConfigError, match=said):
        microstructure_bars(SPECS[0], ENDS["trades"], **since, until_ms=1999)


def test_a_span_without_length_is_refused():
    with pytest.raises(ConfigError, match=r"since before until, found .*:09 UTC and .*:09 UTC"):
        microstructure_bars(SPECS[0], ENDS["trades"], since_ms=9000, until_ms=9000)


def test_a_stream_refuses_what_it_cannot_use():
    with pytest.raises(ConfigError, match="trades, a book or both, found neither"):
        MicrostructureStream(SPECS[0], 0, trades=False, book=False)
    with pytest.raises(ConfigError, match="expected a book to compare VWAP with its mid"):
        MicrostructureStream(SPECS[2], 0, book=False)
    with pytest.raises(ConfigError, match="multiple of 1000 ms, found 10"):
        MicrostructureStream(SPECS[0], 10)
    with pytest.raises(DataError, match="expected no trades"):
        MicrostructureStream(SPECS[0], 0, trades=False).add_trades(trades_of())
    with pytest.raises(DataError, match="expected no book"):
        MicrostructureStream(SPECS[0], 0, book=False).add_book(random_states(0, 1, 1))


def test_a_stamp_far_off_does_not_fill_the_memory():
    trades = trades_of((0, "buy", 1, 1), (10**15, "buy", 1, 1))
    with pytest.raises(DataError, match=r"at most 20,000,000 bars at once.*check the stamps"):
        microstructure_bars(SPECS[0], trades)


def test_an_event_of_a_closed_bar_is_refused():
    stream = MicrostructureStream(SPECS[0], 0)
    stream.add_trades(trades_of((2500, "buy", 1, 1)))
    with pytest.raises(DataError, match="expected trades from 2500 ms on, found 2400 ms"):
        stream.add_trades(trades_of((2400, "buy", 1, 1)))
    stream.close(2000)
    assert stream.open_ms == 2000
    with pytest.raises(DataError, match="expected states of a book from 2000 ms on, found 1"):
        stream.add_book(states_of((1, [(1, 1)], [(2, 1)]), levels=2))
