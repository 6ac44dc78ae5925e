"""One HTML page that compares risk models: tables, pictures, and how to read them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from glow_bt.evaluation.canvas import Picture
from glow_bt.evaluation.page import facts, figure, page_of, prose, write_page
from glow_bt.evaluation.risk_pictures import close_up_picture, returns_picture, rolling_picture
from glow_bt.evaluation.risk_shape_pictures import loss_picture, pit_picture, qq_picture
from glow_bt.evaluation.risk_study import FLOW_NAMES, RiskStudy
from glow_bt.evaluation.risk_summary import best_baseline
from glow_bt.evaluation.risk_tables import comparison_table, level_table, overview_table

__all__ = ["draw_risk", "write_risk_page"]


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
    links = [
        ("#models", "Models"),
        ("#levels", "Level by level"),
        ("#comparisons", "Flow against baselines"),
        *((f"#{picture.name}", picture.title) for picture in pictures),
        ("#facts", "Facts"),
    ]
    write_page(page_of(title, _span(study), links, _body(study, summary, pictures)), path)
    return pictures


def _body(
    study: RiskStudy, summary: Mapping[str, Any], pictures: Sequence[Picture]
) -> Iterator[str]:
    models = summary["models"]
    yield f"""<section id="models">
<h2>Models</h2>
{prose(*_how_to_read())}
{overview_table(models)}
</section>"""
    yield from map(figure, pictures[:1])
    yield '<section id="levels">\n<h2>Level by level</h2>'
    yield prose(
        "Bold: the lowest loss. Red: p below 0.05, which speaks against the forecast. Kupiec: do "
        "violations come at the promised rate? Christoffersen: do they cluster? McNeil-Frey: are "
        "losses beyond VaR larger than the shortfall said? Losses judge both at once, lower is "
        "better; quantile losses are in basis points of log return."
    )
    for level in next(iter(models.values()))["levels"]:
        yield level_table(models, level)
    yield "</section>"
    yield from map(figure, pictures[1:])
    yield _comparisons(summary)
    yield facts(_fact_rows(study))


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
        prose(
            "Diebold and Mariano's one-sided p-value that the flow's mean loss is not the lower "
            "one. Green: below 0.05, the flow is better. Red: above 0.95, the baseline is."
        ),
    ]
    for flow, others in summary["comparisons"].items():
        if others:
            parts.append(comparison_table(flow, others))
    return "\n".join([*parts, "</section>"])


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
