"""One HTML page that compares risk models: tables, pictures, and how to read them."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from glow_bt.evaluation.canvas import Picture
from glow_bt.evaluation.page import CONTENT_POLICY, write_page
from glow_bt.evaluation.risk_pictures import close_up_picture, returns_picture, rolling_picture
from glow_bt.evaluation.risk_shape_pictures import loss_picture, pit_picture, qq_picture
from glow_bt.evaluation.risk_study import FLOW_NAMES, RiskStudy
from glow_bt.evaluation.risk_summary import best_baseline
from glow_bt.evaluation.risk_tables import comparison_table, level_table, overview_table

__all__ = ["draw_risk", "write_risk_page"]

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
th { color: var(--soft); font-weight: 500; vertical-align: bottom; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--card); }
tbody th { color: var(--ink); font-weight: 400; }
.dense table { font-size: 13px; }
.dense th, .dense td { padding: 5px 6px; }
tbody tr:last-child > * { border-bottom: 0; }
.flow th { font-weight: 600; }
.best { font-weight: 700; }
.bad { color: var(--bad); }
.good { color: var(--good); font-weight: 600; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(215px, 1fr));
     gap: 14px 28px; }
dt { color: var(--soft); font-size: 13px; }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
@media (max-width: 640px) {
  main { padding: 24px 12px 40px; }
  figure, section, dl { padding: 16px 12px; } }
@media print { figure, section { break-inside: avoid; } nav { display: none; } }
"""


def draw_risk(study: RiskStudy, summary: Mapping[str, Any]) -> list[Picture]:
    """Draw a study: returns, close-up, rolling rates, PIT histograms, QQ plot and losses.

    Args:
        study: the forecasts.
        summary: what `glow_bt.evaluation.risk_summary.summarize` says of them.
    """
    flows = [name for name in FLOW_NAMES if name in study.forecasts]
    best = best_baseline(summary["models"])
    models = [*flows, *([] if best is None else [best])]
    shown = models[len(flows) - 1] if flows else models[0]
    return [
        returns_picture(study, shown),
        close_up_picture(study, shown),
        rolling_picture(study, models),
        pit_picture(study, models),
        qq_picture(study, models),
        loss_picture(summary["models"]),
    ]


def write_risk_page(
    study: RiskStudy,
    summary: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    title: str,
) -> list[Picture]:
    """Write a comparison of risk models into one HTML file, readable without network or script.

    Args:
        study: the forecasts.
        summary: what `glow_bt.evaluation.risk_summary.summarize` says of them.
        path: the file; it appears whole or not at all.
        title: heading of the page.

    Returns:
        The pictures on the page, in order.

    Raises:
        ResultsError: if the file cannot be written.
    """
    pictures = draw_risk(study, summary)
    write_page("\n".join(_page(study, summary, title, pictures)), path)
    return pictures


def _page(
    study: RiskStudy, summary: Mapping[str, Any], title: str, pictures: Sequence[Picture]
) -> Iterator[str]:
    models = summary["models"]
    yield f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{CONTENT_POLICY}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p class="span">{escape(_span(study))}</p>
<nav>
<a href="#models">Models</a>
<a href="#levels">Level by level</a>
<a href="#comparisons">Flow against baselines</a>"""
    for picture in pictures:
        yield f'<a href="#{picture.name}">{escape(picture.title)}</a>'
    yield f"""<a href="#facts">Facts</a>
</nav>
<section id="models">
<h2>Models</h2>
{_prose(*_how_to_read())}
{overview_table(models)}
</section>"""
    yield from map(_figure, pictures[:1])
    yield '<section id="levels">\n<h2>Level by level</h2>'
    yield _prose(
        "Bold: the lowest loss. Red: p below 0.05, which speaks against the forecast. Kupiec: do "
        "violations come at the promised rate? Christoffersen: do they cluster? McNeil-Frey: are "
        "losses beyond VaR larger than the shortfall said? Losses judge both at once, lower is "
        "better; quantile losses are in basis points of log return."
    )
    for level in next(iter(models.values()))["levels"]:
        yield level_table(models, level)
    yield "</section>"
    yield from map(_figure, pictures[1:])
    yield _comparisons(summary)
    yield _facts(study)
    yield "</main>\n</body>\n</html>\n"


def _how_to_read() -> list[str]:
    return [
        "Every number is out of sample: models were estimated on bars before each test span only. "
        "NLL is the mean negative log density of the returns in nats, lower is better; KS and AD "
        "test whether the whole distribution is right. The share of cells counts Kupiec's and "
        "Christoffersen's tests at all levels and both tails with p above 0.05.",
        "Limits: a right model too has about one cell in twenty below 0.05, and more or fewer "
        "where few violations are expected, so that a single red cell proves little. With many "
        "bars even a small error is significant. Of the baselines the best is picked after the "
        "fact, level by level, which no one could have known before.",
    ]


def _comparisons(summary: Mapping[str, Any]) -> str:
    parts = [
        '<section id="comparisons">',
        "<h2>Flow against baselines</h2>",
        _prose(
            "Diebold and Mariano's one-sided p-value that the flow's mean loss is not the lower "
            "one. Green: below 0.05, the flow is better. Red: above 0.95, the baseline is."
        ),
    ]
    for flow, others in summary["comparisons"].items():
        if others:
            parts.append(comparison_table(flow, others))
    return "\n".join([*parts, "</section>"])


def _facts(study: RiskStudy) -> str:
    rows = "\n".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in _fact_rows(study).items()
    )
    return f'<dl id="facts">\n{rows}\n</dl>'


def _fact_rows(study: RiskStudy) -> dict[str, str]:
    """Return what a reader wants to know before trusting a number."""
    known = study.manifest
    facts = {"Returns tested": f"{len(study.stamps):,}", "Folds": str(len(study.bounds))}
    if "bars" in known:
        bars = known["bars"]
        facts["Bars"] = f"{bars['count']:,}, {bars['from'][:10]} to {bars['until'][:10]}"
        facts["Data sha256"] = bars["sha256"][:16]
    if "test_fraction" in known:
        facts["Tested share"] = f"the last {known['test_fraction']:.0%} of the bars"
    if "seed" in known:
        facts["Seed"] = str(known["seed"])
    for name, text in known.get("choices", {}).items():
        facts[str(name).capitalize()] = str(text)
    for name, number in known.get("versions", {}).items():
        facts[name] = str(number)
    return facts


def _span(study: RiskStudy) -> str:
    first, last = (_written(stamp) for stamp in (study.stamps[0], study.stamps[-1]))
    return (
        f"{len(study.stamps):,} returns, each forecast at the close of the bar before; bars that "
        f"opened {first} to {last} (UTC)."
    )


def _written(stamp: pd.Timestamp) -> str:
    return f"{stamp:%Y-%m-%d %H:%M}".removesuffix(" 00:00")


def _prose(*paragraphs: str) -> str:
    return "\n".join(f"<p>{escape(text)}</p>" for text in paragraphs)


def _figure(picture: Picture) -> str:
    image = base64.b64encode(picture.png).decode("ascii")
    return f"""<figure id="{picture.name}">
<h2>{escape(picture.title)}</h2>
<img alt="{escape(picture.title)}" width="{picture.width}" src="data:image/png;base64,{image}">
<figcaption>{escape(picture.caption)}</figcaption>
</figure>"""
