import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from glow_bt.evaluation.contender_pictures import band_of, contenders_picture, intervals_picture
from tests.evaluation.runs import CASH, made_up_run

METRICS, EQUITY = made_up_run()
GLOW = EQUITY["glow"]


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB"))


def test_the_band_holds_its_share_of_histories_like_this_one():
    """Of independent bars it widens as the square root of time, about the mean path."""
    rng = np.random.default_rng(5)
    growth = 0.01 * rng.standard_normal(2000)
    equity = pd.Series(
        CASH * np.exp(np.cumsum(growth)),
        index=pd.date_range("2020-01-01", periods=2000, freq="h", tz="UTC"),
    )
    band = band_of(equity, starting_equity=CASH, block_length=1.0, coverage=0.9)
    bars = np.searchsorted(equity.index, band.index) + 1
    width = np.log(band["high"] / band["low"]).to_numpy()
    expected = 2 * 1.645 * growth.std() * np.sqrt(bars)
    np.testing.assert_allclose(width[20:], expected[20:], rtol=0.15)
    middle = np.log(band["low"] * band["high"]).to_numpy() / 2 - np.log(CASH)
    np.testing.assert_allclose(middle, growth.mean() * bars, atol=0.06)
    assert band.index[-1] == equity.index[-1]


def test_every_contender_is_drawn_and_the_band_with_it():
    band = band_of(GLOW, starting_equity=CASH, block_length=5.0, coverage=0.95)
    whole = contenders_picture(EQUITY, band, [EQUITY.index[100]])
    assert "The band holds 95% of 1,000 histories" in whole.caption
    assert "newer model" in whole.caption
    bare = contenders_picture(EQUITY, None)
    assert "band" not in bare.caption
    for left_out in EQUITY:
        fewer = contenders_picture(EQUITY.drop(columns=left_out), None)
        assert (pixels(fewer) != pixels(bare)).any()


def test_an_account_that_was_ruined_is_drawn_until_then():
    ruined = EQUITY.copy()
    ruined.iloc[200:, 3] = 0.0
    assert (
        pixels(contenders_picture(ruined, None)) != pixels(contenders_picture(EQUITY, None))
    ).any()


def test_intervals_are_drawn_where_there_are_any():
    idle, _ = made_up_run(idle=True)
    pictures = [intervals_picture(own["statistics"]["intervals"], 0.95) for own in (METRICS, idle)]
    assert (pixels(pictures[0]) != pixels(pictures[1])).any()
    assert "95% intervals" in pictures[0].caption


def test_a_band_of_too_few_bars_is_refused():
    with pytest.raises(ValueError, match="20"):
        band_of(GLOW.iloc[:5], starting_equity=CASH, block_length=1.0, coverage=0.95)
