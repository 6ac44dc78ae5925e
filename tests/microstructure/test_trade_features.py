import numpy as np
import pytest

from glow_bt.microstructure import MicrostructureSpec, Trades
from glow_bt.microstructure.kyle import rolling_slope
from glow_bt.microstructure.trade_features import TradeFeatures
from tests.microstructure.markets import random_trades, trades_of

NAN = np.nan
TRADES = trades_of(
    (0, "buy", 100, 2),
    (400, "sell", 99, 1),
    (999, "buy", 101, 1),
    (2000, "sell", 100, 4),
    (3500, "buy", 103, 1),
)


def features(trades, bars, *, mid=None, **settings):
    spec = MicrostructureSpec(**({"step_ms": 1000, "bucket_volume": 4.0, "buckets": 1} | settings))
    return TradeFeatures(spec, 0).update(trades, spec.step_ms * np.arange(bars + 1), mid)


def test_bars_by_hand():
    got = features(TRADES, 4, window=3)
    assert got["trade_count"].tolist() == [3, 0, 1, 1]
    assert got["buy_volume"].tolist() == [3, 0, 0, 1]
    assert got["sell_volume"].tolist() == [1, 0, 4, 0]
    assert got["signed_volume"].tolist() == [2, 0, -4, 1]
    # Twice 100, once 99, once 101.
    np.testing.assert_array_equal(got["vwap"], [100, NAN, 100, 103])
    # Against the last trades' prices 101, 100 and 103.
    np.testing.assert_allclose(
        got["vwap_deviation_bps"], [1e4 * (100 / 101 - 1), NAN, 0, 0], rtol=1e-12
    )
    # Buckets of 4: +3 -1, then -4.
    np.testing.assert_allclose(got["vpin"], [0.5, 0.5, 1, 1])
    assert got["vpin_buckets"].tolist() == [1, 0, 1, 0]


def test_vwap_against_the_mid():
    got = features(TRADES, 4, mid=np.array([99.0, 1, NAN, 103]), vwap_reference="mid")
    np.testing.assert_allclose(got["vwap_deviation_bps"], [1e4 * (100 / 99 - 1), NAN, NAN, 0])


def test_kyles_lambda_regresses_changes_of_the_last_price_on_signed_volume():
    prices, flows = [100, 101, 101.5, 99, 100], [5, 2, 1, -3, 4]
    trades = trades_of(
        *(
            (1000 * i + 10, "buy" if flow > 0 else "sell", price, abs(flow))
            for i, (price, flow) in enumerate(zip(prices, flows, strict=True))
        )
    )
    got = features(trades, 5, window=4)
    # The first price has none before it; later: (2, 1), (1, .5), (-3, -2.5), (4, 1).
    x, y = np.array([2, 1, -3, 4.0]), np.array([1, 0.5, -2.5, 1])
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    assert got["kyle_lambda"][4] == pytest.approx(slope)
    assert np.isnan(got["kyle_lambda"][:3]).all()


def test_hasbroucks_form_regresses_log_returns_on_roots():
    trades = random_trades(0, 400, 20_000)
    got = features(trades, 20, window=10, impact="sqrt")
    rows = trades.stamps // 1000
    flow = np.bincount(rows, trades.sides * np.sqrt(trades.prices * trades.amounts))
    close = np.array([trades.prices[rows == bar][-1] for bar in range(20)])
    change = np.diff(np.log(close), prepend=NAN)
    want = rolling_slope(flow, change, np.arange(20), 10)
    np.testing.assert_allclose(got["kyle_lambda"], want.slope)
    np.testing.assert_allclose(got["kyle_lambda_se"], want.standard_error)


def test_intervals_finer_than_bars_change_the_windows_alone():
    trades = random_trades(1, 3000, 20_000)
    coarse = features(trades, 20, window=12)
    fine = features(trades, 20, window=12, interval_ms=250)
    for name in ("trade_count", "vpin"):
        np.testing.assert_array_equal(fine[name], coarse[name])
    np.testing.assert_allclose(fine["vwap"], coarse["vwap"])
    assert np.isfinite(fine["kyle_lambda"]).argmax() == 2
    assert np.isfinite(coarse["kyle_lambda"]).argmax() == 11


def test_bulk_classification_shares_each_intervals_volume_out():
    got = features(TRADES, 4, classification="bulk", window=3)
    # First bar: no change, so half of 4 is bought. The changes -1 and +3 of the last bars:
    # one change alone says nothing; two have the deviation sqrt(8).
    np.testing.assert_allclose(got["vpin"], [0, 0, 0, 0])
    assert got["vpin_buckets"].tolist() == [1, 0, 1, 0]
    full = features(TRADES, 4, classification="bulk", window=3, bucket_volume=1.0)
    share = 0.855578  # Phi(3 / sqrt(8))
    np.testing.assert_allclose(full["vpin"], [0, 0, 0, 2 * share - 1], atol=1e-6)


def test_swapped_sides_turn_what_has_a_sign():
    trades = random_trades(2, 3000, 60_000)
    swapped = Trades(trades.stamps, trades.prices, trades.amounts, -trades.sides)
    got, turned = (features(events, 60, window=10) for events in (trades, swapped))
    np.testing.assert_array_equal(turned["buy_volume"], got["sell_volume"])
    np.testing.assert_array_equal(turned["signed_volume"], -got["signed_volume"])
    np.testing.assert_allclose(turned["kyle_lambda"], -got["kyle_lambda"])
    np.testing.assert_allclose(turned["vpin"], got["vpin"], atol=1e-9)
    np.testing.assert_array_equal(turned["vwap"], got["vwap"])


@pytest.mark.parametrize("impact", ["linear", "sqrt"])
def test_units_of_price_and_volume(impact):
    trades = random_trades(3, 3000, 60_000)
    scaled = Trades(trades.stamps, 8 * trades.prices, 4 * trades.amounts, trades.sides)
    got = features(trades, 60, window=10, impact=impact)
    big = features(scaled, 60, window=10, impact=impact, bucket_volume=16.0)
    np.testing.assert_allclose(big["vwap_deviation_bps"], got["vwap_deviation_bps"], atol=1e-8)
    np.testing.assert_allclose(big["vpin"], got["vpin"])
    factor = 8 / 4 if impact == "linear" else 1 / np.sqrt(8 * 4)
    np.testing.assert_allclose(big["kyle_lambda"], factor * got["kyle_lambda"], rtol=1e-9)
