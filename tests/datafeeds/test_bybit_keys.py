import copy
import logging
import pickle
import traceback

import pandas as pd
import pytest

from datafeeds.bybit_client import BybitClient
from datafeeds.bybit_keys import KEY_VARIABLES, ApiKeys, load_keys
from glow_bt.errors import AccessError, ClockSkewError, ConfigError, FeedError
from tests.datafeeds.bybit_faults import FAULTS, ret_code
from tests.datafeeds.random_bars import make_bars

KEY, SECRET = "Kq7publicpart", "s9Xsecretpart"


@pytest.fixture
def keys():
    return ApiKeys(KEY, SECRET)


@pytest.fixture
def server(serve):
    running = serve()
    running.add_key(KEY, SECRET)
    bars = make_bars(50, start="2024-01-01")
    running.add_bars("BTCUSDT", "1h", bars)
    return running


@pytest.fixture
def clean_environment(monkeypatch):
    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def key_file(tmp_path, text, mode=0o600):
    path = tmp_path / "bybit.keys"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("show", [repr, str, lambda keys: f"{keys}", lambda keys: f"{[keys]!r}"])
def test_keys_do_not_show(keys, show):
    assert KEY not in show(keys)
    assert SECRET not in show(keys)


@pytest.mark.parametrize("save", [pickle.dumps, copy.copy, copy.deepcopy])
def test_keys_cannot_be_saved(keys, save):
    with pytest.raises(ConfigError, match="stay in this process"):
        save(keys)


@pytest.mark.parametrize("wrong", [("", "b"), ("a", ""), ("a b", "c"), ("a", "c\n"), ("ä", "c")])
def test_keys_are_plain_text(wrong):
    with pytest.raises(ConfigError, match="expected an API"):
        ApiKeys(*wrong)


def test_environment_holds_keys(clean_environment, monkeypatch):
    assert load_keys() is None
    monkeypatch.setenv("BYBIT_API_KEY", KEY)
    with pytest.raises(ConfigError, match="found no BYBIT_API_SECRET; set both"):
        load_keys()
    monkeypatch.setenv("BYBIT_API_SECRET", SECRET)
    assert load_keys().reveal() == (KEY, SECRET)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_holds_keys(tmp_path, mode):
    path = key_file(tmp_path, f"# mine\nkey = {KEY}\n\nsecret={SECRET}\n", mode)
    assert load_keys(path).reveal() == (KEY, SECRET)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o610, 0o666])
