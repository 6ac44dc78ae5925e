import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glow_bt.errors import ConfigError
from glow_bt.microstructure.spec import DAY_MS
from glow_bt.microstructure.vpin import Vpin, bulk_buy_share

NAN = np.nan


def run(vpin, volumes, per_bar, first_open=0, step=1000):
    """Signed volumes through bars of so many each."""
    volumes = np.array(volumes, float)
    ends = np.cumsum(per_bar)
    opens = first_open + step * np.arange(len(per_bar))
    return vpin.update(np.abs(volumes), np.maximum(volumes, 0), ends, opens)


def test_buckets_of_ten_by_hand():
    # +6 -4 | -4 +6 | -10 | -10: imbalances 0.2, 0.2, 1, 1; the trade of 8 is split at a border,
    # the one of 20 fills two buckets.
    values, filled = run(Vpin(10, 2, 0), [6, -8, 6, -20, 3], [1, 1, 1, 1, 1, 0])
    np.testing.assert_allclose(values, [NAN, NAN, 0.2, 1.0, 1.0, 1.0])
    assert filled.tolist() == [0, 1, 1, 2, 0, 0]


def test_a_trade_that_ends_on_a_border_fills_its_bucket():
    values, filled = run(Vpin(10, 1, 0), [10, -5, 5], [1, 1, 1])
    np.testing.assert_allclose(values, [1, 1, 0])
    assert filled.tolist() == [1, 0, 1]


def test_the_window_moves_bucket_by_bucket():
    values, _ = run(Vpin(1, 3, 0), [1, 1, 1, 0.5, -0.5, 0.5, -0.5], [1] * 7)
    np.testing.assert_allclose(values, [NAN, NAN, 1, 1, 2 / 3, 2 / 3, 1 / 3])


def test_the_first_day_sets_the_bucket():
    vpin = Vpin(None, 4, 0)
    values, filled = run(vpin, [30, -10, 10, 10, 10, -10], [2, 1, 1, 1, 1], step=DAY_MS // 2)
    # Two bars open in the first day: 50 over 4 buckets.
    assert vpin.bucket_volume == 12.5
    assert filled.tolist() == [0, 0, 0, 1, 1]
    assert np.isnan(values).all()


def test_a_day_without_trades_sets_nothing():
    vpin = Vpin(None, 1, 0)
    run(vpin, [8, 3], [0, 1, 1], step=DAY_MS)
    assert vpin.bucket_volume == 8


volumes = st.lists(st.floats(-50, 50).filter(lambda v: abs(v) > 1e-3), min_size=1, max_size=40)


@settings(max_examples=40)
@given(volumes, st.integers(1, 5), st.sampled_from([None, 0.7, 3.0, 100.0]), st.data())
def test_it_does_not_matter_how_bars_are_handed_over(volumes, buckets, bucket_volume, data):
    step = DAY_MS // 5
    per_bar = [1] * len(volumes)
    whole = run(Vpin(bucket_volume, buckets, 0), volumes, per_bar, step=step)
    cut = data.draw(st.integers(1, len(volumes)))
    vpin = Vpin(bucket_volume, buckets, 0)
    parts = [
        run(vpin, volumes[i : i + cut], per_bar[i : i + cut], step * i, step)
        for i in range(0, len(volumes), cut)
    ]
    for k in range(2):
        np.testing.assert_array_equal(np.concatenate([part[k] for part in parts]), whole[k])
    seen = whole[0][np.isfinite(whole[0])]
    assert ((seen >= 0) & (seen <= 1)).all()
    swapped = run(Vpin(bucket_volume, buckets, 0), np.negative(volumes), per_bar, step=step)[0]
    np.testing.assert_allclose(swapped, whole[0], atol=1e-6)


def test_buckets_are_what_pouring_trade_by_trade_gives():
    rng = np.random.default_rng(3)
    volumes = np.round(rng.normal(0, 4, 300), 1)
    volumes = volumes[volumes != 0]
    volume_of = 9.8696  # no sum of the volumes ends on a border
    full, bought, filled, want = [], 0.0, 0.0, []
    for volume in volumes:
        left = abs(volume)
        while left > 1e-9:
            part = min(left, volume_of - filled)
            bought += part * (volume > 0)
            filled += part
            left -= part
            if filled > volume_of - 1e-9:
                full.append(abs(bought - (volume_of - bought)) / volume_of)
                bought = filled = 0.0
        want.append(np.mean(full[-4:]) if len(full) >= 4 else NAN)
    values, _ = run(Vpin(volume_of, 4, 0), volumes, [1] * len(volumes))
    np.testing.assert_allclose(values, want, rtol=1e-9)


def test_a_bucket_that_is_much_too_small_is_refused():
    with pytest.raises(ConfigError, match="bucket_volume that fits the volume, found 1e-09"):
        run(Vpin(1e-9, 50, 0), [100], [1])


def test_bulk_classification_by_hand():
    # One change has no deviation; those of 1 and -1 have sqrt(2), with 2 it is sqrt(7/3).
    share = bulk_buy_share(np.array([NAN, 1, -1, 2]), 10)
    np.testing.assert_allclose(share, [0.5, 0.5, 0.239750, 0.904785], atol=1e-6)


@pytest.mark.parametrize("block", [3, 8192])
def test_bulk_classification_looks_back_only(monkeypatch, block):
    monkeypatch.setattr("glow_bt.microstructure.vpin._BLOCK", block)
    change = np.random.default_rng(0).normal(size=50)
    share = bulk_buy_share(change, 5)
    for cut in (1, 2, 20, 49):
        np.testing.assert_array_equal(bulk_buy_share(change[:cut], 5), share[:cut])
    np.testing.assert_array_equal(bulk_buy_share(change[10:], 5)[4:], share[14:])
    np.testing.assert_allclose(bulk_buy_share(-change, 5), 1 - share)
    np.testing.assert_allclose(bulk_buy_share(100 * change, 5), share)
    assert bulk_buy_share(np.zeros(4), 3).tolist() == [0.5] * 4
