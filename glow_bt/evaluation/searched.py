"""What a search knew before a study: how much it tried, and whether it saw what is tested.

The record of a search is described in `glow_bt.artifact.search_record`. A model that was trained
with the settings that a search found has it in its own record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from glow_bt.artifact import Artifact, bars_until, check_search, fingerprint, num_trials
from glow_bt.errors import ConfigError, LookAheadError
from glow_bt.evaluation.walk_forward import FoldModel

__all__ = ["num_trials", "refuse_searched", "search_behind", "told_of_search", "with_search"]


def search_behind(models: Sequence[FoldModel] | Artifact) -> Mapping[str, Any] | None:
    """Return the record of the search that models keep; None if they know of none.

    Raises:
        ConfigError: if they keep several, of which none says what was tried for all.
    """
    if isinstance(models, Artifact):
        return models.training.search
    own = [fold.artifact.training.search for fold in models]
    first = own[0]
    if any(search != first for search in own):
        raise ConfigError(
            "expected models whose settings were found by the same search, found several records "
            "or models without one; give search=, the record of all that was tried"
        )
    return first


def with_search(models: Sequence[FoldModel], search: Mapping[str, Any]) -> list[FoldModel]:
    """Return a walk-forward's models with the record of the search before them all.

    A model that started at the one of the fold before still names it: the record is part of a
    fingerprint, so that the parent's changes too.

    Args:
        models: oldest first.
        search: the record.
    """
    renamed: dict[str | None, str] = {}
    found = []
    for fold in models:
        record = fold.artifact.training
        parent = renamed.get(record.parent, record.parent)
        told = replace(fold.artifact, training=replace(record, search=dict(search), parent=parent))
        renamed[fingerprint(fold.artifact)] = fingerprint(told)
        found.append(replace(fold, artifact=told))
    return found


def refuse_searched(
    search: Mapping[str, Any] | None, first_tested: pd.Timestamp, *, warm_up: int | None = None
) -> None:
    """Refuse to test bars on which settings were chosen.

    A record without bars_until passes, and is marked by `told_of_search`.

    Args:
        search: the record.
        first_tested: stamp of the first bar that is tested.
        warm_up: bars before it that its scores need, where a trained model is tested; None where
            models are yet to be trained. Only the message hangs on it.

    Raises:
        ConfigError: if the record is none.
        LookAheadError: if the search used that bar, and the record does not allow it.
    """
    check_search(search)
    until = bars_until(search)
    if search is None or until is None or until < first_tested:
        return
    if search.get("overlap_allowed") is True:
        return
    if warm_up is None:
        behind = "--config"
        remedy = (
            "give the search a larger --test-fraction or the test a smaller one, or write "
            '"overlap_allowed": true beside "bars_until" to test bars on which the settings were '
            "chosen"
        )
    else:
        behind = "the model's settings"
        remedy = (
            f"give bars of which at most {warm_up}, the warm-up, begin by then, or search with a "
            'larger --test-fraction and train again; "overlap_allowed": true beside '
            "\"bars_until\", in the file that 'glow-bt train --config' reads, trains a model that "
            "may be tested on bars on which its settings were chosen"
        )
    raise LookAheadError(
        f"expected tests after {until}, the last bar that the search behind {behind} used, "
        f"found one at {first_tested}; {remedy}"
    )


def told_of_search(search: Mapping[str, Any] | None, first_tested: pd.Timestamp) -> dict[str, str]:
    """Return what a page tells of a search, by name; nothing without one."""
    if search is None:
        return {}
    until, trials = bars_until(search), f"{num_trials(search)} trials"
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
