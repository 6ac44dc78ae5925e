"""What a search knew before a study: how much it tried, and whether it saw what is tested.

The record of a search, as `glow_bt.training.search` writes it into best.json and a manifest keeps
it, is a mapping with the keys

- trials: how many there were, or a list of them;
- bars_until: stamp of the last bar that it used;
- pbo: probability of overfitting, or None (optional);
- overlap_allowed: True where tested bars may be among those that it used (optional).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from glow_bt.errors import ConfigError, LookAheadError

__all__ = ["num_trials", "refuse_searched", "told_of_search"]


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


def refuse_searched(search: Mapping[str, Any] | None, first_tested: pd.Timestamp) -> None:
    """Refuse to test bars on which settings were chosen.

    A record without bars_until passes, and is marked by `told_of_search`.

    Args:
        search: the record.
        first_tested: stamp of the first bar that is tested.

    Raises:
        ConfigError: if the record is none.
        LookAheadError: if the search used that bar, and the record does not allow it.
    """
    num_trials(search)
    until = _until(search)
    if search is None or until is None or until < first_tested:
        return
    if search.get("overlap_allowed") is not True:
        raise LookAheadError(
            f"expected tests after {until}, the last bar that the search behind --config used, "
            f"found one at {first_tested}; give the search a larger --test-fraction or the test "
            'a smaller one, or write "overlap_allowed": true beside "bars_until" to test bars '
            "on which the settings were chosen"
        )


def told_of_search(search: Mapping[str, Any] | None, first_tested: pd.Timestamp) -> dict[str, str]:
    """Return what a page tells of a search, by name; nothing without one."""
    if search is None:
        return {}
    until, trials = _until(search), f"{num_trials(search)} trials"
    if until is None:
        told = f"{trials}, on bars that are not on record: tested ones may be among them"
    elif until < first_tested:
        told = f"{trials}, on bars until {until:%Y-%m-%d %H:%M}, all before the first tested"
    else:
        told = (
            f"{trials}, on bars until {until:%Y-%m-%d %H:%M}, TESTED ONES AMONG THEM: the "
            "results are not out of sample"
        )
    return {"Settings found by a search": told}


def _until(search: Mapping[str, Any] | None) -> pd.Timestamp | None:
    text = None if search is None else search.get("bars_until")
    if text is None:
        return None
    try:
        stamp = pd.Timestamp(text)
        return stamp.tz_localize("UTC") if stamp.tz is None else stamp.tz_convert("UTC")
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"expected the record of a search with bars_until, a stamp, found {text!r}; give the "
            "file that 'glow-bt search' wrote"
        ) from error
