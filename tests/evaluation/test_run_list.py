import json
import re
import subprocess

import pytest

from glow_bt.errors import ResultsError
from glow_bt.evaluation.run_list import is_list_of_runs, write_run_list
from tests.evaluation.browser import CHROMIUM, needs_chromium
from tests.evaluation.runs import NAMES, made_up_run, without_statistics

METRICS, _ = made_up_run()
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --virtual-time-budget=2000"
)


@pytest.fixture
def root(tmp_path):
    for name, metrics in (("b", METRICS), ("a", without_statistics(METRICS))):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"title": f"Market <{name}>"}))
        (folder / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "results" / "b" / "index.html").touch()
    (tmp_path / "results" / "risk-b").mkdir()
    (tmp_path / "results" / "risk-b" / "risk.html").touch()
    return tmp_path / "results"


def rows_of(page):
    body = page.split("<tbody>", 1)[1].split("</tbody>", 1)[0]
    return re.findall(r"<tr.*?</tr>", body, re.DOTALL)


def test_every_contender_of_every_run_is_a_row(root):
    assert write_run_list(root) == 2
    page = (root / "index.html").read_text(encoding="utf-8")
    rows = rows_of(page)
    assert len(rows) == 2 * len(NAMES)
    sharpe, ends = METRICS["strategies"]["glow"]["sharpe"], METRICS["statistics"]["intervals"]
    low, high = (ends["glow"]["sharpe"][end] for end in ("low", "high"))
    assert f'<td data-sort="{sharpe}">{sharpe:.2f}<span' in rows[len(NAMES)]
    assert f">{low:.2f} to {high:.2f}<" in rows[len(NAMES)]
    assert "Market &lt;a&gt;" in rows[0]
    assert 'href="b/index.html"' in rows[len(NAMES)]
    assert "href" not in rows[0]
    assert '<a href="risk-b/risk.html">risk-b</a>' in page


def test_the_page_runs_its_own_script_only(root):
    write_run_list(root)
    page = (root / "index.html").read_text(encoding="utf-8")
    assert page.count("<script>") == 1
    assert "script-src 'sha256-" in page
    assert "unsafe-inline'; img-src data:; script-src" in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("column", ["sharpe", "strategy", "deflated"])
def test_rows_are_sorted_in_a_browser_without_network(root, tmp_path, column):
    write_run_list(root)
    address = f"{(root / 'index.html').resolve().as_uri()}#sort-{column}"
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}"]
    run = subprocess.run(
        [*command, "--dump-dom", address], capture_output=True, text=True, timeout=60, check=True
    )
    names = re.findall(r'data-name="(\w+)"', run.stdout)
    at = names.index(column)
    values = [re.findall(r'data-sort="(.*?)"', row)[at] for row in rows_of(run.stdout)]
    known = [value for value in values if value]
    if column == "strategy":
        assert known == sorted(known, reverse=True)
    else:
        numbers = [float(value) for value in known]
        assert numbers == sorted(numbers, reverse=True)
    assert len(values) == 2 * len(NAMES)
    assert values[len(known) :] == [""] * (len(values) - len(known))
    assert re.search(rf'data-name="{column}" aria-sort="descending"', run.stdout)


def test_a_folder_of_runs_is_told_from_a_run(root, tmp_path):
    assert is_list_of_runs(root)
    assert not is_list_of_runs(root / "a")
    assert not is_list_of_runs(tmp_path / "nothing")


def test_missing_and_damaged_runs_are_said(root, tmp_path):
    with pytest.raises(ResultsError, match="expected run folders"):
        write_run_list(tmp_path / "empty")
    (root / "a" / "metrics.json").write_text('{"span": {}}')
    with pytest.raises(ResultsError, match=r"found .*a damaged .*move the folder away"):
        write_run_list(root)
