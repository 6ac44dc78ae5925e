import pytest

from glow_bt.errors import ResultsError
from glow_bt.evaluation.page import write_page


def test_a_page_is_written_with_its_folder(tmp_path):
    write_page("<p>é</p>", tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == "<p>é</p>"
    write_page("second", tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text() == "second"
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_a_write_that_breaks_off_leaves_the_page_before(tmp_path):
    page = tmp_path / "page.html"
    write_page("first", page)
    with pytest.raises(UnicodeEncodeError):
        write_page("x" * 100_000 + "\ud800", page)
    assert page.read_text() == "first"
    assert list(tmp_path.iterdir()) == [page]


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultsError, match=r"expected to write the page .*page\.html, found"):
        write_page("x", tmp_path / "file" / "page.html")
    (tmp_path / "page.html").mkdir()
    with pytest.raises(ResultsError, match="choose a folder"):
        write_page("x", tmp_path / "page.html")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "page.html"]
