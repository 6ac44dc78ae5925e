import json

import numpy as np
import pandas as pd
import pytest

from glow_bt.bt.paper_state import SCHEMA, PaperState, Table, held_folder
from glow_bt.errors import ConfigError, ResultsError
from tests.models import utc

STATE = PaperState(
    settings={"symbol": "BTC/USDT:USDT", "costs": {"taker": 0.00055}},
    last_bar=utc("2024-01-01 05:00"),
    warm_bars=7,
    account={"cash": 0.1 + 0.2, "positions": {}},
    streams=(None, {"stamp_ns": 1}),
    strategy={"ruined": False},
)
ROWS = [(utc(f"2024-01-01 0{hour}:00"), (0.1 * hour, "x")) for hour in range(6)]


def test_a_state_comes_back_to_the_last_bit_and_can_be_read_by_people(tmp_path):
    STATE.write(tmp_path)
    assert PaperState.read(tmp_path) == STATE
    text = (tmp_path / "state.json").read_text()
    assert '"last_bar": "2024-01-01T05:00:00+00:00"' in text
    assert len(text.splitlines()) > 15
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_folder_without_a_state_has_none(tmp_path):
    assert PaperState.read(tmp_path / "new") is None


def damaged(**values):
    """A state as it lies on the disk, with some values replaced."""
    sound = {
        "schema": SCHEMA,
        "last_bar": "2024-01-01T05:00:00+00:00",
        "warm_bars": 7,
        "account": {},
        "streams": [],
        "strategy": {},
        "settings": {},
    }
    return json.dumps(sound | values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "found .*state.json damaged"),
        ("[]", r"damaged \(it holds no named values but a list\); restore it"),
        ('{"schema": 1}', r"damaged \(it lacks settings, last_bar, .*strategy\); restore it"),
        (damaged(account=[]), r"damaged \(account is a list\)"),
        (damaged(settings="x"), r"damaged \(settings is a text\)"),
        (damaged(streams={}), r"damaged \(streams is named values\)"),
        (damaged(warm_bars=None), r"damaged \(warm_bars is empty\)"),
        (damaged(last_bar="noon"), r"damaged \(last_bar is no moment"),
        (damaged(last_bar=""), r"damaged \(last_bar is no moment"),
        (damaged(last_bar="2024-01-01"), r"damaged \(last_bar is no moment with a time zone\)"),
        (json.dumps({"schema": SCHEMA + 1}), f"a state of schema {SCHEMA}, found {SCHEMA + 1}"),
    ],
)
def test_a_damaged_state_is_refused(tmp_path, text, message):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(ResultsError, match=message):
        PaperState.read(tmp_path)


@pytest.mark.parametrize("cash", [float("nan"), object()])
def test_what_json_cannot_hold_is_refused_and_leaves_the_state_of_before(tmp_path, cash):
    STATE.write(tmp_path)
    other = PaperState({}, STATE.last_bar, 7, {"cash": cash})
    with pytest.raises(ConfigError, match="what JSON cannot hold"):
        other.write(tmp_path)
    assert PaperState.read(tmp_path) == STATE


def test_the_same_settings_are_the_same_however_they_are_written(tmp_path):
    STATE.check_settings({"costs": {"taker": 0.00055}, "symbol": "BTC/USDT:USDT"}, tmp_path)


def table(tmp_path):
    return Table(tmp_path / "equity.csv", ("close", "note"))


def test_rows_beyond_the_last_bar_are_cut_off(tmp_path):
    rows = table(tmp_path)
    rows.append(ROWS[:2])
    rows.append(ROWS[2:])
    whole = (tmp_path / "equity.csv").read_text()
    rows.cut(ROWS[-1][0])
    assert (tmp_path / "equity.csv").read_text() == whole
    rows.cut(ROWS[2][0])
    assert len(whole.splitlines()) - 3 == len((tmp_path / "equity.csv").read_text().splitlines())
    rows.append(ROWS[3:])
    assert (tmp_path / "equity.csv").read_text() == whole
    frame = pd.read_csv(tmp_path / "equity.csv", index_col=0, parse_dates=True)
    assert frame.index.tolist() == [stamp for stamp, _ in ROWS]
    assert frame["close"].tolist() == [0.1 * hour for hour in range(6)]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_was_not_finished_is_cut_off_wherever_it_ends(tmp_path, cut):
    rows, file = table(tmp_path), tmp_path / "equity.csv"
    rows.append(ROWS)
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    last = ROWS[-1 - len(whole[-cut:].splitlines())][0]
    rows.cut(last)
    kept = file.read_bytes().splitlines()
    assert kept == whole.splitlines()[: len(kept)]
    assert kept[-1].startswith(last.isoformat().encode())


def test_a_new_account_starts_its_files_anew(tmp_path):
    rows = table(tmp_path)
    rows.cut(None)
    rows.append([])
    assert (tmp_path / "equity.csv").read_text() == "timestamp,close,note\n"
    rows.append(ROWS)
    rows.cut(None)
    rows.append(ROWS[:1])
    assert (tmp_path / "equity.csv").read_text().splitlines()[1:] == [
        "2024-01-01T00:00:00+00:00,0.0,x"
    ]


def test_a_file_without_rows_has_its_header_after_a_restart_too(tmp_path):
    for _ in range(2):
        rows = table(tmp_path)
        rows.cut(pd.Timestamp("2024-01-01", tz="UTC"))
        rows.append([])
        assert (tmp_path / "equity.csv").read_text() == "timestamp,close,note\n"


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ResultsError, match=r"could not write .*below \(Not a directory\); choose"),
        held_folder(tmp_path / "file" / "below"),
    ):
        pass
    monkeypatch.setattr("os.access", lambda path, mode: False)  # as root may write anywhere
    with (
        pytest.raises(ResultsError, match=r"could not write .* \(Permission denied\); choose"),
        held_folder(tmp_path),
    ):
        pass


def test_a_folder_is_held_once_and_leftovers_of_a_kill_go(tmp_path):
    leftover = tmp_path / "paper" / ".state.json.123.tmp"
    leftover.parent.mkdir()
    leftover.write_text("{")
    with held_folder(leftover.parent):
        assert not leftover.exists()
        with (
            pytest.raises(ResultsError, match="found another one at work"),
            held_folder(leftover.parent),
        ):
            pass
    with held_folder(leftover.parent):
        pass


def test_numpy_s_numbers_are_saved_as_python_s(tmp_path):
    account = {"cash": np.float64(1.5), "long": np.True_, "size": np.int64(3)}
    PaperState({}, STATE.last_bar, 7, account).write(tmp_path)
    assert PaperState.read(tmp_path).account == {"cash": 1.5, "long": True, "size": 3}