def test_a_file_that_others_may_read_is_refused(tmp_path, mode):
    path = key_file(tmp_path, f"key={KEY}\nsecret={SECRET}\n", mode)
    with pytest.raises(ConfigError, match=f"found mode {mode:04o}; chmod 600 {path}"):
        load_keys(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"key={KEY}\n", "found one only"),
        ("", "found one only"),
        (f"key={KEY}\nkey={KEY}\n", "another on line 2"),
        (f"{KEY}\n{SECRET}\n", "another on line 1"),
        (f"key={KEY}\nsecret\n", "another on line 2"),
        (f"key={KEY}\nsecret=\n", "expected an API secret"),
    ],
)
def test_a_file_of_another_form_is_refused_without_showing_it(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_keys(key_file(tmp_path, text))
    assert_hidden(caught.value)


def test_what_is_no_key_file_is_said(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_keys(tmp_path / "none")
    binary = tmp_path / "binary"
    binary.write_bytes(b"key=\xff\xfe" + SECRET.encode())
    binary.chmod(0o600)
    with pytest.raises(ConfigError, match="it is no text") as caught:
        load_keys(binary)
    assert_hidden(caught.value)


def test_keys_are_checked(server, keys, connect):
    found = connect(server, keys=keys).check_keys()
    assert found["id"] == "13770661"
    assert found["read_only"] is True
    assert found["expires"] == "2030-05-15T03:21:05Z"
    assert KEY not in str(found)


@pytest.mark.parametrize("hours", [-30, 30])
def test_a_wrong_clock_of_this_machine_does_not_matter(server, keys, connect, hours):
    server.now = pd.Timestamp.now("UTC").tz_localize(None) + pd.Timedelta(hours=hours)
    assert connect(server, keys=keys).check_keys()["id"]


def test_a_clock_that_jumps_is_measured_anew(server, keys, connect):
    client = connect(server, keys=keys)
    client.check_keys()
    server.now = pd.Timestamp.now("UTC").tz_localize(None) + pd.Timedelta(hours=2)
    assert client.check_keys()["id"]


def test_clock_skew_that_stays_is_named(server, keys, connect):
    server.script("user/query-api", [FAULTS["clock"]] * 20)
    with pytest.raises(ClockSkewError, match="asked 7 times"):
        connect(server, keys=keys).check_keys()


@pytest.mark.parametrize("wrong", [ApiKeys("another", SECRET), ApiKeys(KEY, "another")])
def test_keys_that_are_refused_are_named_so(server, connect, wrong):
    with pytest.raises(AccessError, match="refused the request") as caught:
        connect(server, keys=wrong).check_keys()
    assert "another" not in str(caught.value).replace("of another", "")


def test_keys_are_needed_to_check_them(server, connect):
    with pytest.raises(ConfigError, match="expected a client with keys"):
        connect(server).check_keys()


def test_keys_do_not_travel_in_the_open(keys):
    with pytest.raises(ConfigError, match="expected https for requests with a key"):
        BybitClient("http://example.com", keys=keys)
    for url in (None, "https://api.bytick.com", "http://127.0.0.1:1", "http://localhost:1"):
        BybitClient(url, keys=keys).close()


def test_public_data_is_asked_without_keys(server, keys, connect):
    headers = []
    reply = server.reply
    server.reply = lambda path, found: (headers.append((path, dict(found))), reply(path, found))[1]
    client = connect(server, keys=keys)
    client.check_keys()
    client.fetch_ohlcv("BTC/USDT:USDT", "1h", "2024-01-01")
    for path, found in headers:
        signed = "query-api" in path
        assert ("X-BAPI-API-KEY" in found) == signed
        assert (KEY in str(found) + path) == signed


def assert_hidden(error):
    """Nothing that hangs on an error tells a key: texts, arguments, chains, frames' arguments."""
    seen = set()
    left = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        left += [one.__cause__, one.__context__]
        for text in (str(one), repr(one), repr(vars(one)), repr(one.args)):
            assert KEY not in text
            assert SECRET not in text
        assert not hasattr(one, "request")  # of requests' errors: holds the headers
    told = "".join(traceback.format_exception(error))
    assert KEY not in told
    assert SECRET not in told


STORIES = ["http_503", "html", "reset", "null", "clock", "rate_limit", "http_403", "truncated"]


@pytest.mark.parametrize("name", [*STORIES, "refused", "echo"])
def test_keys_are_nowhere_but_in_the_signed_request(
    server, keys, connect, name, caplog, tmp_path, capfd, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    faults = {
        "refused": ret_code(10010, "Unmatched IP"),
        "echo": ret_code(10004, f"error sign! origin_string[{KEY}] {SECRET}"),
    }
    server.script("user/query-api", [FAULTS.get(name) or faults[name]] * 20)
    client = connect(server, keys=keys)
    with pytest.raises(FeedError) as caught:
        client.check_keys()
    assert_hidden(caught.value)
    client.server_time()
    shown = capfd.readouterr()
    told = [*shown, caplog.text, repr(client), repr(vars(client)), repr(vars(client._link))]
    told += [repr(record.args) for record in caplog.records]
    told.append(repr(vars(client._link._exchange)))
    for text in told:
        assert KEY not in text
        assert SECRET not in text
    assert list(tmp_path.iterdir()) == []
    assert logging.getLogger().isEnabledFor(logging.DEBUG)
    assert any("query-api" in record.getMessage() for record in caplog.records)


def test_the_password_of_an_address_is_not_told(server, connect, caplog):
    caplog.set_level(logging.DEBUG)
    url = server.url.replace("http://", f"http://user:{SECRET}@")
    client = connect(server, base_url=url)
    server.script("time", [FAULTS["http_503"]] * 20)
    with pytest.raises(FeedError) as caught:
        client.server_time()
    assert_hidden(caught.value)
    assert SECRET not in caplog.text
