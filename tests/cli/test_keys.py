"""`glow-bt keys` against a loopback server that checks signatures."""

import json

import pytest

from datafeeds.bybit_keys import KEY_VARIABLES
from glow_bt.cli import main
from tests.datafeeds.bybit_server import BybitServer

KEY, SECRET = "abcKEYabc", "xyzSECRETxyz"


@pytest.fixture(scope="module")
def server():
    with BybitServer() as running:
        running.add_key(KEY, SECRET)
        yield running


@pytest.fixture
def call(server, capsys, monkeypatch):
    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def run(*args):
        with pytest.raises(SystemExit) as end:
            main(["keys", "--base-url", server.url, *map(str, args)])
        out, err = capsys.readouterr()
        assert SECRET not in out + err
        return int(end.value.code or 0), out, err

    return run


@pytest.fixture
def key_file(tmp_path):
    file = tmp_path / "bybit.keys"
    file.write_text(f"key={KEY}\nsecret={SECRET}\n")
    file.chmod(0o600)
    return file


def test_a_key_from_a_file_is_told_about(call, key_file):
    code, out, _ = call("--key-file", key_file, "--json")
    assert code == 0
    assert json.loads(out)["read_only"] is True


def test_a_key_from_the_environment_is_told_about(call, monkeypatch):
    for name, value in zip(KEY_VARIABLES, (KEY, SECRET), strict=True):
        monkeypatch.setenv(name, value)
    code, out, _ = call()
    assert (code, "read only: True" in out) == (0, True)


def test_a_file_that_others_may_read_is_refused(call, key_file):
    key_file.chmod(0o644)
    code, _, err = call("--key-file", key_file)
    assert code == 2
    assert f"chmod 600 {key_file}" in err


def test_a_wrong_secret_is_one_line(call, key_file):
    key_file.write_text(f"key={KEY}\nsecret=wrong\n")
    code, _, err = call("--key-file", key_file)
    assert (code, err.count("\n")) == (1, 1)


def test_without_a_key_it_says_where_one_comes_from(call):
    code, _, err = call()
    assert code == 2
    assert "set BYBIT_API_KEY and BYBIT_API_SECRET or give --key-file" in err
