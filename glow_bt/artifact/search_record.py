"""The record of a search: what was tried before a model's settings were chosen.

`glow_bt.training.search` writes it into best.json; the manifest of a model that was trained with
those settings keeps it, and so does that of a study. It is a mapping of JSON values with the keys

- trials: how many there were, or a list of them;
- bars_until: stamp of the last bar that it used (optional);
- pbo: probability of overfitting, or None (optional);
- overlap_allowed: True where tested bars may be among those that it used (optional).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from glow_bt.errors import ConfigError

__all__ = ["bars_until", "check_search", "num_trials"]


def check_search(search: Mapping[str, Any] | None) -> None:
    """Refuse what is no record of a search; None is that there was none.

    Raises:
        ConfigError: saying what is wrong with it.
    """
    num_trials(search)
    bars_until(search)
    try:
        json.dumps(search if search is None else dict(search), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"expected the record of a search as JSON values, found {search!r} ({error}); give "
            "what 'glow-bt search' wrote"
        ) from error


def num_trials(search: Mapping[str, Any] | None) -> int:
    """Return how many configurations were tried before one was chosen; 1 without a search.

    Raises:
        ConfigError: if the record does not tell.
    """
    if search is None:
        return 1
    trials = search.get("trials") if isinstance(search, Mapping) else None
    if isinstance(trials, list):
        return max(len(trials), 1)
    if type(trials) is int and trials > 0:
        return trials
    raise ConfigError(
        f"expected the record of a search with its number of trials, found {search!r}; give the "
        "file that 'glow-bt search' wrote, or leave \"search\" out of it"
    )


def bars_until(search: Mapping[str, Any] | None) -> pd.Timestamp | None:
    """Return the stamp of the last bar that a search used, in UTC; None where it is not told.

    Raises:
        ConfigError: if the record says what is no stamp.
    """
    text = None if search is None else search.get("bars_until")
    if text is None:
        return None
    try:
        stamp = pd.Timestamp(text)
        if pd.isna(stamp):
            raise ValueError("no time")
        return stamp.tz_localize("UTC") if stamp.tz is None else stamp.tz_convert("UTC")
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"expected the record of a search with bars_until, a stamp, found {text!r}; give the "
            "file that 'glow-bt search' wrote"
        ) from error
