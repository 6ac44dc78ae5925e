"""The folds as scikit-learn asks for them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.folds import PurgedWalkForward, combinatorial_purged_folds, walk_forward_folds
from tests.folds.divisions import purges, refusal, shares

RNG = np.random.default_rng(0)
X = pd.DataFrame(
    RNG.normal(size=(900, 3)), index=pd.date_range("2023-01-01", periods=900, freq="12h", tz="UTC")
)
Y = X[0] + 0.1 * RNG.normal(size=900)


@given(st.data(), st.integers(0, 3000))
def test_rows_are_those_of_the_folds(data, n_bars):
    draw = data.draw
    every = draw(st.one_of(st.none(), st.integers(10, 400)))
    settings = {
        "n_folds": None if every else draw(st.integers(1, 6)),
        "purge": draw(purges),
        "test_fraction": draw(shares),
        "test_every": every,
        "expanding": draw(st.booleans()),
        "min_train": draw(st.integers(1, 200)),
        "validation_bars": draw(st.integers(0, 100)),
    }
    given_to_folds = settings | {"min_validation": 0}
    assume(refusal(walk_forward_folds, n_bars, given_to_folds) is None)
    folds = walk_forward_folds(n_bars, **given_to_folds)
    splitter = PurgedWalkForward(**settings)
    rows = list(splitter.split(np.zeros((n_bars, 2))))
    assert splitter.get_n_splits([0] * n_bars) == len(rows) == len(folds)
    for (train, test), fold in zip(rows, folds, strict=True):
        np.testing.assert_array_equal(train, np.asarray(fold.train))
        np.testing.assert_array_equal(test, np.asarray(fold.test))
        assert train.max() + settings["purge"] < test.min()


def test_scores_are_cross_validated_with_it():
    splitter = PurgedWalkForward(n_folds=3, purge=10)
    scores = cross_val_score(Ridge(), X, Y, cv=splitter)
    expected = [
        Ridge().fit(X.iloc[train], Y.iloc[train]).score(X.iloc[test], Y.iloc[test])
        for train, test in splitter.split(X, Y, groups=None)
    ]
    np.testing.assert_array_equal(scores, expected)
    assert scores.min() > 0.9


def test_a_search_may_be_cloned_with_it():
    search = clone(GridSearchCV(Ridge(), {"alpha": [0.1, 10.0]}, cv=PurgedWalkForward(purge=10)))
    search.fit(X.to_numpy(), Y.to_numpy())
    assert search.n_splits_ == 4
    assert search.best_params_ == {"alpha": 0.1}


def test_blocks_of_the_calendar_come_from_the_frames_index():
    splitter = PurgedWalkForward(purge=10, test_every="QS", test_fraction=0.7)
    tests = [test for _, test in splitter.split(X, Y)]
    assert [str(X.index[test[0]].date()) for test in tests] == [
        "2023-07-01", "2023-10-01", "2024-01-01"
    ]  # fmt: skip
    assert len(cross_val_score(Ridge(), X, Y, cv=splitter)) == splitter.get_n_splits(X) == 3
    with pytest.raises(ConfigError, match=r"index for test blocks of QS.*, found none"):
        list(splitter.split(X.to_numpy()))


def test_combinatorial_folds_are_a_list_of_rows_for_it():
    folds = combinatorial_purged_folds(len(X), 4, 2, purge=10, embargo=5)
    assert len(cross_val_score(Ridge(), X, Y, cv=list(folds.indices()))) == 6


def test_the_number_of_splits_needs_rows_only_where_blocks_have_a_length():
    assert PurgedWalkForward(purge=0).get_n_splits() == 4
    assert PurgedWalkForward(purge=0, n_folds=7).get_n_splits(y=Y) == 7
    with pytest.raises(ConfigError, match="X to count test blocks of 90, found none; give X"):
        PurgedWalkForward(purge=0, test_every=90).get_n_splits()


def test_what_cannot_work_is_refused_when_it_is_split():
    with pytest.raises(TooFewBarsError, match="4 folds with purge 10 needs at least"):
        list(PurgedWalkForward(purge=10).split(X[:100]))
    with pytest.raises(ConfigError, match="purge of at least 12 bars"):
        list(PurgedWalkForward(purge=10, min_purge=12).split(X))
