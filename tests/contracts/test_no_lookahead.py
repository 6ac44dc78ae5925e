"""No value may depend on a later bar: the future is cut off or overwritten, and nothing moves."""

import numpy as np
import pandas as pd
import pytest
from arch.data import sp500

from glow_bt.features import (
    DEFAULT_SPEC,
    ContextSpec,
    FeatureStream,
    compute_features,
    context_rows,
    volatility_array,
)

COUNT = 400
# The first bar with a state, bars in the middle, and the last that has a future.
CUTS = (DEFAULT_SPEC.min_bars - 1, 137, 256, COUNT - 2)


@pytest.fixture(scope="module")
def bars():
    frame = sp500.load()[["Open", "High", "Low", "Close", "Volume"]].astype(float)[:COUNT]
    frame.columns = ["open", "high", "low", "close", "volume"]
    return frame.tz_localize("UTC").rename_axis("timestamp")


def with_another_future(bars, cut):
    """Bars after `cut` move to other prices and volumes; each stays a valid bar."""
    rng = np.random.default_rng(cut)
    later = len(bars) - cut - 1
    factors = np.exp(rng.normal(0.5, 0.3, (later, 1))) * [1.0, 1.0, 1.0, 1.0, 3.0]
    changed = bars.copy()
    changed.iloc[cut + 1 :] *= factors
    return changed


def assert_no_lookahead(compute, bars, cuts=CUTS, rounding=0.0, overwritten=0.0):
    """Check that `compute(bars)` is, up to each cut, blind to what follows it, to the bit.

    Args:
        compute: from bars to a frame of one row a bar, on the same index.
        bars: the whole history.
        cuts: rows whose future is taken away.
        rounding: how far numbers may move, absolutely or relatively, where the future is cut
            off.
        overwritten: the same where it is overwritten: by default they may not move at all.
    """
    whole = compute(bars)
    assert whole.index.equals(bars.index)
    for cut in cuts:
        known = slice(0, cut + 1)
        for future, others in {
            "cut off": bars.iloc[known],
            "overwritten": with_another_future(bars, cut),
        }.items():
            left = np.ascontiguousarray(whole.iloc[known].to_numpy())
            right = np.ascontiguousarray(compute(others).iloc[known].to_numpy())
            moved = left.view(np.int64) != right.view(np.int64)
            if allowed := rounding if future == "cut off" else overwritten:
                moved &= ~np.isclose(left, right, rtol=allowed, atol=allowed, equal_nan=True)
            assert not moved.any(), (
                f"with the future of row {cut} {future}, rows {np.flatnonzero(moved.any(axis=1))} "
                f"of {list(whole.columns[moved.any(axis=0)])} moved"
            )


def streamed(bars):
    stream = FeatureStream()
    states = [stream.update(bar) for bar in bars.to_numpy().tolist()]
    rows = [np.full(len(DEFAULT_SPEC.names), np.nan) if s is None else s for s in states]
    return pd.DataFrame(rows, index=bars.index, columns=list(DEFAULT_SPEC.names))


def volatility(bars):
    return pd.DataFrame({"volatility": volatility_array(bars["close"].to_numpy())}, bars.index)


def context(bars):
    """Contexts and volatility, with a calendar; NaN where no bar has a full window."""
    spec = ContextSpec(window=60, calendar=True)
    table = np.full((len(bars), len(spec.names) + 1), np.nan)
    if len(bars) >= spec.min_bars:
        stamps_ns = bars.index.as_unit("ns").asi8
        rows = context_rows(bars.to_numpy(), stamps_ns, 86_400.0, spec)
        table[spec.min_bars - 1 :] = np.column_stack([rows.values, rows.volatility])
    return pd.DataFrame(table, bars.index, [*spec.names, "volatility"])


@pytest.mark.parametrize("compute", [compute_features, streamed, volatility])
def test_features_see_no_later_bar(compute, bars):
    assert_no_lookahead(compute, bars)


def test_contexts_see_no_later_bar(bars):
    # A product of fewer rows may round otherwise.
    assert_no_lookahead(context, bars, rounding=1e-12)


def peek_at_the_next_close(bars):
    features = compute_features(bars)
    return features.assign(return_1=features["return_1"].shift(-1))


def peek_a_little(bars):
    """One column, one part in 1e15 of the bar that follows."""
    features = compute_features(bars)
    leak = 1.0 + 1e-15 * (bars["close"].shift(-1) > bars["close"])
    return features.assign(close_location=features["close_location"] * leak)


def centre_the_window(bars):
    features = compute_features(bars)
    return features.assign(place_20=bars["close"].rolling(5, center=True).mean())


def scale_by_the_whole_history(bars):
    features = compute_features(bars)
    return (features - features.mean()) / features.std()


def fill_holes_from_later(bars):
    features = compute_features(bars)
    features.iloc[1::3] = np.nan
    return features.bfill()


@pytest.mark.parametrize(
    "peek",
    [
        peek_at_the_next_close,
        peek_a_little,
        centre_the_window,
        scale_by_the_whole_history,
        fill_holes_from_later,
    ],
)
def test_peeking_features_are_caught(peek, bars):
    with pytest.raises(AssertionError, match="with the future of row"):
        assert_no_lookahead(peek, bars)
