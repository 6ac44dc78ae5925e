"""Files and folders appear whole or not at all, and nothing is lost on the way."""

from pathlib import Path

import pytest

from glow_bt.placing import new_file, new_folder, obstacle


def write(folder, text):
    with new_folder(folder) as temporary:
        (temporary / "text").write_text(text)


def write_half(place, error):
    with place as temporary:
        (temporary / "text" if temporary.is_dir() else temporary).write_text("half")
        raise error


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    file = tmp_path / "deep" / "file"
    with new_file(file) as temporary:
        temporary.write_text("old")
        assert not file.exists()
    with pytest.raises(OSError, match="full"):
        write_half(new_file(file), OSError("full"))
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    write(tmp_path / "folder", "old")
    (tmp_path / "folder" / "more").touch()
    write(tmp_path / "folder", "new")
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "text"]
    assert (tmp_path / "folder" / "text").read_text() == "new"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_filling_that_stops_leaves_the_old_folder_alone(tmp_path, error):
    write(tmp_path / "folder", "old")
    with pytest.raises(error):
        write_half(new_folder(tmp_path / "folder"), error())
    assert (tmp_path / "folder" / "text").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("failing", [1, 2, 3])
def test_whatever_rename_fails_both_folders_are_there(tmp_path, monkeypatch, error, failing):
    write(tmp_path / "folder", "old")
    rename, calls = Path.rename, []

    def fail(self, target):
        calls.append(target)
        if len(calls) == failing or (failing == 3 and len(calls) == 2):
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(error):
        write(tmp_path / "folder", "new")
    texts = {p.parent.name: p.read_text() for p in tmp_path.glob("*/text")}
    assert sorted(texts.values()) == ["new", "old"]
    # Only where putting it back fails too does the old one stay aside.
    assert texts.get("folder") == ("old" if failing < 3 else None)


@pytest.mark.parametrize("content", ['{"kind": 1, "mark": 2}', '{"kind": 1, "mark": 2, "cut'])
def test_a_folder_of_the_kind_may_be_replaced_even_if_damaged(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    assert obstacle(tmp_path, "test", ("kind", "mark"), overwrite=True) is None
    found = obstacle(tmp_path, "test", ("kind", "other"), overwrite=True)
    assert "manifest.json without other" in found
    assert "already" in obstacle(tmp_path, "test", ("kind", "mark"), overwrite=False)
