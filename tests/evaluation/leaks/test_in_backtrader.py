"""Strategies and indicators that look ahead are caught in Backtrader, and no others."""

import backtrader as bt
import pytest

from glow_bt.bt import GlowIndicator
from glow_bt.errors import TooFewBarsError
from glow_bt.evaluation.leaks import target_of, verify
from strategies.glow_strategy import GlowStrategy
from tests.bt.market import random_bars
from tests.evaluation.leaks import planted
from tests.models import small_artifact, unseen_bars

BARS = random_bars(220)


def report_of(target, bars=BARS, model=None, cut_points=10):
    return verify(target_of(target, model=model), bars, cut_points=cut_points)


def line_of(leaks):
    """Lines of code that the leaks are blamed on."""
    return {leak.where.code for leak in leaks if leak.where}


@pytest.mark.parametrize(
    ("target", "ahead"),
    [
        (planted.NextClose, 1),
        (planted.NegativeDelay, 1),
        (planted.LateVolume, 1),
        (planted.PeekingOnce, 1),
        (planted.Peaks, 1),
        (planted.PeekingNext, 3),
        (planted.ScaledLine, None),
        (planted.ReadInInit, None),
    ],
)
def test_a_planted_leak_is_caught_with_its_line_and_how_far_it_looks(target, ahead):
    report = report_of(target)
    found = [leak for leak in report.leaks if leak.kind == "value"]
    assert found
    assert all(code.endswith("# leaks") for code in line_of(found[:1]))
    assert line_of(found[:1])
    assert ahead is None or found[0].ahead == ahead


def test_an_index_beyond_the_last_bar_is_a_leak_not_an_error():
    report = report_of(planted.Unguarded)
    assert [(leak.kind, leak.output, leak.row, leak.ahead) for leak in report.leaks] == [
        ("read", "close", 0, 2)
    ]
    assert report.leaks[0].where.code.endswith("# leaks")


def test_a_negative_index_that_wraps_to_the_end_is_caught():
    leaks = report_of(planted.WrappedIndex).leaks
    assert {leak.row for leak in leaks} <= set(range(5))
    assert leaks[0].ahead >= len(BARS) - 5
    assert all(code.endswith("# leaks") for code in line_of(leaks))


def test_an_indicator_that_rewrites_its_past_is_caught_under_runonce():
    leaks = report_of(planted.Repainting, cut_points=25).leaks
    assert {leak.kind for leak in leaks} == {"modes", "value"}
    assert {leak.ahead for leak in leaks if leak.kind == "value"} == {1}


def test_modes_that_disagree_are_a_finding_of_their_own():
    kinds = {(leak.kind, leak.mode) for leak in report_of(planted.PeekingOnce).leaks}
    assert ("modes", "runonce, bar by bar") in kinds
    assert ("value", "runonce") in kinds


@pytest.mark.parametrize("target", [bt.ind.SMA, bt.ind.RSI, bt.ind.MACD, bt.ind.ATR])
def test_stock_indicators_are_clean(target):
    report = report_of(target)
    assert report.clean
    assert report.num_failed == 0


def test_the_stock_line_that_looks_ahead_on_purpose_is_named():
    outputs = {leak.output for leak in report_of(bt.ind.Ichimoku).leaks}
    assert "chikou_span" in outputs
    assert "tenkan_sen" not in outputs


def test_a_strategy_on_closed_bars_is_clean_and_its_talk_is_not_heard(capsys):
    report = report_of(planted.Crossover)
    assert report.clean
    assert report.num_failed == 0
    assert {"orders placed", "order price", "account value", "position", "fast.sma"} <= set(
        report.outputs
    )
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("target", [GlowIndicator, GlowStrategy])
def test_the_models_adapters_are_clean(target):
    report = report_of(target, unseen_bars(60), small_artifact(), cut_points=8)
    assert report.clean
    assert report.num_failed == 0


def test_fewer_bars_than_the_warm_up_are_refused():
    with pytest.raises(TooFewBarsError, match="at least 5000 bars, found 220"):
        report_of(planted.NeedsMany)
