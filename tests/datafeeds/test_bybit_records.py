import gzip
import re
import zipfile

import pytest

from datafeeds.bybit_records import OneTopic, recorded_messages, shown
from glow_bt.errors import DataError

LINES = b'{"a": 1}\n\n{"b": [2]}\n'


def write(path, content=LINES):
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content))
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("ob.data", content)
    else:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["m.jsonl", "m.jsonl.gz", "m.data.zip"])
def test_each_line_is_a_message(tmp_path, name):
    found = list(recorded_messages(write(tmp_path / name)))
    assert found == [(1, {"a": 1}), (3, {"b": [2]})]


@pytest.mark.parametrize(
    ("line", "said"),
    [(b"{", "{"), (b"[1]", "[1]"), (b"\xff", "\ufffd"), (b"[" * 200_000, "[[[")],
)
def test_a_line_that_is_no_object_is_named(tmp_path, line, said):
    path = write(tmp_path / "m.jsonl", LINES + line + b"\n")
    with pytest.raises(DataError) as error:
        list(recorded_messages(path))
    assert f"{path}, line 4: expected a JSON object, found {said}" in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("name", ["m.jsonl.gz", "m.zip"])
def test_a_damaged_file_is_named(tmp_path, name):
    path = write(tmp_path / name, LINES * 5000)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=f"could not read {re.escape(str(path))}"):
        list(recorded_messages(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="found no file"):
        list(recorded_messages(tmp_path / "m.jsonl"))


def test_a_zip_holds_one_file(tmp_path):
    path = write(tmp_path / "m.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other", b"")
    with pytest.raises(DataError, match=r"expected one file in .*, found 2; unpack it"):
        list(recorded_messages(path))


def test_one_topic_is_picked():
    topic = OneTopic("orderbook.", None)
    assert not topic.picks({"op": "subscribe", "success": True})
    assert not topic.picks({"topic": "publicTrade.BTCUSDT"})
    assert topic.picks({"topic": "orderbook.50.BTCUSDT"})
    assert topic.picks({"topic": "orderbook.50.BTCUSDT"})
    with pytest.raises(ValueError, match=r"messages of orderbook.50.BTCUSDT alone, found"):
        topic.picks({"topic": "orderbook.50.ETHUSDT"})


def test_a_symbol_says_which():
    topic = OneTopic("orderbook.", "ETHUSDT")
    assert not topic.picks({"topic": "orderbook.50.BTCUSDT"})
    assert topic.picks({"topic": "orderbook.50.ETHUSDT"})
    with pytest.raises(ValueError, match=r"found orderbook.1.ETHUSDT"):
        topic.picks({"topic": "orderbook.1.ETHUSDT"})


def test_what_is_shown_is_short_and_on_one_line():
    assert shown("a\n b") == "a b"
    assert shown("") == "nothing"
    assert len(shown("x" * 500)) == 103
