"""What is shown of a recording while it goes on, on a terminal only."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from rich.progress import BarColumn, TextColumn

from glow_bt.terminal import TerminalDisplay, terminal_progress

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

__all__ = ["RecordingProgress"]


class RecordingProgress(TerminalDisplay):
    """Shows how long a market has been recorded, and how many bars have closed.

    Nothing is shown where the console is not a terminal.

    Args:
        symbol: the market.
        seconds: how long it is to be recorded.
        console: where to; default standard error.
    """

    def __init__(self, symbol: str, seconds: float, console: Console | None = None) -> None:
        progress = terminal_progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[passed]} of {task.fields[whole]}"),
            TextColumn("{task.fields[state]}", markup=False),
            console=console,
        )
        super().__init__(progress)
        self._task = self._progress.add_task(
            f"recording {symbol}",
            total=seconds,
            passed=_shown(0.0),
            whole=_shown(seconds),
            state="connecting",
        )
        self._bars = 0

    def bars(self, closed: pd.DataFrame) -> None:
        """Count bars that have closed."""
        self._bars += len(closed)

    def time(self, passed: float, trouble: str) -> None:
        """Show the seconds that have passed, and what keeps book or trades from coming."""
        state = f"{self._bars} bars"
        self._progress.update(
            self._task,
            completed=passed,
            passed=_shown(passed),
            state=f"{state}, not connected: {trouble}" if trouble else state,
        )


def _shown(seconds: float) -> str:
    return str(datetime.timedelta(seconds=int(seconds)))
