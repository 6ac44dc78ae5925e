"""Walk-forward folds as scikit-learn asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.tseries.offsets import BaseOffset

from glow_bt.errors import ConfigError
from glow_bt.folds.blocks import MIN_BLOCK, Fold
from glow_bt.folds.walk_forward import DEFAULT_FOLDS, walk_forward_folds

__all__ = ["PurgedWalkForward"]

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class PurgedWalkForward:
    """Cross-validator over rows in order of time, for `cross_val_score(..., cv=...)` and such.

    Yields the training and the test rows of `walk_forward_folds`, whose settings it takes. Rows
    are bars; as scikit-learn knows no validation block, there is none unless asked for, whose
    rows are in neither of the two.

    Attributes:
        purge: bars left out between blocks, at least the longest feature window and horizon.
        n_folds: number of test blocks; 4, unless test_every is given.
        min_purge: what the purge must not fall short of.
        test_fraction: share of the rows that is tested.
        test_every: length of a test block in bars, or a period of the calendar, for which X
            must have a DatetimeIndex.
        validation_bars: rows kept for a validation block before each test block.
        train_bars: length of each training block, with expanding=False.
        expanding: whether training always begins with the first row.
        min_train: rows that each training block needs.
    """

    purge: int
    n_folds: int | None = None
    min_purge: int = 0
    test_fraction: float = 0.6
    test_every: int | str | BaseOffset | None = None
    validation_bars: int = 0
    train_bars: int | None = None
    expanding: bool = True
    min_train: int = MIN_BLOCK

    def folds(self, X: Any) -> list[Fold]:  # noqa: ANN401
        """Return the folds of X, an array, a frame or anything else with a length.

        Raises:
            ConfigError: on a setting that cannot work.
            TooFewBarsError: if the folds do not fit; says how many rows are needed.
        """
        index = getattr(X, "index", None)
        return walk_forward_folds(
            X.shape[0] if hasattr(X, "shape") else len(X),
            self.n_folds,
            purge=self.purge,
            min_purge=self.min_purge,
            test_fraction=self.test_fraction,
            test_every=self.test_every,
            index=index if isinstance(index, pd.DatetimeIndex) else None,
            validation_bars=self.validation_bars,
            train_bars=self.train_bars,
            expanding=self.expanding,
            min_train=self.min_train,
            min_validation=0,
        )

    def split(
        self,
        X: Any,  # noqa: ANN401
        y: object = None,
        groups: object = None,
    ) -> Iterator[tuple[Positions, Positions]]:
        """Yield training and test rows of each fold, oldest first; y and groups are ignored."""
        for fold in self.folds(X):
            yield (
                np.arange(fold.train.start, fold.train.stop),
                np.arange(fold.test.start, fold.test.stop),
            )

    def get_n_splits(
        self,
        X: Any = None,  # noqa: ANN401
        y: object = None,
        groups: object = None,
    ) -> int:
        """Return the number of folds, which hangs on X where test blocks have a length.

        Raises:
            ConfigError: if X is needed and not given.
        """
        if X is not None:
            return len(self.folds(X))
        if self.test_every is not None:
            raise ConfigError(
                f"expected X to count test blocks of {self.test_every!r}, found none; give X"
            )
        return DEFAULT_FOLDS if self.n_folds is None else self.n_folds
