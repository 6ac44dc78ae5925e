"""What the leak prover reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from glow_bt.evaluation.leaks.target import CodeLine

__all__ = ["Leak", "LeakReport"]


@dataclass(frozen=True, eq=False)
class Leak:
    """Something that knew a later bar, or two modes that disagree.

    Attributes:
        kind: "value", what was said at a bar changed with its future; "read", a later bar was
            read; "modes", Backtrader's two modes say different things.
        output: name of what changed or was read.
        row: first row at which it was found, and
        stamp: its bar's open.
        ahead: bars that it looks ahead there; None where that does not apply.
        to_end: whether it looks as far as the history goes.
        how: what was done to show it.
        mode: Backtrader's mode; empty for a function.
        where: line of code; None if none was found.
    """

    kind: Literal["value", "read", "modes"]
    output: str
    row: int
    stamp: pd.Timestamp
    ahead: int | None
    to_end: bool
    how: str
    mode: str
    where: CodeLine | None

    def facts(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "kind": self.kind,
            "output": self.output,
            "bar": self.stamp.isoformat(),
            "row": self.row,
            "ahead": self.ahead,
            "to_end": self.to_end,
            "how": self.how,
            "mode": self.mode or None,
            "file": self.where.file if self.where else None,
            "line": self.where.line if self.where else None,
            "code": self.where.code if self.where else None,
        }


@dataclass(frozen=True, eq=False)
class LeakReport:
    """What was tried, and what was found.

    Attributes:
        target: name of what was verified.
        kind: strategy, indicator or function.
        num_bars: bars of the history.
        first: row of the first bar at which it says something.
        outputs: names of what was compared.
        cuts: rows after which the future was cut off and replaced.
        num_runs: how often the target ran.
        num_failed: how many of the runs over other bars it ended with an error: they tell
            nothing.
        seed: seed of all chance.
        leaks: what was found, by row.
    """

    target: str
    kind: str
    num_bars: int
    first: int
    outputs: tuple[str, ...]
    cuts: tuple[int, ...]
    num_runs: int
    num_failed: int
    seed: int
    leaks: tuple[Leak, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.leaks

    def facts(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "target": self.target,
            "kind": self.kind,
            "clean": self.clean,
            "bars": self.num_bars,
            "first_row": self.first,
            "outputs": list(self.outputs),
            "cut_points": len(self.cuts),
            "runs": self.num_runs,
            "failed_runs": self.num_failed,
            "seed": self.seed,
            "leaks": [leak.facts() for leak in self.leaks],
        }
