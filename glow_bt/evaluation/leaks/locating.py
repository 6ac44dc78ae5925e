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
                laboratory, experiment, output, row, recordings
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
    laboratory: Laboratory, experiment: Experiment, output: str, row: int, recordings: Recordings
) -> CodeLine | None:
    other = _same_length(laboratory, experiment, output)
    if (other, row) not in recordings:
        recordings[other, row] = _record(laboratory, other, row)
    left, right = recordings[other, row]
    found = blame(left.steps, right.steps, output)
    return found or assignment(str(laboratory.runner.target.file), output)


def _same_length(laboratory: Laboratory, experiment: Experiment, output: str) -> Experiment:
    """An experiment of as many bars that shows the leak too, so that their number is no clue."""
    if experiment.how == "another":
        return experiment
    for draw in range(_DRAWS):
        other = Experiment(experiment.mode, experiment.cut, "another", draw)
        if output in (laboratory.changes(other) or {}):
            return other
    return experiment


def _record(
    laboratory: Laboratory, experiment: Experiment, row: int
) -> tuple[LineTracer, LineTracer]:
    """Look at every line over the true history and over one with another future."""
    bars, cut = laboratory.bars, experiment.cut
    around = [row, row - 1, row - 2, cut, cut - 1, *np.linspace(0, cut, 9).astype(int).tolist()]
    rows = tuple(sorted({r for r in around if 0 <= r <= cut}))
    known = Known(len(bars), cut, bars.index[cut], rows)
    target = laboratory.runner.target
    tracers = LineTracer(target, known), LineTracer(target, known)
    laboratory.traced(None, experiment.mode, cut, tracers[0])
    laboratory.traced(experiment, experiment.mode, cut, tracers[1])
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
