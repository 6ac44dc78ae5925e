"""The leak prover: is anything that is known at a bar different when its future is?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.evaluation.leaks.blaming import assignment
from glow_bt.evaluation.leaks.experiments import Experiment, Laboratory
from glow_bt.evaluation.leaks.findings import Leak, LeakReport
from glow_bt.evaluation.leaks.futures import choose_cuts
from glow_bt.evaluation.leaks.locating import late_reads, locate
from glow_bt.evaluation.leaks.record import Record, first_change
from glow_bt.evaluation.leaks.runs import TargetError, runner_of
from glow_bt.evaluation.leaks.target import Target
from glow_bt.evaluation.leaks.watching import Watch
from glow_bt.ohlcv import validate_bars

__all__ = ["CUT_POINTS", "verify"]

CUT_POINTS = {"function": 60, "indicator": 40, "strategy": 24}

Progress = Callable[[int, int], None]


def verify(
    target: Target,
    bars: pd.DataFrame,
    *,
    cut_points: int | None = None,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> LeakReport:
    """Look for values that change with bars after their own.

    The target runs over the whole history, twice, so that one that is not deterministic is told
    from one that leaks. Then, at many bars, the future is cut off, and given another course; what
    was said up to there must stay the same, to 1e-9. A strategy's orders, account value,
    position and all lines of its indicators are compared, an indicator's lines, a function's
    columns; the first two in both of Backtrader's modes, which must agree. Reads of later bars by
    index are seen even where they change nothing.

    It shows leaks, not their absence: it does not see what changes no compared value at the bars
    that were tried, what user code keeps outside (module variables, files, network), later prices
    that do not come from these bars, or leaks inside a bar.

    Args:
        target: what to verify (`load_target`, `target_of`).
        bars: a bar frame.
        cut_points: bars at which the future is taken away; by default `CUT_POINTS`.
        seed: seed of the choice of bars and of the other futures.
        progress: is told how many cut points of how many are done.

    Raises:
        ConfigError: if the target raises an error on the bars (`TargetError`), returns anything
            but one row a bar, or is not deterministic.
        TooFewBarsError: if it says nothing on so few bars.
        DataError: if the bars break the contract.
    """
    bars = validate_bars(bars)
    count = CUT_POINTS[target.kind] if cut_points is None else cut_points
    if count < 1:
        raise ConfigError(
            f"expected at least 1 cut point, found {count}; leave it out for the default"
        )
    if len(bars) < 3:
        raise TooFewBarsError(3, len(bars), "taking away the future")
    laboratory = Laboratory(runner_of(target), bars, seed)
    watches, broken = _run_whole(laboratory)
    leaks = [*broken, *_mode_leaks(laboratory)]
    first, cuts = 0, list[int]()
    if laboratory.base:
        first = _first_row(laboratory)
        rng = np.random.default_rng(seed)
        busy = np.unique(np.concatenate([r.busy() for r in laboratory.base.values()]))
        cuts = choose_cuts(bars, first, count, rng, busy)
        found = _search(laboratory, cuts, set(busy.tolist()), progress)
        leaks += locate(laboratory, found, watches)
    leaks += late_reads(bars, watches, {leak.where for leak in leaks})
    return LeakReport(
        target=target.name,
        kind=target.kind,
        num_bars=len(bars),
        first=first,
        outputs=tuple(next(iter(laboratory.base.values())).values) if laboratory.base else (),
        cuts=tuple(cuts),
        num_runs=laboratory.num_runs,
        num_failed=laboratory.num_failed,
        seed=seed,
        leaks=tuple(sorted(leaks, key=lambda leak: leak.row)),
    )


def _run_whole(laboratory: Laboratory) -> tuple[dict[str, Watch], list[Leak]]:
    """Run over the true history, twice in each mode, with an eye on reads of later bars."""
    runner, bars = laboratory.runner, laboratory.bars
    watches: dict[str, Watch] = {}
    errors: dict[str, TargetError] = {}
    for mode in runner.modes:
        watches[mode] = Watch(runner.target)
        laboratory.num_runs += 2
        try:
            laboratory.base[mode] = runner.run(bars, mode)
            again = runner.run(bars, mode, watch=watches[mode])
        except TargetError as error:
            errors[mode] = error
            laboratory.base.pop(mode, None)
            if runner.target.kind != "function" and not watches[mode].reads:
                _watched_failure(laboratory, mode, watches[mode])
            continue
        _refuse_chance(runner.target, laboratory.base[mode], again, bars)
    if not laboratory.base and not any(watch.reads for watch in watches.values()):
        raise next(iter(errors.values()))
    leaks: list[Leak] = []
    if laboratory.base:
        leaks = [_failure(m, error, bars) for m, error in errors.items() if not watches[m].reads]
    return watches, leaks


def _watched_failure(laboratory: Laboratory, mode: str, watch: Watch) -> None:
    try:
        laboratory.runner.run(laboratory.bars, mode, watch=watch)
    except TargetError:
        return


def _failure(mode: str, error: TargetError, bars: pd.DataFrame) -> Leak:
    how = f"fails {mode} only, with {type(error.error).__name__}: {error.error}"
    return Leak("modes", "(the run)", 0, bars.index[0], None, False, how, mode, error.where)


def _refuse_chance(target: Target, base: Record, again: Record, bars: pd.DataFrame) -> None:
    changes = first_change(base, again, len(bars) - 1)
    if changes:
        output, row = min(changes.items(), key=lambda item: item[1])
        values = [r.values[output][row] if output in r.values else np.nan for r in (base, again)]
        raise ConfigError(
            f"expected {target.name} to say the same of the same bars, found {output} at "
            f"{bars.index[row]} to be {values[0]:g} and then {values[1]:g}; seed its random "
            "numbers, and keep nothing between runs"
        )


def _mode_leaks(laboratory: Laboratory) -> list[Leak]:
    """What differs between Backtrader's modes, from the first bar with all values on."""
    if len(laboratory.base) < 2:
        return []
    (once, left), (step, right) = laboratory.base.items()
    bars = laboratory.bars
    how, modes = f"{once} and {step} disagree", f"{once}, {step}"
    file = str(laboratory.runner.target.file)
    return [
        Leak(
            "modes",
            output,
            row,
            bars.index[row],
            None,
            False,
            how,
            modes,
            assignment(file, output),
        )
        for output, row in first_change(left, right, len(bars) - 1).items()
    ]


