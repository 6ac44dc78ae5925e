"""One HTML page with the pictures of a model at work, readable without network or script."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from glow_bt.errors import TooFewBarsError
from glow_bt.evaluation.canvas import MOST_POINTS, Picture
from glow_bt.evaluation.flow_pictures import latent_picture, training_picture
from glow_bt.evaluation.page import facts as facts_of
from glow_bt.evaluation.page import figure, page_of, write_page
from glow_bt.evaluation.pictures import (
    equity_picture,
    exposure_picture,
    likelihood_picture,
    regime_picture,
    var_picture,
)

__all__ = ["write_model_page"]


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
    pages: Sequence[tuple[str, str]] = (),
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
        pages: address and name of other pages to link.

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
    links = [*pages, *((f"#{picture.name}", picture.title) for picture in pictures)]
    written = {str(name): _written(value) for name, value in (facts or {}).items()}
    body = [*([facts_of(written)] if written else []), *map(figure, pictures)]
    write_page(page_of(title, _span(states), links, body), path)
    return pictures


def _has_latents(latents: pd.DataFrame, bounds: Sequence[pd.Timestamp]) -> bool:
    """Whether the last model scored bars enough for two axes."""
    last = latents if not len(bounds) else latents[latents.index >= bounds[-1]]
    return len(last.dropna()) >= 2


def _span(states: pd.DataFrame) -> str:
    first, last = (
        f"{stamp:%Y-%m-%d %H:%M}".removesuffix(" 00:00") for stamp in states.index[[0, -1]]
    )
    span = f"{len(states):,} bars, {first} to {last} (bar opens, UTC)."
    return f"{span} {_columns_note(states)}".rstrip()


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
