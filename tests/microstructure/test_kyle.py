import numpy as np
import pytest

from glow_bt.microstructure.kyle import rolling_slope

NAN = np.nan


def last(flow, change, window=None):
    window = window or len(flow)
    flow, change = np.array(flow, float), np.array(change, float)
    slopes = rolling_slope(flow, change, np.array([len(flow) - 1]), window)
    return slopes.slope[0], slopes.standard_error[0]


def test_a_line_through_three_points_by_hand():
    # Means 2 and 10/3; S_xy = 4/3 + 5/3 = 3, S_xx = 2. Residuals 1/6, -1/3, 1/6: sum of squares
    # 1/6 with one degree of freedom.
    slope, error = last([1, 2, 3], [2, 3, 5])
    assert slope == pytest.approx(1.5)
    assert error == pytest.approx(np.sqrt(1 / 6 / 1 / 2))


def test_intervals_without_trades_are_no_observations():
    assert last([1, NAN, 2, 3], [2, NAN, 3, 5]) == pytest.approx(last([1, 2, 3], [2, 3, 5]))


@pytest.mark.parametrize(
    ("flow", "change"),
    [
        ([1, 2], [1, 2]),
        ([4, 4, 4], [1, 2, 3]),
        ([1, 2, NAN], [1, 2, NAN]),
        ([1, 2, 3], [NAN, 1, 2]),
    ],
)
def test_too_little_to_tell_is_nan(flow, change):
    assert np.isnan(last(flow, change)).all()


def test_a_window_that_began_before_the_record_is_nan():
    slopes = rolling_slope(np.arange(5.0), np.arange(5.0), np.arange(5), 4)
    np.testing.assert_array_equal(np.isnan(slopes.slope), [True, True, True, False, False])


@pytest.mark.parametrize("block", [3, 8192])
def test_every_window_is_what_least_squares_says(monkeypatch, block):
    monkeypatch.setattr("glow_bt.microstructure.kyle._BLOCK", block)
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 100, 60)
    change = 0.02 * flow + rng.normal(0, 1, 60)
    ends = np.arange(9, 60, 5)
    slopes = rolling_slope(flow, change, ends, 10)
    for row, end in enumerate(ends):
        rows = slice(end - 9, end + 1)
        fit, covariance = np.polyfit(flow[rows], change[rows], 1, cov="unscaled")
        residual = change[rows] - np.polyval(fit, flow[rows])
        assert slopes.slope[row] == pytest.approx(fit[0])
        error = np.sqrt(covariance[0, 0] * (residual**2).sum() / 8)
        assert slopes.standard_error[row] == pytest.approx(error)


def test_units_and_sides():
    rng = np.random.default_rng(1)
    flow, change = rng.normal(size=(2, 20))
    slope, error = last(flow, change)
    # Prices in other units scale it, volumes in other units divide it; with sides and moves
    # swapped nothing changes.
    assert last(flow, 3 * change) == pytest.approx((3 * slope, 3 * error))
    assert last(5 * flow, change) == pytest.approx((slope / 5, error / 5))
    assert last(-flow, -change) == pytest.approx((slope, error))
    assert last(-flow, change) == pytest.approx((-slope, error))
