"""Runs over cut and changed histories, each compared with the run over the true one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.evaluation.leaks.futures import other_future
from glow_bt.evaluation.leaks.record import Record, first_change
from glow_bt.evaluation.leaks.runs import Runner, TargetError, Tracer

__all__ = ["Experiment", "Laboratory"]


@dataclass(frozen=True)
class Experiment:
    """One other history.

    Attributes:
        mode: how the target runs.
        cut: last row that is the true history's.
        how: whether the future is cut off or another.
        draw: which other future.
        kept: rows after the cut that are true nevertheless, to find how far ahead matters.
    """

    mode: str
    cut: int
    how: Literal["cut off", "another"]
    draw: int = 0
    kept: int = 0


@dataclass(eq=False)
class Laboratory:
    """Does experiments and counts them.

    Attributes:
        runner: runs the target.
        bars: the true history.
        base: what was said over it, by mode.
        seed: seed of the other futures.
        num_runs: runs so far.
        num_failed: those that ended with an error of the target.
    """

    runner: Runner
    bars: pd.DataFrame
    seed: int
    base: dict[str, Record] = field(default_factory=dict)
    num_runs: int = 0
    num_failed: int = 0
    _known: dict[tuple[Experiment, int], dict[str, int] | None] = field(default_factory=dict)

    def history(self, experiment: Experiment) -> pd.DataFrame:
        """Return the bars of an experiment."""
        border = experiment.cut + experiment.kept
        if experiment.how == "cut off":
            return self.bars.iloc[: border + 1]
        changed = other_future(self.bars, experiment.cut, experiment.draw, self.seed)
        changed.iloc[: border + 1] = self.bars.iloc[: border + 1]
        return changed

    def changes(self, experiment: Experiment, until: int | None = None) -> dict[str, int] | None:
        """Return what differs up to a row, with its first row; None if the target failed.

        Args:
            experiment: what to do.
            until: last row that is compared; by default the last before the cut.
        """
        until = experiment.cut if until is None else until
        key = (experiment, until)
        if key not in self._known:
            self.num_runs += 1
            try:
                record = self.runner.run(self.history(experiment), experiment.mode, until)
                self._known[key] = first_change(self.base[experiment.mode], record, until)
            except (TargetError, TooFewBarsError):
                self.num_failed += 1
                self._known[key] = None
            except ConfigError as error:  # not one row a bar, as it was over the true history
                raise ConfigError(
                    f"{error}. Over all {len(self.bars)} bars it does: let it use the bars that "
                    "it is given, and keep nothing between runs"
                ) from error
        return self._known[key]

    def traced(self, experiment: Experiment | None, mode: str, until: int, tracer: Tracer) -> None:
        """Run once more with somebody looking at each line; None for the true history."""
        self.num_runs += 1
        history = self.bars if experiment is None else self.history(experiment)
        try:
            self.runner.run(history, mode, until, tracer=tracer)
        except (TargetError, TooFewBarsError):
            self.num_failed += 1

    def reach(self, experiment: Experiment, output: str, row: int) -> int:
        """Return the last row that matters for an output at a row.

        More and more of the future is kept as it was, until the output no longer changes: in
        doubling steps, then by bisection.
        """
        last = len(self.bars) - 1
        low, step = experiment.cut, 1  # keeping up to low is not enough
        high = last  # keeping all is
        while low + step < last:
            if not self._still_changes(experiment, output, row, low + step):
                high = low + step
                break
            low, step = low + step, step * 2
        while high - low > 1:
            middle = (low + high) // 2
            if self._still_changes(experiment, output, row, middle):
                low = middle
            else:
                high = middle
        return high

    def _still_changes(self, experiment: Experiment, output: str, row: int, border: int) -> bool:
        kept = border - experiment.cut
        nearer = Experiment(experiment.mode, experiment.cut, experiment.how, experiment.draw, kept)
        changes = self.changes(nearer, row)
        return changes is None or output in changes
