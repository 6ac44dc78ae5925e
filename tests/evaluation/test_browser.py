"""The checker finds what it is there to find."""

import base64
import io

import pytest
from PIL import Image, ImageDraw

from tests.evaluation.browser import inspect_page, needs_chromium

pytestmark = [pytest.mark.browser, needs_chromium]


def picture(*, blank=False):
    image = Image.new("RGB", (200, 100), "white")
    if not blank:
        ImageDraw.Draw(image).line([(0, 0), (200, 100)], fill="black", width=3)
    data = io.BytesIO()
    image.save(data, "PNG")
    return (
        f'<img alt="a" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}">'
    )


def problems(body, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(f"<!DOCTYPE html><html><body>{body}</body></html>")
    return inspect_page(page, tmp_path / "profile").problems()


def test_a_good_page_has_no_problem(tmp_path):
    body = picture() + '<a href="https://example.org">a link is no request</a>'
    assert problems(body, tmp_path) == []


def test_every_planted_fault_is_found(tmp_path):
    away = "http://127.0.0.1:9"
    body = f"""
        {picture()}
        {picture(blank=True)}
        <img alt="broken" src="data:image/png;base64,AAAA">
        <svg id="plot" width="90" height="60"></svg>
        <link rel="icon" href="{away}/icon.png">
        <style>p {{ background: url({away}/style.png) }}</style>
        <script>
          console.error('planted');
          setTimeout(() => missing(), 20);
          setTimeout(() => fetch('{away}/fetched').catch(() => 0), 20);
        </script>
        <div style="width: 1300px">wide</div>"""
    found = problems(body, tmp_path)
    assert "console: planted" in found
    assert any(line.startswith("console: ReferenceError: missing") for line in found)
    for name in ("icon.png", "style.png", "fetched"):
        assert f"external request: {away}/{name}" in found
    assert [line for line in found if "empty" in line] == [
        "empty picture: 1: a",
        "empty picture: 2: broken",
        "empty picture: 3: plot",
    ]
    assert "page is 108 pixels wider than the window" in found


def test_a_page_without_a_picture_is_found(tmp_path):
    assert problems("words", tmp_path) == ["no picture at all"]
