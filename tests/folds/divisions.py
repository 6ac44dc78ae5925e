"""What the tests of divisions share: settings to draw, and laws of a refusal and of a fold."""

import math

from hypothesis import assume
from hypothesis import strategies as st

from glow_bt.errors import TooFewBarsError

purges = st.integers(0, 120)
blocks = st.integers(1, 400)
shares = st.floats(0.05, 0.9)


@st.composite
def fractions(draw):
    train = draw(st.floats(0.1, 0.85))
    validation = draw(st.floats(0.05, 1.0)) * (1.0 - train)
    test = 1.0 - train - validation
    return train, validation, test if test > 1e-3 else 0.0


def split_settings(draw):
    shares = draw(fractions())
    assume(math.isclose(sum(shares), 1.0, abs_tol=1e-9))
    return {
        "purge": draw(purges),
        "fractions": shares,
        "min_train": draw(blocks),
        "min_validation": draw(blocks),
    }


def walk_settings(draw):
    return {
        "n_folds": draw(st.integers(1, 8)),
        "purge": draw(purges),
        "test_fraction": draw(shares),
        "validation_fraction": draw(shares),
        "expanding": draw(st.booleans()),
        "min_train": draw(blocks),
        "min_validation": draw(blocks),
    }


def refusal(divide, n_bars, settings):
    try:
        divide(n_bars, **settings)
    except TooFewBarsError as error:
        return error
    return None


def suffices_from(error, divide, settings, more):
    """The number in the message suffices, so does any larger one, and none below it."""
    assert error.found < error.needed
    assert refusal(divide, error.needed, settings) is None
    assert refusal(divide, error.needed + more, settings) is None
    assert refusal(divide, error.needed - 1, settings).needed == error.needed


def in_order(fold, n_bars, purge):
    """Blocks begin where they may, and at least `purge` bars lie between neighbours."""
    assert fold.train.step == fold.validation.step == fold.test.step == 1
    assert 0 <= fold.train.start < fold.train.stop
    assert fold.train.stop + purge <= fold.validation.start < fold.validation.stop
    if fold.test:
        assert fold.validation.stop + purge <= fold.test.start
    assert max(fold.validation.stop, fold.test.stop) <= n_bars
