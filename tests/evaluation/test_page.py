import pytest

from glow_bt.errors import ResultsError
from glow_bt.evaluation.page import facts, page_of, prose, table, write_page


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


def test_a_page_escapes_words_and_keeps_html():
    page = page_of("A & B", "<span>", [("#x", "X <y>")], ["<p>kept</p>"])
    assert "<h1>A &amp; B</h1>" in page
    assert '<p class="span">&lt;span&gt;</p>' in page
    assert '<a href="#x">X &lt;y&gt;</a>' in page
    assert "<p>kept</p>" in page
    assert "script" not in page
    assert prose("a < b", "c") == "<p>a &lt; b</p>\n<p>c</p>"
    assert "<dt>a&amp;b</dt><dd>1</dd>" in facts({"a&b": "1"})
    assert '<th scope="col">a&amp;b</th>' in table(["a&b"], ["<tr><td>1</td></tr>"])


def test_a_script_is_named_by_its_hash_alone():
    page = page_of("A", "", [], [], script="let a = 1;")
    digest = "script-src 'sha256-"
    assert page.count(digest) == 1
    assert "<script>let a = 1;</script>" in page
    assert page != page_of("A", "", [], [], script="let a = 2;")
    assert "unsafe-inline'; img-src" in page
