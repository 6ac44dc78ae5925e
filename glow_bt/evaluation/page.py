"""What every HTML page has in common: one look, and it is whole and asks the network nothing."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from glow_bt.errors import ResultsError
from glow_bt.evaluation.canvas import Picture
from glow_bt.placing import new_file

__all__ = ["CONTENT_POLICY", "facts", "figure", "page_of", "prose", "table", "write_page"]

# The browser itself then refuses any script and any request that a page might make.
_POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:{}\">"
)
CONTENT_POLICY = _POLICY.format("")

_STYLE = """
:root { color-scheme: light dark; --ink: #202124; --soft: #5f6368; --line: #dadce0;
        --page: #f8f9fa; --card: #ffffff; --link: #0b57d0; --bad: #b3261e; --good: #146c2e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #a5abb1; --line: #3c4043; --page: #1b1c1f; --card: #26282c;
          --link: #8ab4f8; --bad: #f2b8b5; --good: #81c995; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
       font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 28px; line-height: 1.25; font-weight: 600; margin: 0 0 4px; }
h2 { font-size: 19px; font-weight: 600; margin: 0 0 12px; }
h3 { font-size: 15px; font-weight: 600; margin: 20px 0 6px; }
p { margin: 0 0 10px; max-width: 88ch; }
.span, figcaption { color: var(--soft); }
nav { margin: 16px 0 28px; display: flex; flex-wrap: wrap; gap: 4px 18px; }
nav a { color: var(--link); text-decoration: none; }
nav a:hover { text-decoration: underline; }
figure, section, dl { margin: 0 0 24px; padding: 22px 24px; background: var(--card);
             border: 1px solid var(--line); border-radius: 10px; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; background: #fff;
      border-radius: 6px; }
figcaption { margin-top: 12px; font-size: 15px; max-width: 88ch; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
        font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: right; white-space: nowrap;
         border-bottom: 1px solid var(--line); }
thead th { white-space: normal; line-height: 1.3; }
th { color: var(--soft); font-weight: 500; }
thead th { vertical-align: bottom; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--card); }
tbody th { color: var(--ink); font-weight: 400; }
tbody th, td { vertical-align: top; }
.dense table { font-size: 13px; }
.dense th, .dense td { padding: 5px 6px; }
tbody tr:last-child > * { border-bottom: 0; }
.flow th { font-weight: 600; }
.interval { color: var(--soft); font-size: 12px; display: block; }
.wide + p { margin-top: 12px; }
.sorts { cursor: pointer; user-select: none; background: none; border: 0; padding: 0;
         font: inherit; color: inherit; text-align: inherit; }
.sorts:hover { color: var(--link); }
[aria-sort=ascending] .sorts::after { content: " \\2191"; }
[aria-sort=descending] .sorts::after { content: " \\2193"; }
td.text, th.text { text-align: left; }
td a, tbody th a { color: var(--link); text-decoration: none; }
.best { font-weight: 700; }
.bad { color: var(--bad); }
.good { color: var(--good); font-weight: 600; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(215px, 1fr));
     gap: 14px 28px; }
dt { color: var(--soft); font-size: 13px; }
section dl { margin: 0; padding: 0; border: 0; }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
@media (max-width: 640px) {
  main { padding: 24px 12px 40px; }
  figure, section, dl { padding: 16px 12px; } }
@media print { figure, section { break-inside: avoid; } nav { display: none; } }
"""


def page_of(
    title: str,
    span: str,
    links: Sequence[tuple[str, str]],
    body: Iterable[str],
    *,
    script: str = "",
) -> str:
    """Return a page in the look of all of them.

    Args:
        title: heading.
        span: what it is about, in a line or two below the heading.
        links: address and text of each link below that; "#name" for a place on the page.
        body: HTML of the rest.
        script: the only script that the browser is to run on the page.
    """
    policy, code = CONTENT_POLICY, ""
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
        policy = _POLICY.format(f"; script-src 'sha256-{digest}'")
        code = f"<script>{script}</script>\n"
    anchors = "\n".join(f'<a href="{escape(to)}">{escape(text)}</a>' for to, text in links)
    content = "\n".join(body)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{policy}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p class="span">{escape(span)}</p>
<nav>
{anchors}
</nav>
{content}
</main>
{code}</body>
</html>
"""


def prose(*paragraphs: str) -> str:
    """Return paragraphs of text."""
    return "\n".join(f"<p>{escape(text)}</p>" for text in paragraphs)


def figure(picture: Picture) -> str:
    """Return a picture with its heading and caption."""
    image = base64.b64encode(picture.png).decode("ascii")
    return f"""<figure id="{picture.name}">
<h2>{escape(picture.title)}</h2>
<img alt="{escape(picture.title)}" width="{picture.width}" src="data:image/png;base64,{image}">
<figcaption>{escape(picture.caption)}</figcaption>
</figure>"""


def facts(rows: Mapping[str, str], *, anchor: str = "facts") -> str:
    """Return names and values side by side, as what to know before trusting a number.

    Args:
        rows: values by name.
        anchor: name of the place on the page.
    """
    lines = "\n".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in rows.items()
    )
    return f'<dl id="{anchor}">\n{lines}\n</dl>'


def table(heads: Sequence[str], rows: Sequence[str], *, kind: str = "wide") -> str:
    """Return a table that scrolls sideways where the window is narrow.

    Args:
        heads: text above each column.
        rows: HTML of each row, ``<tr>`` included.
        kind: classes of what is around it.
    """
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "\n".join(rows)
    return (
        f'<div class="{kind}"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def write_page(html: str, path: str | os.PathLike[str]) -> None:
    """Write a page so that it appears whole or not at all.

    Raises:
        ResultsError: if the file cannot be written.
    """
    file = Path(path)
    try:
        with new_file(file) as temporary:
            temporary.write_text(html, encoding="utf-8")
    except OSError as error:
        raise ResultsError(
            f"expected to write the page {file}, found {error.strerror or error}; "
            "choose a folder that can be written to"
        ) from error
