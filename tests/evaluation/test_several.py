"""Several seeds or symbols: metrics, means and spreads, in a folder that appears whole."""

import json
import re

import pytest

from glow_bt.errors import ResultsError
from glow_bt.evaluation.run_list import write_run_list
from glow_bt.evaluation.several import kind_of, summarize, write_overview, write_several
from glow_bt.evaluation.several_page import mean_and_spread
from tests.evaluation.runs import NAMES, made_up_run

METRICS = {
    3: {"strategies": {"glow": {"sharpe": 1.0, "calmar": None}}, "span": {"from": "2020"}},
    4: {"strategies": {"glow": {"sharpe": 2.0, "calmar": 0.5}}, "span": {"from": "2020"}},
}


def write_run(title, seed=0):
    """A function that writes a run folder, as far as pages over several need it."""

    def write(member, place):
        place.mkdir(parents=True)
        number = member if isinstance(member, int) else seed
        manifest = {"title": title or f"{member}.csv", "seed": number}
        (place / "manifest.json").write_text(json.dumps(manifest))
        metrics = made_up_run()[0]
        (place / "metrics.json").write_text(json.dumps(metrics))
        (place / "index.html").touch()
        return metrics

    return write


def test_means_and_spreads_are_of_numbers_that_all_seeds_have():
    summary = summarize("seeds", METRICS)
    assert summary["seeds"] == {"3": METRICS[3], "4": METRICS[4]}
    assert summary["mean"] == {
        "strategies": {"glow": {"sharpe": 1.5, "calmar": None}},
        "span": {"from": None},
    }
    assert summary["spread"]["strategies"]["glow"] == {
        "sharpe": pytest.approx(0.5**0.5),
        "calmar": None,
    }


def test_of_a_symbol_of_several_seeds_the_mean_counts():
    summary = summarize("symbols", {"a": summarize("seeds", METRICS), "b": METRICS[4]})
    assert summary["mean"]["strategies"]["glow"] == {"sharpe": 1.75, "calmar": None}
    assert set(summary["symbols"]["a"]) == {"seeds", "mean", "spread"}


def test_the_folder_appears_whole_or_not_at_all(tmp_path):
    def write(seed, place):
        if seed == 4 and broken:
            raise KeyboardInterrupt
        return write_run("BTC")(seed, place)

    broken, out = True, tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_several(out, "seeds", [3, 4], write, title="t", command="walk-forward")
    assert list(tmp_path.iterdir()) == []
    broken = False
    summary = write_several(out, "seeds", [3, 4], write, title="t", command="walk-forward")
    assert json.loads((out / "seeds.json").read_text()) == summary
    assert json.loads((out / "manifest.json").read_text())["seeds"] == [3, 4]
    assert {p.name for p in out.glob("seed_*")} == {"seed_3", "seed_4"}
    assert kind_of(out) == "seeds"
    assert kind_of(out / "seed_3") is None
    page = (out / "index.html").read_text(encoding="utf-8")
    for seed in (3, 4):
        assert page.count(f'<a href="seed_{seed}/index.html">BTC, seed {seed}</a>') == len(NAMES)


def test_a_page_over_symbols_links_every_run_and_has_their_means(tmp_path):
    out = tmp_path / "results" / "many"

    def write(symbol, place):
        if symbol == "one":
            return write_run("")(symbol, place)
        own = write_run("two.csv")
        return write_several(place, "seeds", [0, 1], own, title="two.csv", command="c")

    write_several(out, "symbols", ["one", "t w#"], write, title="<Both>", command="walk-forward")
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "&lt;Both&gt;" in page
    assert page.count("<script>") == 1
    assert "http" not in page.replace("http-equiv", "")
    assert page.count('<a href="one/index.html">one.csv</a>') == len(NAMES)
    assert page.count('<a href="t%20w%23/seed_1/index.html">two.csv, seed 1</a>') == len(NAMES)
    for place in re.findall(r'href="([^"#]+)"', page):
        assert (out / place.replace("%20", " ").replace("%23", "#")).is_file()
    sharpe = made_up_run()[0]["strategies"]["glow"]["sharpe"]
    assert f"<td>{sharpe:.2f} ± 0.00</td>" in page
    before = page.encode()
    (out / "index.html").unlink()
    assert set(write_overview(out)["symbols"]) == {"one", "t w#"}
    assert (out / "index.html").read_bytes() == before
    write_run("Single")("x", tmp_path / "results" / "single")
    assert write_run_list(tmp_path / "results") == 4
    listed = (tmp_path / "results" / "index.html").read_text(encoding="utf-8")
    assert '<a href="many/index.html">many</a>' in listed
    assert 'href="many/t%20w%23/seed_0/index.html"' in listed


def test_a_number_that_is_missing_is_a_dash():
    assert mean_and_spread(None, None, "{:.1f}", "{:.1f}") == "-"
    assert mean_and_spread(1.25, 0.5, "{:+.2f}", "{:.2f}") == "+1.25 ± 0.50"


def test_a_folder_of_something_else_or_a_damaged_one_is_said(tmp_path):
    with pytest.raises(ResultsError, match="of several seeds or symbols"):
        write_overview(tmp_path)
    (tmp_path / "manifest.json").write_text('{"title": "t"}')
    (tmp_path / "symbols.json").write_text('{"symbols": ')
    with pytest.raises(ResultsError, match="damaged"):
        write_overview(tmp_path)


def test_a_folder_that_came_meanwhile_is_not_replaced(tmp_path):
    def write():
        own = {"title": "t", "command": "c"}
        write_several(tmp_path / "out", "seeds", [0, 1], write_run("t"), **own)

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ResultsError, match=r"found .* there already"):
        write()
    assert [file.name for file in tmp_path.rglob("*")] == ["out", "mine"]


def test_a_place_that_cannot_be_written_says_so(tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "file").write_text("")
    for place, told in (("file/out", "expected a place for"), ("out", "expected to write a res")):
        with pytest.raises(ResultsError, match=told):
            write_several(tmp_path / place, "seeds", [0, 1], full, title="t", command="c")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
