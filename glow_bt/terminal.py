"""Tables and progress: what differs between a terminal and where nobody watches."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, ProgressColumn

__all__ = ["TerminalDisplay", "table_console", "terminal_progress"]


def table_console(piped_width: int = 120) -> Console:
    """Return standard output, of a given width where no terminal decides on it."""
    console = Console()
    return console if console.is_terminal else Console(width=piped_width)


def terminal_progress(*columns: str | ProgressColumn, console: Console | None = None) -> Progress:
    """Return rich's display with these columns, which shows nothing where there is no terminal.

    Args:
        columns: what a task's line consists of.
        console: where to; default standard error.
    """
    console = console or Console(stderr=True)
    return Progress(*columns, console=console, disable=not console.is_terminal)


class TerminalDisplay:
    """Shows progress while a block runs; what it shows is up to the subclass.

    Args:
        progress: the display (`terminal_progress`).
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __enter__(self) -> Self:
        """Begin to show."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the terminal in order."""
        self._progress.stop()
