"""What a record of a search has to say, and what is none."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from glow_bt.artifact import bars_until, check_search, num_trials
from glow_bt.errors import ConfigError

SEARCH = {"trials": 6, "pbo": None, "bars_until": "2020-03-01T00:00:00+00:00"}


def test_without_a_search_there_was_one_trial_on_no_bars():
    check_search(None)
    assert num_trials(None) == 1
    assert bars_until(None) is None


def test_trials_are_counted_and_the_last_bar_is_in_utc():
    check_search(SEARCH)
    assert num_trials(SEARCH) == 6
    assert num_trials({"trials": [{"noise": 0.1}, {"noise": 0.2}]}) == 2
    for text in ("2020-03-01", "2020-03-01 01:00+01:00"):
        assert bars_until(SEARCH | {"bars_until": text}) == pd.Timestamp("2020-03-01", tz="UTC")


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ([6], "with its number of trials"),
        ({"pbo": 0.1}, "with its number of trials"),
        (SEARCH | {"bars_until": "soon"}, "with bars_until, a stamp, found 'soon'"),
        (SEARCH | {"bars_until": "NaT"}, "with bars_until, a stamp, found 'NaT'"),
        (SEARCH | {"pbo": math.nan}, "as JSON values"),
        (SEARCH | {"space": {1, 2}}, "as JSON values"),
    ],
)
def test_what_is_no_record_is_refused(search, message):
    with pytest.raises(ConfigError, match=rf"expected the record of a search {message}.*give "):
        check_search(search)
