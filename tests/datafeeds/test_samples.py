import numpy as np
import pandas as pd
import pytest
from arch.data import nasdaq, sp500

from datafeeds.samples import SAMPLES, load_nasdaq, load_sample, load_sp500
from glow_bt.errors import ConfigError
from glow_bt.ohlcv import bars_sha256, find_gaps, periods_per_year, validate_bars


@pytest.mark.parametrize(("load", "source"), [(load_sp500, sp500), (load_nasdaq, nasdaq)])
def test_samples_are_the_published_numbers(load, source):
    bars, days = load(), source.load()
    np.testing.assert_array_equal(
        bars.to_numpy(), days[["Open", "High", "Low", "Close", "Volume"]].to_numpy(dtype=float)
    )
    assert bars.index.equals(pd.DatetimeIndex(days.index).tz_localize("UTC"))


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_keep_the_contract(name):
    bars = load_sample(name)
    assert bars_sha256(validate_bars(bars)) == bars_sha256(bars)
    assert len(bars) == 5031
    assert (bars.index == bars.index.normalize()).all()
    assert str(bars.index[0].date()) == "1999-01-04"
    assert str(bars.index[-1].date()) == "2018-12-31"
    assert periods_per_year(bars) == pytest.approx(252)


def test_documented_oddities_are_all():
    sp, nq = load_sp500(), load_nasdaq()
    assert (sp["open"] == sp["close"].shift()).mean() == pytest.approx(0.40, abs=0.005)
    assert (nq["open"] == nq["close"].shift()).mean() < 0.01
    assert (sp["volume"] > 0).all()
    assert [str(day.date()) for day in nq.index[nq["volume"] == 0]] == ["2015-05-12", "2018-01-09"]
    # Closed for the week after 2001-09-11.
    assert [str(gap.after.date()) for gap in find_gaps(sp)] == ["2001-09-10"]


def test_unknown_sample_names_those_there_are():
    with pytest.raises(ConfigError, match="expected a sample among sp500, nasdaq, found 'dax'"):
        load_sample("dax")
