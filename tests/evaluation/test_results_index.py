"""The results table of README."""

from __future__ import annotations

import json

import pytest

from glow_bt.errors import ResultsError
from glow_bt.evaluation import results_index
from glow_bt.evaluation.results_index import results_table, update_readme

ROW = {
    "total_return": -0.1234,
    "sharpe": 0.5,
    "sortino": None,
    "calmar": 1.0,
    "max_drawdown": -0.2,
    "win_rate": 0.51,
    "turnover": 12.34,
    "costs": {"commission": 1000.0, "slippage": 200.4, "funding": 0.0},
}
VAR = {"rate": 0.0123, "kupiec_p": 0.25, "christoffersen_p": None}
METRICS = {
    "span": {"bars": 12345},
    "strategies": {"glow": ROW, "buy_and_hold": ROW},
    "model": {"in_distribution_share": 0.9, "mean_log_likelihood": -6.5, "bits_per_dim": 0.586},
    "var": {"0.01": VAR, "0.05": VAR},
}


@pytest.fixture
def root(tmp_path):
    for name in ("b", "a"):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"title": f"Market {name}"}))
        (folder / "metrics.json").write_text(json.dumps(METRICS))
    return tmp_path / "results"


def test_the_table_holds_every_contender_of_every_run(root):
    table = results_table(root)
    assert (
        "| Market a | buy and hold | -12.3% | 0.50 | - | 1.00 | -20.0% | 51.0% | 12.3 | 1,200 |"
        in table
    )
    assert "| Market b | 12,345 | 90.0% | -6.500 | 0.586 | 1.23% (0.250, -) |" in table
    assert table.index("Market a") < table.index("Market b")
    widths = {line.count("|") for line in table.split("\n\n")[0].splitlines()}
    assert len(widths) == 1


def test_sharpe_and_drawdown_have_their_intervals_where_a_run_has_any(root):
    ends = {
        "sharpe": {"low": -0.25, "high": 1.2},
        "max_drawdown": {"low": -0.4, "high": -0.1},
        "sortino": {"low": None, "high": None},
    }
    metrics = METRICS | {"statistics": {"intervals": {"glow": ends}}}
    (root / "b" / "metrics.json").write_text(json.dumps(metrics))
    table = results_table(root)
    assert "| Market b | glow | -12.3% | 0.50 (-0.25 to 1.20) | - | 1.00 | " in table
    assert " | -20.0% (-40.0% to -10.0%) | 51.0% |" in table
    assert "| Market b | buy and hold | -12.3% | 0.50 | - |" in table
    assert "| Market a | glow | -12.3% | 0.50 | - |" in table


def test_the_readers_own_demo_is_no_reference(root):
    before = results_table(root)
    (root / "b").rename(root / "c")
    (root / "a").rename(root / "demo")
    assert "Market a" in before
    assert "Market a" not in results_table(root)
    assert "Market b" in results_table(root)


def test_only_what_is_between_the_markers_changes(root, tmp_path, monkeypatch):
    monkeypatch.setattr(results_index, "risk_tables", lambda found: f"risks of {found.name}")
    readme = tmp_path / "README.md"
    start, end = "<!-- results: made by `make results`, do not edit -->", "<!-- end of results -->"
    risk = "<!-- risk: made by `make results-risk`, do not edit -->", "<!-- end of risk -->"
    readme.write_text(f"before\n{start}\nstale\n{end}\n-\n{risk[0]}\nstale\n{risk[1]}\nafter\n")
    update_readme(readme, root)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{end}\n-\n{risk[0]}\nrisks of {root.name}\n{risk[1]}\nafter\n")
    assert results_table(root) in text
    assert "stale" not in text
    update_readme(readme, root)
    assert readme.read_text() == text


def test_missing_markers_and_missing_runs_are_said(root, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("nothing")
    with pytest.raises(ResultsError, match="markers"):
        update_readme(readme, root)
    with pytest.raises(ResultsError, match="make results"):
        results_table(tmp_path / "empty")
