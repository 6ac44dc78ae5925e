"""One way to run a target over bars, whatever it is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.evaluation.leaks.cerebro_runs import run_in_cerebro
from glow_bt.evaluation.leaks.record import Record, table_of
from glow_bt.evaluation.leaks.target import Target, own_error, silenced
from glow_bt.evaluation.leaks.watching import Watch

__all__ = ["Runner", "TargetError", "Tracer", "runner_of"]


class Tracer(Protocol):
    """Looks at user code while it runs."""

    def __enter__(self) -> Callable[[Callable[[], int]], None]:
        """Start, and return what takes the clock that tells the current row."""

    def __exit__(self, *error: object) -> None:
        """Stop."""


class TargetError(ConfigError):
    """The target raised an error on bars that it was given.

    Attributes:
        error: its error.
        where: the user's line; None if it arose elsewhere.
    """

    def __init__(self, target: Target, error: BaseException, num_bars: int, mode: str) -> None:
        self.error = error
        self.where = own_error(target, error.__traceback__)
        at = f" at {self.where} `{self.where.code}`" if self.where else ""
        how = f" ({mode})" if mode else ""
        beyond = isinstance(error, IndexError) and "read no bar after the current one, and "
        super().__init__(
            f"expected {target.name} to run on these {num_bars} bars{how}, found "
            f"{type(error).__name__}: {error}{at}; {beyond or ''}correct it, or give other bars"
        )


@dataclass(frozen=True, eq=False)
class Runner:
    """Runs a target over bars.

    Attributes:
        target: what is run.
        modes: the ways in which it can be run, by name.
    """

    target: Target
    modes: Sequence[str]

    def run(
        self,
        bars: pd.DataFrame,
        mode: str,
        until: int | None = None,
        watch: Watch | None = None,
        tracer: Tracer | None = None,
    ) -> Record:
        """Run over bars and say what came out at each.

        Args:
            bars: what it is given.
            mode: one of `modes`.
            until: last row of interest; a strategy is stopped there.
            watch: notes the reads of later bars.
            tracer: looks at the user's lines.

        Raises:
            TargetError: if it raises an error.
            TooFewBarsError: if it needs more bars before it says anything.
            ConfigError: if what it returns is not one row a bar.
        """
        try:
            with silenced():
                if self.target.kind == "function":
                    return self._call(bars, tracer)
                return run_in_cerebro(
                    self.target,
                    bars,
                    runonce=mode == "runonce",
                    until=until,
                    watch=watch,
                    tracer=tracer,
                )
        except (_WrongResult, TooFewBarsError) as error:
            if (
                isinstance(error, _WrongResult)
                or own_error(self.target, error.__traceback__) is None
            ):
                raise
            raise TargetError(self.target, error, len(bars), mode) from error
        except (Exception, SystemExit) as error:
            raise TargetError(self.target, error, len(bars), mode) from error

    def _call(self, bars: pd.DataFrame, tracer: Tracer | None) -> Record:
        given = bars.copy()
        if tracer is None:
            result = self.target.call(given, **self.target.params)
        else:
            with tracer:
                result = self.target.call(given, **self.target.params)
        if inspect.isgenerator(result):
            result = list(result)
        try:
            return Record(table_of(result, bars.index, self.target.name))
        except ConfigError as error:
            raise _WrongResult(str(error)) from error


class _WrongResult(ConfigError):
    """What a function returned is not one row a bar."""


def runner_of(target: Target) -> Runner:
    """Return what runs a target, in each of the modes that it can be run in."""
    return Runner(target, ("",) if target.kind == "function" else ("runonce", "bar by bar"))
