import json

import pytest

from glow_bt.evaluation.risk_summary import (
    best_baseline,
    cells_passed,
    display_name,
    level_name,
    lowest,
    p_value,
    summarize,
)
from glow_bt.risk import BASELINES
from glow_bt.risk.report import assess, compare
from tests.evaluation.risk_studies import made_up_study

STUDY = made_up_study()


@pytest.fixture(scope="module")
def summary():
    return summarize(STUDY, seed=5)


def test_it_holds_what_the_back_tests_say(summary):
    assert summary["n"] == 800
    assert list(summary["models"]) == list(STUDY.forecasts)
    assert summary["models"]["garch_t"] == assess(STUDY.forecasts["garch_t"], seed=5)
    flows = ["flow", "flow_recalibrated"]
    assert list(summary["comparisons"]) == flows
    for flow in flows:
        assert list(summary["comparisons"][flow]) == ["gaussian", "historical", "garch_t"]
        assert summary["comparisons"][flow]["gaussian"] == compare(
            STUDY.forecasts[flow], STUDY.forecasts["gaussian"]
        )


def test_it_is_plain_json_with_null_for_what_is_not_known(summary):
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["models"]["historical"]["nll"] is None
    assert summary["comparisons"]["flow"]["historical"]["nll"] is None


def test_the_best_baseline_has_the_lowest_nll_and_is_no_flow(summary):
    models = summary["models"]
    assert models["flow_recalibrated"]["nll"] < models["garch_t"]["nll"]
    assert best_baseline(models) == "garch_t"
    without = {name: model | {"nll": None} for name, model in models.items()}
    assert best_baseline(without) == "garch_t"
    assert best_baseline({name: models[name] for name in ("flow", "historical")}) == "historical"
    assert best_baseline({"flow": models["flow"]}) is None


def test_cells_are_counted_at_the_edge():
    cells = [(0.05, 0.9), (0.0501, None), (0.2, 0.0)]
    levels = {
        str(at): {"kupiec_p": first, "christoffersen_p": second}
        for at, (first, second) in enumerate(cells)
    }
    assert cells_passed({"levels": levels}) == (3, 6)


def test_words():
    assert {name for name in BASELINES if display_name(name) == name.replace("_", " ")} <= {
        "historical"
    }
    assert display_name("my_model") == "my model"
    assert level_name(0.025) == "2.5 % lower tail"
    assert level_name(0.99) == "1 % upper tail"
    assert [p_value(p) for p in (None, 0.0, 0.00099, 0.001, 0.0404)] == [
        "–", "< 0.001", "< 0.001", "0.001", "0.040",
    ]  # fmt: skip
    assert lowest([None, 2.0, 1.0]) == 1.0
    assert lowest([None]) is None
