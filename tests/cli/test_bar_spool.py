"""Bars on the disk as they come, whatever becomes of the process."""

import multiprocessing
import os
import signal

import numpy as np
import pandas as pd
import pytest

from glow_bt.cli.bar_spool import BarSpool
from glow_bt.errors import ResultsError

FORM = {"symbol": "BTC/USDT:USDT", "step_ms": 1000, "interval_ms": None}
FILES = ["b.parquet", "b.csv", "b.csv.gz"]


def frame(first, count):
    index = pd.date_range("2024-01-01", periods=10_000, freq="s", tz="UTC", name="timestamp")
    values = np.random.default_rng(0).normal(size=(10_000, 2))
    values[::7, 1] = np.nan
    bars = pd.DataFrame(values, index=index.as_unit("us"), columns=["mid", "spread"])
    bars.insert(0, "trades_complete", np.arange(10_000) % 3 > 0)
    return bars.iloc[first : first + count]


def read(file):
    if file.suffix == ".parquet":
        return pd.read_parquet(file)
    bars = pd.read_csv(file, index_col=0, parse_dates=True)
    return bars.set_axis(bars.index.as_unit("us"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / ".b.recording"


@pytest.mark.parametrize("name", FILES)
def test_the_file_holds_all_bars_and_the_folder_goes(tmp_path, folder, name, monkeypatch):
    monkeypatch.setattr("glow_bt.cli.bar_spool._BARS_AT_ONCE", 700)
    with BarSpool(folder, FORM) as spool:
        for first in range(0, 3000, 150):
            spool.add(frame(first, 150))
        assert spool.num_bars == 3000
        facts = spool.finish(tmp_path / name)
    assert facts == {
        "bars": 3000,
        "from": "2024-01-01T00:00:00+00:00",
        "until": "2024-01-01T00:49:59+00:00",
        "columns": ["trades_complete", "mid", "spread"],
    }
    pd.testing.assert_frame_equal(read(tmp_path / name), frame(0, 3000), check_freq=False)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def record_and_die(folder, first):
    spool = BarSpool(folder, FORM).__enter__()
    spool.add(frame(first, 40))  # at once
    spool.add(frame(first + 40, 5))  # within ten seconds
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("torn", [0, 1, 300])
def test_bars_of_killed_calls_come_before_those_of_the_next(tmp_path, folder, torn):
    """The last ten seconds are lost, and what was half written."""
    spawn = multiprocessing.get_context("fork")
    for first in (0, 100):
        process = spawn.Process(target=record_and_die, args=(folder, first))
        process.start()
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
    last = folder / "2.arrows"
    os.truncate(last, last.stat().st_size - torn)
    second = 40 if torn == 0 else 0
    with BarSpool(folder, FORM) as spool:
        assert spool.earlier == spool.num_bars == 40 + second
        spool.add(frame(200, 10))
        spool.finish(tmp_path / "b.parquet")
    parts = [frame(0, 40), frame(100, second), frame(200, 10)]
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "b.parquet"), pd.concat(parts), check_freq=False
    )
    assert not folder.exists()


def test_an_error_keeps_the_bars_and_the_next_call_finishes(tmp_path, folder):
    with pytest.raises(KeyError), BarSpool(folder, FORM) as spool:  # noqa: PT012
        spool.add(frame(0, 3))
        spool.add(frame(3, 4))
        raise KeyError
    with BarSpool(folder, FORM) as spool:
        assert spool.finish(tmp_path / "b.csv")["bars"] == 7


def test_a_folder_without_a_bar_goes(tmp_path, folder):
    with BarSpool(folder, FORM):
        assert folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_bars_of_another_form_are_refused_by_name(tmp_path, folder):
    with BarSpool(folder, FORM) as spool:
        spool.add(frame(0, 3))
    other = {**FORM, "symbol": "ETH/USDT:USDT", "step_ms": 500}
    with pytest.raises(ResultsError, match="cut short with another symbol, step_ms; give what"):
        BarSpool(folder, other).__enter__()
    with BarSpool(folder, FORM) as spool:
        assert spool.earlier == 3


def test_two_processes_do_not_record_into_one_file(folder):
    with (
        BarSpool(folder, FORM),
        pytest.raises(ResultsError, match="only process that records into"),
    ):
        BarSpool(folder, FORM).__enter__()
