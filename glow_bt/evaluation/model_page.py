"""One HTML page with the pictures of a model at work, readable without network or script."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from glow_bt.errors import TooFewBarsError
from glow_bt.evaluation.canvas import MOST_POINTS, Picture
from glow_bt.evaluation.flow_pictures import latent_picture, training_picture
from glow_bt.evaluation.page import CONTENT_POLICY, write_page
from glow_bt.evaluation.pictures import (
    equity_picture,
    exposure_picture,
    likelihood_picture,
    regime_picture,
    var_picture,
)

__all__ = ["write_model_page"]

_STYLE = """
:root { color-scheme: light dark; --ink: #202124; --soft: #5f6368; --line: #dadce0;
        --page: #f8f9fa; --card: #ffffff; --link: #0b57d0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #a5abb1; --line: #3c4043; --page: #1b1c1f; --card: #26282c;
          --link: #8ab4f8; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
       font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 28px; line-height: 1.25; font-weight: 600; margin: 0 0 4px; }
h2 { font-size: 19px; font-weight: 600; margin: 0 0 12px; }
p { margin: 0; }
.span, figcaption { color: var(--soft); }
nav { margin: 16px 0 28px; display: flex; flex-wrap: wrap; gap: 4px 18px; }
nav a { color: var(--link); text-decoration: none; }
nav a:hover { text-decoration: underline; }
figure, dl { margin: 0 0 24px; padding: 22px 24px; background: var(--card);
             border: 1px solid var(--line); border-radius: 10px; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; background: #fff;
      border-radius: 6px; }
figcaption { margin-top: 12px; font-size: 15px; max-width: 88ch; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(215px, 1fr));
     gap: 14px 28px; }
dt { color: var(--soft); font-size: 13px; }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
@media print { figure { break-inside: avoid; } nav { display: none; } }
"""


def write_model_page(
    states: pd.DataFrame,
    path: str | os.PathLike[str],
    *,
    title: str,
    var_level: float,
    var_horizon: int = 1,
    latents: pd.DataFrame | None = None,
    training: Sequence[Mapping[str, Any]] = (),
    fold_bounds: Sequence[pd.Timestamp] = (),
    benchmark: pd.Series[float] | None = None,
    facts: Mapping[str, object] | None = None,
) -> list[Picture]:
    """Draw a run's model and write all of it into one HTML file.

    Args:
        states: what the run recorded by bar open: close, exposure, equity, log_prob,
            in_distribution, regime and var, NaN where no model was valid; optionally
            filter_low and filter_high, the filter's band of log-likelihoods.
        path: the file; it appears whole or not at all.
        title: heading of the page.
        var_level: tail probability of the column var.
        var_horizon: bars that it is for.
        latents: columns z1, z2, ... and regime by bar open. Left out: no such picture.
        training: for each fold a label and the lists train_nll and validation_nll, one value
            an epoch. Left out: no such picture.
        fold_bounds: stamps at which a newer model takes over, in order.
        benchmark: value of the benchmark on the states' stamps. Default: the close.
        facts: what to print above the pictures, by name.

    Returns:
        The pictures on the page, in order.

    Raises:
        TooFewBarsError: if there are fewer than two bars.
        DataError: if a column is missing.
        ConfigError: if var_level is outside (0, 0.5].
        ResultsError: if the file cannot be written.
    """
    if len(states) < 2:
        raise TooFewBarsError(2, len(states), "a page of pictures")
    pictures = [
        regime_picture(states, fold_bounds),
        likelihood_picture(states, fold_bounds),
        var_picture(states, var_level, fold_bounds, var_horizon),
        exposure_picture(states, fold_bounds),
        equity_picture(states, benchmark, fold_bounds),
    ]
    if latents is not None and _has_latents(latents, fold_bounds):
        pictures.append(latent_picture(latents, fold_bounds))
    if training:
        pictures.append(training_picture(training))
    write_page("\n".join(_page(states, title, pictures, facts or {})), path)
    return pictures


def _has_latents(latents: pd.DataFrame, bounds: Sequence[pd.Timestamp]) -> bool:
    """Whether the last model scored bars enough for two axes."""
    last = latents if not len(bounds) else latents[latents.index >= bounds[-1]]
    return len(last.dropna()) >= 2


def _page(
    states: pd.DataFrame, title: str, pictures: Sequence[Picture], facts: Mapping[str, object]
) -> Iterator[str]:
    first, last = (
        f"{stamp:%Y-%m-%d %H:%M}".removesuffix(" 00:00") for stamp in states.index[[0, -1]]
    )
    span = f"{len(states):,} bars, {first} to {last} (bar opens, UTC)."
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
<p class="span">{span} {_columns_note(states)}</p>
<nav>"""
    for picture in pictures:
        yield f'<a href="#{picture.name}">{escape(picture.title)}</a>'
    yield "</nav>"
    if facts:
        yield "<dl>"
        for name, value in facts.items():
            yield f"<div><dt>{escape(str(name))}</dt><dd>{escape(_written(value))}</dd></div>"
        yield "</dl>"
    for picture in pictures:
        image = base64.b64encode(picture.png).decode("ascii")
        yield f"""<figure id="{picture.name}">
<h2>{escape(picture.title)}</h2>
<img alt="{escape(picture.title)}" width="{picture.width}" src="data:image/png;base64,{image}">
<figcaption>{escape(picture.caption)}</figcaption>
</figure>"""
    yield "</main>\n</body>\n</html>\n"


def _columns_note(states: pd.DataFrame) -> str:
    if len(states) <= MOST_POINTS:
        return ""
    return (
        "A curve over so many bars is drawn as a band from the lowest to the highest of "
        "neighbouring bars, with their median as a line."
    )


def _written(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return str(value)
