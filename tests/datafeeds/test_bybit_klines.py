import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datafeeds.bybit_klines import (
    klines_to_bars,
    klines_to_frame,
    merge_klines,
    parse_klines,
    parse_rows,
)
from datafeeds.bybit_markets import Market
from datafeeds.series import KINDS
from glow_bt.errors import FeedError, MalformedAnswerError, TransientFeedError
from glow_bt.ohlcv import validate_bars
from tests.datafeeds.random_bars import make_bars

LINEAR = Market("BTC/USDT:USDT", "BTCUSDT", "linear")
HOUR = 3_600_000
BARS = make_bars(12)
START = int(BARS.index[0].value // 1_000_000)
WINDOW = range(START, START + 12 * HOUR, HOUR)
ROWS = [
    [str(stamp), *map(str, values), "77.5"]
    for stamp, values in zip(WINDOW, BARS.to_numpy().tolist(), strict=True)
]


def answer(rows, **result):
    return {"retCode": 0, "retMsg": "OK", "result": {"list": rows, **result}}


@given(st.permutations(ROWS * 2))
def test_order_and_repetition_do_not_matter(rows):
    klines = parse_klines(answer(rows), LINEAR, WINDOW)
    assert klines.stamps.tolist() == list(WINDOW)
    np.testing.assert_array_equal(klines.values, BARS.to_numpy())


def test_frame_keeps_the_contract_to_the_bit():
    pages = [parse_klines(answer(rows), LINEAR, WINDOW) for rows in (ROWS[:5], [], ROWS[5:])]
    bars = klines_to_bars(pages)
    assert validate_bars(bars).equals(BARS)
    assert bars.index.equals(BARS.index)
    assert bars.index.unit == BARS.index.unit


def test_volume_of_inverse_contracts_is_the_turnover_in_coins():
    inverse = Market("BTC/USD:BTC", "BTCUSD", "inverse")
    assert (parse_klines(answer(ROWS), inverse, WINDOW).values[:, 4] == 77.5).all()


def test_rows_without_turnover_do_for_linear_and_spot():
    klines = parse_klines(answer([row[:6] for row in ROWS]), LINEAR, WINDOW)
    np.testing.assert_array_equal(klines.values, BARS.to_numpy())


def test_no_rows_are_no_klines():
    klines = parse_klines(answer([]), LINEAR, WINDOW)
    assert len(klines) == 0
    assert klines.values.shape == (0, 5)


def changed(field, value):
    row = list(ROWS[3])
    row[field] = value
    return [*ROWS[:3], row, *ROWS[4:]]


@pytest.mark.parametrize(
    "rows",
    [
        changed(0, str(START - HOUR)),
        changed(0, str(START + 12 * HOUR)),
        changed(0, str(START + 1)),
        changed(0, "soon"),
        changed(0, None),
        changed(0, str(10**30)),
        *(changed(field, value) for field in range(1, 6) for value in ("NaN", "inf", "", "abc")),
        *(changed(field, None) for field in range(1, 6)),
        *(changed(field, "-1") for field in range(1, 6)),
        *(changed(field, "0") for field in range(1, 5)),
        changed(2, "1"),
        changed(3, "1000000"),
        changed(4, "1000000"),
        [*ROWS, changed(4, ROWS[3][1])[3]],
        [*ROWS, ROWS[0][:5]],
        [*ROWS, 7],
        [*ROWS, None],
        [*ROWS, {"start": 1}],
    ],
)
def test_damaged_rows_are_worth_asking_again(rows):
    with pytest.raises(TransientFeedError, match=r"^expected kline.*found .*$"):
        parse_klines(answer(rows), LINEAR, WINDOW)


@pytest.mark.parametrize("result", [{"symbol": "ETHUSDT"}, {"category": "spot"}])
def test_answer_to_another_question_is_worth_asking_again(result):
    with pytest.raises(TransientFeedError, match="expected klines with"):
        parse_klines(answer(ROWS, **result), LINEAR, WINDOW)


def test_refusal_is_passed_on():
    with pytest.raises(FeedError, match="retCode 10010"):
        parse_klines({"retCode": 10010, "retMsg": "Unmatched IP"}, LINEAR, WINDOW)


@given(st.sets(st.sampled_from(range(12))), st.sets(st.sampled_from(range(12))))
def test_merge_is_the_union(left, right):
    parts = [
        parse_klines(answer([ROWS[i] for i in chosen]), LINEAR, WINDOW) for chosen in (left, right)
    ]
    merged = merge_klines(*parts)
    assert merged.stamps.tolist() == [WINDOW[i] for i in sorted(left | right)]
    np.testing.assert_array_equal(merged.values, BARS.to_numpy()[sorted(left | right)])


def test_merge_of_contradicting_answers_is_refused():
    parts = [parse_klines(answer(rows), LINEAR, WINDOW) for rows in (ROWS, changed(5, "0.25"))]
    with pytest.raises(TransientFeedError, match="the same each time, found 1 others, first at"):
        merge_klines(*parts)


FUNDING = [{"symbol": "BTCUSDT", "fundingRate": "-0.0001", "fundingRateTimestamp": str(START)}]
INTEREST = [{"openInterest": "461134384.5", "timestamp": str(START)}]
MARKS = [row[:5] for row in ROWS]


@pytest.mark.parametrize(
    ("kind", "rows", "values"),
    [
        ("funding_rate", FUNDING, [[-0.0001]]),
        ("open_interest", INTEREST, [[461134384.5]]),
        ("mark", MARKS, BARS.to_numpy()[:, :4]),
    ],
)
def test_other_kinds_are_read(kind, rows, values):
    found = parse_rows(answer(rows), LINEAR, WINDOW, kind)
    np.testing.assert_array_equal(found.values, values)
    assert found.stamps.tolist() == list(WINDOW)[: len(rows)]
    assert list(klines_to_frame(found, kind).columns) == list(KINDS[kind].columns)


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        *(("funding_rate", {**FUNDING[0], "fundingRate": v}) for v in ("", "NaN", "1.01", None)),
        ("funding_rate", {**FUNDING[0], "fundingRateTimestamp": str(START + 1)}),
        ("funding_rate", {**FUNDING[0], "fundingRateTimestamp": str(START - HOUR)}),
        ("funding_rate", {**FUNDING[0], "symbol": "ETHUSDT"}),
        ("funding_rate", {"symbol": "BTCUSDT", "fundingRate": "0.1"}),
        ("funding_rate", ROWS[0]),
        *(("open_interest", {**INTEREST[0], "openInterest": v}) for v in ("", "-1", "inf", None)),
        ("open_interest", {**INTEREST[0], "timestamp": "soon"}),
        ("open_interest", {"openInterest": "1"}),
        ("open_interest", 7),
        ("mark", MARKS[0][:4]),
        ("mark", [MARKS[0][0], "1", "0.5", "2", "1"]),
        ("mark", [MARKS[0][0], "0", "1", "0", "1"]),
    ],
)
def test_damaged_rows_of_other_kinds_are_worth_asking_again(kind, row):
    with pytest.raises(MalformedAnswerError, match=r"^expected .*found .*$"):
        parse_rows(answer([row]), LINEAR, WINDOW, kind)
