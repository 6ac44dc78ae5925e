"""Several seeds: each one's metrics, mean and spread, in a folder that appears whole."""

import json

import pytest

from glow_bt.errors import ResultsError
from glow_bt.evaluation.seeds import summarize_seeds, write_seeds

METRICS = {
    3: {"strategies": {"glow": {"sharpe": 1.0, "calmar": None}}, "span": {"from": "2020"}},
    4: {"strategies": {"glow": {"sharpe": 2.0, "calmar": 0.5}}, "span": {"from": "2020"}},
}


def test_means_and_spreads_are_of_numbers_that_all_seeds_have():
    summary = summarize_seeds(METRICS)
    assert summary["seeds"] == {"3": METRICS[3], "4": METRICS[4]}
    assert summary["mean"] == {
        "strategies": {"glow": {"sharpe": 1.5, "calmar": None}},
        "span": {"from": None},
    }
    assert summary["spread"]["strategies"]["glow"] == {
        "sharpe": pytest.approx(0.5**0.5),
        "calmar": None,
    }


def test_the_folder_appears_whole_or_not_at_all(tmp_path):
    def write(seed, place):
        place.mkdir()
        if seed == 4 and broken:
            raise KeyboardInterrupt
        return METRICS[seed]

    broken = True
    with pytest.raises(KeyboardInterrupt):
        write_seeds(tmp_path / "out", [3, 4], write, title="t", command="walk-forward")
    assert list(tmp_path.iterdir()) == []
    broken = False
    summary = write_seeds(tmp_path / "out", [3, 4], write, title="t", command="walk-forward")
    assert json.loads((tmp_path / "out" / "seeds.json").read_text()) == summary
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["seeds"] == [3, 4]
    assert {p.name for p in (tmp_path / "out").glob("seed_*")} == {"seed_3", "seed_4"}


def test_a_place_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="expected to write a results folder"):
        write_seeds(tmp_path / "file" / "out", [0, 1], lambda *_: {}, title="t", command="c")
