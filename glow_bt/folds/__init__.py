"""Chronological folds with a purge: the only place where a history is divided.

All ranges are positions of bars, half open. A purge leaves bars between two blocks unused, so
that no feature window or forward return reaches from one block into the next. An embargo leaves
out more bars after a held-out block where training goes on behind it (Lopez de Prado 2018,
Advances in Financial Machine Learning, ch. 7 and 12)::

    blocks.py         a fold, purge and embargo, the least number of bars
    split.py          one division: train, validation, test
    walk_forward.py   many of them, each with its own past
    calendar.py       where blocks of the calendar begin
    combinatorial.py  combinatorial purged cross-validation
    splitter.py       walk-forward as scikit-learn asks for it
"""

from glow_bt.folds.blocks import MIN_BLOCK, Fold, check_purge, training_ranges
from glow_bt.folds.combinatorial import (
    CombinatorialFold,
    CombinatorialFolds,
    combinatorial_purged_folds,
)
from glow_bt.folds.split import check_fractions, chronological_split, split_at
from glow_bt.folds.splitter import PurgedWalkForward
from glow_bt.folds.walk_forward import DEFAULT_FOLDS, walk_forward_folds

__all__ = [
    "DEFAULT_FOLDS",
    "MIN_BLOCK",
    "CombinatorialFold",
    "CombinatorialFolds",
    "Fold",
    "PurgedWalkForward",
    "check_fractions",
    "check_purge",
    "chronological_split",
    "combinatorial_purged_folds",
    "split_at",
    "training_ranges",
    "walk_forward_folds",
]
