import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.features import DEFAULT_SPEC, ContextSpec, FeatureSpec
from glow_bt.training import TrainConfig
from glow_bt.training.data import block_sizes, divide, prepare
from glow_bt.training.returns import return_bars_needed
from tests.models import sp500_bars

specs = st.sampled_from([DEFAULT_SPEC, FeatureSpec(medium=12, long=40)])
horizons = st.integers(1, 40)
regimes = st.integers(1, 600)
purges = st.none() | st.integers(62, 150)


def stamps(count):
    index = pd.date_range("2001-01-01", periods=count, freq="D", tz="UTC")
    return pd.DataFrame(index=index)


def dated(train_days, validation_days, **settings):
    start = pd.Timestamp("2001-01-01")
    return TrainConfig(
        train_until=str(start + pd.Timedelta(days=train_days)),
        validation_until=str(start + pd.Timedelta(days=train_days + validation_days)),
        **settings,
    )


def assert_enough(fold, config, spec):
    """What the trainer fits finds as many rows as it needs (see the pipeline)."""
    rows = [
        len(range(max(b.start, spec.min_bars - 1), b.stop)) for b in (fold.train, fold.validation)
    ]
    apart = [-(-(n - config.direction_horizon) // config.direction_horizon) for n in rows]
    assert rows[0] >= max(300, config.num_regimes)
    assert apart[0] >= 50  # forward returns that do not overlap
    assert rows[1] >= 51  # with a next return each for 50 of them
    assert apart[1] >= 5
    assert fold.validation.stop >= return_bars_needed(ContextSpec(), config)


@given(
    specs,
    horizons,
    regimes,
    purges,
    st.integers(0, 6000),
    st.integers(0, 200),
    st.integers(1, 300),
    st.integers(2, 300),
)
def test_the_bars_that_a_split_asks_for_hold_all_that_is_fitted(
    spec, horizon, num_regimes, purge, n_bars, more, longest, members
):
    config = TrainConfig(
        direction_horizon=horizon,
        num_regimes=num_regimes,
        purge=purge,
        return_horizons=(1, longest),
        return_members=members,
    )
    try:
        fold = divide(stamps(n_bars), config, spec)
    except TooFewBarsError as error:
        needed = error.needed
        fold = divide(stamps(needed), config, spec)
        assert_enough(divide(stamps(needed + more), config, spec), config, spec)
        with pytest.raises(TooFewBarsError):
            divide(stamps(needed - 1), config, spec)
    assert_enough(fold, config, spec)


def refusal(n_bars, config):
    try:
        divide(stamps(n_bars), config, DEFAULT_SPEC)
    except (TooFewBarsError, ConfigError) as error:
        return error
    return None


@given(horizons, st.integers(1, 3000), st.integers(1, 600), st.integers(0, 4000))
def test_dates_that_leave_too_little_say_how_much_suffices(horizon, train, validation, n_bars):
    config = dated(train, validation, direction_horizon=horizon)
    min_train, min_validation = block_sizes(config, DEFAULT_SPEC)
    error = refusal(n_bars, config)
    if isinstance(error, TooFewBarsError):
        missing = error.needed - error.found
        assert min(train, n_bars) + missing == min_train
        assert error.found == n_bars
    elif isinstance(error, ConfigError):
        assert min(validation, n_bars - train) < 62 + min_validation
    else:
        fold = divide(stamps(n_bars), config, DEFAULT_SPEC)
        assert_enough(fold, config, DEFAULT_SPEC)
        assert fold.train.stop == train
        assert fold.validation.stop == min(train + validation, n_bars)


def test_dates_too_close_together_say_what_to_do():
    config = dated(1000, 100)
    with pytest.raises(ConfigError, match=r"at least 113 bars .*, 62 of them .*found 100; set"):
        divide(stamps(2000), config, DEFAULT_SPEC)


def test_a_history_that_begins_after_train_until_says_how_many_bars_are_missing():
    config = dated(0, 500)
    with pytest.raises(TooFewBarsError, match=r"before 2001-01-01.* found 2000; give 361 more"):
        divide(stamps(2000), config, DEFAULT_SPEC)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 60))
def test_rows_of_a_block_have_their_states_and_their_returns_inside_it(start, length, ahead):
    data = prepare(sp500_bars(0, 400), TrainConfig(), DEFAULT_SPEC)
    block = range(start, min(start + length, 400))
    rows = data.rows(block, ahead)
    positions = np.arange(400 - data.first)[rows] + data.first
    wanted = [t for t in block if t >= data.first and t + ahead < block.stop]
    assert positions.tolist() == wanted


def test_targets_stand_beside_the_states_they_follow():
    bars = sp500_bars(0, 200)
    config = TrainConfig(direction_horizon=7)
    data = prepare(bars, config, DEFAULT_SPEC)
    log_close = np.log(bars["close"].to_numpy())
    row, at = 30, 30 + data.first
    seven = log_close[at + 7] - log_close[at]
    assert data.forward_return[row] == pytest.approx(seven / data.volatility[row] / np.sqrt(7))
    squares = np.diff(log_close)[at - 60 : at] ** 2
    assert data.volatility[row] == pytest.approx(np.sqrt(squares.mean()))
    assert np.isfinite(data.features).all()
    assert len(data.features) == 200 - data.first
