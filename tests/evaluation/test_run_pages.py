"""What the pages of a run are made of: each fold's own filter, from its first bar on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from glow_bt.evaluation import run_folder
from glow_bt.evaluation.run_folder import read_run, write_pages, write_run
from glow_bt.evaluation.study import Contender, run_study
from glow_bt.evaluation.walk_forward import FoldModel
from strategies.glow_baselines import BuyAndHold
from strategies.glow_strategy import GlowStrategy
from tests.models import small_artifact, sp500_bars

BARS = sp500_bars(0, 800)
CONTENDERS = [
    Contender("glow", GlowStrategy, {}, uses_model=True),
    Contender("buy_and_hold", BuyAndHold, {}),
]
BORDER = 700


@pytest.fixture
def pages(monkeypatch):
    """Keep what the two pages would be made of."""
    seen = {}

    def keep_model_page(states, path, **others):
        seen["model"] = {"states": states, **others}
        return []

    def keep_tearsheet(equity, benchmark, path, **others):
        seen["tearsheet"] = {"equity": equity, "benchmark": benchmark}

    monkeypatch.setattr(run_folder, "write_model_page", keep_model_page)
    monkeypatch.setattr(run_folder, "write_tearsheet", keep_tearsheet)
    return seen


def write(folder, models):
    study = run_study(BARS, models, CONTENDERS)
    trading = {"cash": 1e5, "slippage_bps": 1.0, "risk_budget": 0.02}
    names = {"title": "S&P 500", "command": "walk-forward", "trading": trading}
    return write_run(folder, study, models, BARS, **names)


def two_folds():
    """Two folds whose models differ in their likelihood filters."""
    first = small_artifact()
    narrow = replace(first.likelihood, false_alarm_rate=0.3)
    return [
        FoldModel(1, BARS.index[first.training.n_bars], BARS.index[BORDER - 1], first),
        FoldModel(2, BARS.index[BORDER], BARS.index[-1], replace(first, likelihood=narrow)),
    ]


def test_each_folds_filter_begins_with_its_first_bar(pages, tmp_path):
    folds = two_folds()
    run = write(tmp_path / "run", folds)
    states = pages["model"]["states"]
    second = states.index >= folds[1].valid_from
    assert 100 == second.sum() < len(states) - 50
    for name, bound in (("filter_low", "low"), ("filter_high", "high")):
        first_bound, second_bound = (getattr(m.artifact.likelihood, bound) for m in folds)
        assert first_bound != second_bound
        expected = np.where(second, second_bound, first_bound)
        np.testing.assert_array_equal(states[name], expected)
    assert pages["model"]["fold_bounds"] == [folds[1].valid_from]
    assert [course["label"] for course in pages["model"]["training"]] == ["fold 1", "fold 2"]
    pd.testing.assert_frame_equal(
        states.drop(columns=["filter_low", "filter_high"]), run.states, check_freq=False
    )


def test_inside_the_drawn_filter_is_what_the_model_called_inside(pages, tmp_path):
    write(tmp_path / "run", two_folds())
    states = pages["model"]["states"]
    inside = states["log_prob"].between(states["filter_low"], states["filter_high"])
    np.testing.assert_array_equal(inside, states["in_distribution"] == 1.0)
    assert 0.0 < inside.mean() < 1.0


def test_one_models_filter_spans_the_whole_run(pages, tmp_path):
    write(tmp_path / "run", small_artifact())
    states = pages["model"]["states"]
    assert (states["filter_low"] == small_artifact().likelihood.low).all()
    assert (states["filter_high"] == small_artifact().likelihood.high).all()
    assert pages["model"]["fold_bounds"] == []


def test_pages_made_anew_are_given_what_the_first_were(pages, tmp_path):
    write(tmp_path / "run", two_folds())
    before = dict(pages)
    pages.clear()
    write_pages(read_run(tmp_path / "run"))
    pd.testing.assert_frame_equal(
        pages["model"]["states"], before["model"]["states"], check_exact=True, check_freq=False
    )
    for series in ("equity", "benchmark"):
        pd.testing.assert_series_equal(
            pages["tearsheet"][series], before["tearsheet"][series], check_freq=False
        )
