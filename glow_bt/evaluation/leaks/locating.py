"""Where a leak is, how far it looks ahead, and which line does it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from glow_bt.evaluation.leaks.blaming import assignment, blame
from glow_bt.evaluation.leaks.experiments import Experiment, Laboratory
from glow_bt.evaluation.leaks.findings import Leak
from glow_bt.evaluation.leaks.snapshots import Known
from glow_bt.evaluation.leaks.target import CodeLine
from glow_bt.evaluation.leaks.tracing import LineTracer
from glow_bt.evaluation.leaks.watching import LateRead, Watch

__all__ = ["late_reads", "locate"]

# A read that acts later than so many bars after it is not taken for the cause.
_BARS_UNTIL_IT_ACTS = 30
_MOST_LOCATED = 24
_DRAWS = 4
_CUTS_AFTER = 8
_SHOWN = {"cut off": "the future cut off", "another": "another future"}

Found = Mapping[str, tuple[int, Experiment]]
Recordings = dict[tuple[Experiment, int], tuple[LineTracer, LineTracer]]


def locate(laboratory: Laboratory, found: Found, watches: Mapping[str, Watch]) -> list[Leak]:
    """Say of each output that changed how far it looked ahead, and where in the code.

    Args:
        laboratory: does the experiments.
        found: each output's first row that changed, and in which experiment.
        watches: reads of later bars in each mode.
    """
    recordings: Recordings = {}
    ordered = sorted(found.items(), key=lambda item: item[1][0])
    last = len(laboratory.bars) - 1
    leaks = []
    for number, (output, (row, experiment)) in enumerate(ordered):
        reach, where = None, None
        if number < _MOST_LOCATED:
            reach = laboratory.reach(experiment, output, row)
            where = _reading_line(watches[experiment.mode], row) or _traced_line(
                laboratory, experiment, output, row, reach, recordings
            )
        leaks.append(
            Leak(
                kind="value",
                output=output,
                row=row,
                stamp=laboratory.bars.index[row],
                ahead=None if reach is None else reach - row,
                to_end=reach == last,
                how=_SHOWN[experiment.how],
                mode=experiment.mode,
                where=where,
            )
        )
    return leaks


def _reading_line(watch: Watch, row: int) -> CodeLine | None:
    """The line that last read a later bar, shortly before a row."""
    best: tuple[int, CodeLine] | None = None
    for read in watch.reads.values():
        rows = [r for r in read.rows if row - _BARS_UNTIL_IT_ACTS <= r <= row]
        if rows and (best is None or max(rows) > best[0]):
            best = (max(rows), read.where)
    return None if best is None else best[1]


def _traced_line(
    laboratory: Laboratory,
    experiment: Experiment,
    output: str,
    row: int,
    reach: int,
    recordings: Recordings,
) -> CodeLine | None:
    other, row = _clearest(laboratory, experiment, output, row, reach)
    if (other, row) not in recordings:
        recordings[other, row] = _record(laboratory, other, row)
    left, right = recordings[other, row]
    found = blame(left.steps, right.steps, output)
    return found or assignment(str(laboratory.runner.target.file), output)


def _clearest(
    laboratory: Laboratory, experiment: Experiment, output: str, row: int, reach: int
) -> tuple[Experiment, int]:
    """An experiment that shows the leak and little else, with the first row at which it does.

    Half of the way from the row to what it reaches stays true, so that a label for training,
    which may look some bars ahead, is the same. There are as many bars as in the true history,
    so that their number is no clue; where that shows nothing, a cut soon after may.
    """
    halfway = (row + reach) // 2
    for draw in range(2 if halfway > experiment.cut else 0):
        other = Experiment(experiment.mode, halfway, "another", draw)
        if output in (changes := laboratory.changes(other, row) or {}):
            return other, changes[output]
    if experiment.how == "another":
        return experiment, row
    later = range(
        experiment.cut + 1, min(experiment.cut + _CUTS_AFTER, len(laboratory.bars) - 2) + 1
    )
    tried = [(experiment.cut, draw) for draw in range(_DRAWS)]
    for cut, draw in tried + [(cut, draw) for cut in later for draw in range(2)]:
        other = Experiment(experiment.mode, cut, "another", draw)
        if output in (changes := laboratory.changes(other) or {}):
            return other, changes[output]
    return experiment, row


def _record(
    laboratory: Laboratory, experiment: Experiment, row: int
) -> tuple[LineTracer, LineTracer]:
    """Look at every line over the true history and over one with another future."""
    # What is known at the row: a label for training may look further, up to the cut.
    bars = laboratory.bars
    around = [row, row - 1, row - 2, *np.linspace(0, row, 9).astype(int).tolist()]
    known = Known(len(bars), row, bars.index[row], tuple(sorted({r for r in around if r >= 0})))
    target = laboratory.runner.target
    tracers = LineTracer(target, known), LineTracer(target, known)
    laboratory.traced(None, experiment.mode, row, tracers[0])
    laboratory.traced(experiment, experiment.mode, row, tracers[1])
    return tracers


def late_reads(
    bars: pd.DataFrame, watches: Mapping[str, Watch], told: set[CodeLine | None]
) -> list[Leak]:
    """Reads of later bars that no changed value has told of yet.

    Args:
        bars: the history.
        watches: what was read in each mode.
        told: lines of code that are known already.
    """
    leaks: dict[tuple[CodeLine, str], Leak] = {}
    for mode, watch in watches.items():
        for key, read in watch.reads.items():
            if read.where not in told and key not in leaks:
                leaks[key] = _read_leak(bars, read, mode)
    return list(leaks.values())


def _read_leak(bars: pd.DataFrame, read: LateRead, mode: str) -> Leak:
    row = min(read.rows)
    return Leak(
        kind="read",
        output=read.what,
        row=row,
        stamp=bars.index[row],
        ahead=read.rows[row] - row,
        to_end=read.wraps,
        how="a negative index wraps to the end" if read.wraps else "reads a later bar",
        mode=mode,
        where=read.where,
    )
