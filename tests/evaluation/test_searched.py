"""What a search used is not tested, unless that is asked for and said."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pandas as pd
import pytest

from glow_bt.artifact import fingerprint
from glow_bt.errors import ConfigError, LookAheadError
from glow_bt.evaluation.searched import (
    num_trials,
    refuse_searched,
    search_behind,
    told_of_search,
    with_search,
)
from glow_bt.evaluation.walk_forward import FoldModel
from tests.models import small_artifact

LAST = pd.Timestamp("2020-03-01", tz="UTC")
NEXT = pd.Timestamp("2020-03-02", tz="UTC")
SEARCH = {"trials": 6, "pbo": 0.1, "bars_until": LAST.isoformat()}


@pytest.mark.parametrize(
    "search", [None, SEARCH, {"trials": 6}, SEARCH | {"bars_until": "2020-03-01 01:00+01:00"}]
)
def test_tests_after_a_search_pass(search):
    refuse_searched(search, NEXT)


def test_the_last_bar_of_a_search_is_not_tested():
    with pytest.raises(LookAheadError, match=r"after 2020-03-01 00:00:00\+00:00, .* a larger"):
        refuse_searched(SEARCH, LAST)


def test_of_a_trained_model_the_remedy_is_other_bars_or_to_train_again():
    with pytest.raises(LookAheadError, match=r"the model's settings used.* at most 120, the warm"):
        refuse_searched(SEARCH, LAST, warm_up=120)
    refuse_searched(SEARCH, NEXT, warm_up=120)


def fold_model(number, **record):
    artifact = small_artifact()
    return FoldModel(
        number, LAST, NEXT, replace(artifact, training=replace(artifact.training, **record))
    )


def test_models_tell_of_the_one_search_behind_them():
    assert search_behind(small_artifact()) is None
    assert search_behind(fold_model(1, search=SEARCH).artifact) == SEARCH
    assert search_behind([fold_model(1), fold_model(2)]) is None
    same = [fold_model(n, search=dict(SEARCH)) for n in (1, 2)]
    assert search_behind(same) == SEARCH
    for other in (None, SEARCH | {"trials": 7}):
        with pytest.raises(ConfigError, match="found by the same search"):
            search_behind([*same, fold_model(3, search=other)])


def test_a_walk_forwards_models_keep_the_record_and_name_each_other():
    first = fold_model(1)
    second = fold_model(2, parent=fingerprint(first.artifact))
    third = fold_model(3, parent=fingerprint(second.artifact))
    told = with_search([first, second, third], SEARCH)
    assert search_behind(told) == SEARCH
    assert told[0].artifact.training.parent is None
    for before, after in itertools.pairwise(told):
        assert after.artifact.training.parent == fingerprint(before.artifact)
    assert [fold.number for fold in told] == [1, 2, 3]
    (stranger,) = with_search([second], SEARCH)
    assert stranger.artifact.training.parent == fingerprint(first.artifact)


def test_who_allows_an_overlap_gets_it_in_capitals():
    allowed = SEARCH | {"overlap_allowed": True}
    refuse_searched(allowed, LAST)
    (told,) = told_of_search(allowed, LAST).values()
    assert "TESTED ONES AMONG THEM" in told


def test_a_page_tells_of_a_search_and_of_one_without_its_bars():
    assert told_of_search(None, NEXT) == {}
    (told,) = told_of_search(SEARCH, NEXT).values()
    assert told == "6 trials, on bars until 2020-03-01 00:00, all before the first tested"
    (told,) = told_of_search({"trials": 6}, NEXT).values()
    assert "not on record" in told


@pytest.mark.parametrize(
    "search", [{}, {"trials": 0}, {"trials": True}, {"trials": "6"}, [6], SEARCH | {"trials": 1.5}]
)
def test_a_record_without_its_number_of_trials_is_refused(search):
    with pytest.raises(ConfigError, match="a search with its number of trials"):
        num_trials(search)


def test_bars_until_is_a_stamp():
    with pytest.raises(ConfigError, match="with bars_until, a stamp, found 'soon'"):
        refuse_searched(SEARCH | {"bars_until": "soon"}, NEXT)
