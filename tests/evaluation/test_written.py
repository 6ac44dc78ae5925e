import pytest

from glow_bt.evaluation.written import interval_of, known, p_is, p_value, percent, title_of


def test_numbers_that_are_undefined_are_dashes():
    assert known(None, "{:.2f}") == percent(None) == p_value(None) == "-"
    assert known(1.234, "{:.1f}") == "1.2"
    assert percent(0.1234, sign=True) == "+12.3%"


@pytest.mark.parametrize(
    ("value", "cell", "sentence"),
    [(0.0364, "0.036", "p = 0.036"), (0.0009, "< 0.001", "p < 0.001")],
)
def test_tiny_p_values_are_bounds(value, cell, sentence):
    assert p_value(value) == cell
    assert p_is(value) == sentence


@pytest.mark.parametrize(
    "interval", [None, {"low": None, "high": None}, {"low": 0.0, "high": 0.0}], ids=str
)
def test_what_is_no_interval_is_not_written(interval):
    assert interval_of(interval, "{:.1f}") == ""
    assert interval_of({"low": -1.0, "high": 2.0}, "{:.1f}") == "-1.0 to 2.0"


def test_contenders_are_named_in_words():
    assert title_of("glow") == "GLOW"
    assert title_of("no_var_sizing") == "no VaR sizing"
    assert title_of("buy_and_hold") == "buy and hold"
