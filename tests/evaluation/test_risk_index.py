"""The risk tables of README."""

from __future__ import annotations

import json

import pytest

from glow_bt.errors import ResultsError
from glow_bt.evaluation.risk_index import risk_tables

LEVELS = ("0.01", "0.025", "0.05", "0.95", "0.975", "0.99")


def model(nll, loss, p=0.5, fz0=-2.0):
    cell = {"rate": 0.0123, "kupiec_p": p, "christoffersen_p": 0.2, "quantile_loss": loss}
    return {
        "nll": nll,
        "levels": dict.fromkeys(LEVELS, cell),
        "es": {"0.025": {"mcneil_frey_p": 0.0001, "fz0_loss": fz0}},
    }


def against(nll, loss, p):
    cell = {"difference": loss, "p": p}
    return {
        "nll": None if nll is None else {"difference": nll, "p": p},
        "quantile_loss": dict.fromkeys(LEVELS, cell),
        "fz0_loss": {"0.025": cell},
    }


REPORT = {
    "models": {
        "flow": model(-3.31, 0.00041),
        "flow_recalibrated": model(-3.30, 0.0004, p=0.01, fz0=-2.5),
        "garch_t": model(-3.2, 0.00042),
        "fhs": model(None, 0.00045),
    },
    "comparisons": {
        "flow_recalibrated": {
            "garch_t": against(-0.1, -2e-05, 0.001),
            "fhs": against(None, -5e-05, 0.02),
        }
    },
    "manifest": {"title": "Market"},
}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "results" / "risk-a"
    folder.mkdir(parents=True)
    (folder / "risk.json").write_text(json.dumps(REPORT))
    return tmp_path / "results"


def test_a_row_holds_the_figures_of_a_model_in_percent_and_basis_points(root):
    row = (
        "| Market | flow, recalibrated | 1.3052 | **4.0000** / **4.0000** / **4.0000** | "
        "**4.0000** / **4.0000** / **4.0000** | 1.23% / 1.23% / 1.23% | 6 of 12 | < 0.001 | "
        "**-2.5000** |"
    )
    assert row in risk_tables(root)


def test_the_lowest_figure_is_bold_and_what_is_not_known_a_dash(root):
    lines = risk_tables(root).splitlines()
    assert sum("**1.2952**" in line for line in lines) == 1
    (fhs,) = [line for line in lines if "| filtered historical | -" in line]
    assert "**" not in fhs


def test_the_flow_is_compared_with_the_baseline_that_is_best_in_each_figure(root):
    text = risk_tables(root)
    assert "| Market | NLL | GARCH t | -0.1000 nats | 0.001 |" in text
    assert "| Market | quantile loss upper 1 % | GARCH t | -0.2000 bp | 0.001 |" in text
    assert "| Market | FZ0 at 2.5 % | GARCH t | -0.0000 | 0.001 |" in text


def test_a_figure_that_no_baseline_has_is_left_out(root):
    own = REPORT["comparisons"]["flow_recalibrated"]
    report = {**REPORT, "comparisons": {"flow_recalibrated": {"fhs": own["fhs"]}}}
    (root / "risk-a" / "risk.json").write_text(json.dumps(report))
    assert "| NLL |" not in risk_tables(root).split("\n\n")[1]


def test_every_row_of_a_table_has_as_many_cells(root):
    for part in risk_tables(root).split("\n\n"):
        assert len({line.count("|") for line in part.splitlines()}) == 1


def test_the_readers_own_demo_is_no_reference_and_none_is_said(root):
    (root / "risk-a").rename(root / "demo")
    with pytest.raises(ResultsError, match="make results-risk"):
        risk_tables(root)
