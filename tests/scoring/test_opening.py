"""A scorer for whatever names a model."""

import numpy as np
import pytest

from glow_bt.artifact import save_artifact
from glow_bt.errors import ArtifactError, ConfigError, LookAheadError
from glow_bt.scoring import BarScorer, ScheduledScorer, Scorer, open_scorer
from tests.models import small_artifact, sp500_bars, unseen_bars, utc
from tests.scoring.samples import COUNT, WARM_UP, arrays, later_model


@pytest.fixture(scope="module")
def bars():
    return unseen_bars(COUNT)


@pytest.fixture(scope="module")
def later():
    return later_model()


@pytest.fixture(scope="module")
def scorer():
    return Scorer(small_artifact())


def test_open_scorer_takes_whatever_names_a_model(tmp_path, later, bars):
    save_artifact(small_artifact(), tmp_path / "model")
    save_artifact(later, tmp_path / "later")
    expected = Scorer(small_artifact(), var_level=0.05).score(bars)
    for model in (tmp_path / "model", str(tmp_path / "model"), small_artifact()):
        opened = open_scorer(model, var_level=0.05)
        assert isinstance(opened, Scorer)
        np.testing.assert_array_equal(opened.score(bars), expected)
    second = bars.index[WARM_UP + 130]
    schedule = [(bars.index[0], small_artifact()), (second, str(tmp_path / "later"))]
    scheduled = open_scorer(schedule, var_level=0.05, allow_training_bars=True)
    assert isinstance(scheduled, ScheduledScorer)
    rows = slice(WARM_UP, WARM_UP + 130)
    np.testing.assert_allclose(
        scheduled.score(bars).iloc[rows], expected.iloc[rows], rtol=1e-12, atol=1e-14
    )
    text = open_scorer([(str(second), small_artifact())])
    assert text.starts == [second]


def test_open_scorer_returns_any_scorer_as_it_is(scorer):
    class Constant:
        min_bars = 3

        def score_arrays(self, stamps_ns, bars):
            return np.zeros((len(bars), 7))

    assert isinstance(Constant(), BarScorer)
    for given_scorer in (
        scorer,
        Constant(),
        ScheduledScorer([(utc("2010-01-01"), small_artifact())]),
    ):
        assert open_scorer(given_scorer) is given_scorer


def test_open_scorer_looks_ahead_no_more_than_asked(bars):
    seen = sp500_bars(0, 300)
    with pytest.raises(LookAheadError):
        open_scorer(small_artifact()).score_arrays(*arrays(seen))
    open_scorer(small_artifact(), allow_training_bars=True).score_arrays(*arrays(seen))


@pytest.mark.parametrize(
    "wrong",
    [3, None, 1.5, ["model"], [("2020-01-01",)], [("soon", "model")], {"a": "b"}, [(1, 2, 3)]],
)
def test_open_scorer_refuses_what_names_no_model(wrong):
    with pytest.raises(ConfigError, match="expected model= an artifact folder"):
        open_scorer(wrong)


def test_open_scorer_says_what_is_wrong_with_a_folder(tmp_path):
    with pytest.raises(ArtifactError, match="found none at"):
        open_scorer(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="found none at"):
        open_scorer([(utc("2020-01-01"), tmp_path / "nowhere")])
    with pytest.raises(ConfigError, match="at least one model"):
        open_scorer([])