def _first_row(laboratory: Laboratory) -> int:
    rows = [record.known_from() for record in laboratory.base.values()]
    known = [row for row in rows if row is not None]
    num_bars = len(laboratory.bars)
    if not known or min(known) > num_bars - 2:
        raise TooFewBarsError(
            num_bars + 1 if not known else min(known) + 2,
            num_bars,
            f"{laboratory.runner.target.name} to have a value with a future",
        )
    return min(known)


def _search(
    laboratory: Laboratory, cuts: Sequence[int], busy: set[int], progress: Progress
) -> dict[str, tuple[int, Experiment]]:
    """Take away the future at each cut; return each output that changed, and how early."""
    found: dict[str, tuple[int, Experiment]] = {}
    for done, cut in enumerate(cuts):
        progress(done, len(cuts))
        for experiment in _experiments(list(laboratory.base), cut, done, cut in busy):
            for output, row in (laboratory.changes(experiment) or {}).items():
                if output not in found or _better(row, experiment, *found[output]):
                    found[output] = (row, experiment)
    progress(len(cuts), len(cuts))
    return found


def _experiments(
    modes: Sequence[str], cut: int, number: int, thorough: bool
) -> Iterator[Experiment]:
    """A cut and another future; where a decision was made, one up and one down."""
    # Bar by bar is slower and sees less: every third time, in turn for either.
    first, second = (modes[-1 if (2 * number + k) % 3 == 0 else 0] for k in range(2))
    draw = number // 3 % 2
    yield Experiment(first, cut, "cut off")
    yield Experiment(second, cut, "another", draw)
    if thorough or len(modes) == 1:
        yield Experiment(modes[0], cut, "another", 1 - draw)


def _better(row: int, experiment: Experiment, row_so_far: int, so_far: Experiment) -> bool:
    """Earlier is better, then what keeps the length of the history."""
    return (row, experiment.how == "cut off") < (row_so_far, so_far.how == "cut off")
