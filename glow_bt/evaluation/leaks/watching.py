"""Lines that notice when somebody reads a bar that has not happened yet.

With its bars preloaded Backtrader gives ``data.close[5]`` five bars early, and at the third bar
``data.close[-5]`` wraps round to the end of the file.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import backtrader as bt

from glow_bt.evaluation.leaks.target import CodeLine, Target

__all__ = ["LateRead", "Watch", "watch_lines"]

_BACKTRADER = str(Path(bt.__file__).parent)


@dataclass(eq=False)
class LateRead:
    """Reads of later bars by one line of code.

    Attributes:
        where: the line of code.
        what: name of what was read.
        rows: row at which it read, and the latest row that it read there.
        wraps: whether a negative index went round to the end.
    """

    where: CodeLine
    what: str
    rows: dict[int, int] = field(default_factory=dict)
    wraps: bool = False


@dataclass(eq=False)
class Watch:
    """Collects reads of later bars in one run.

    Attributes:
        target: whose code is watched.
        reads: what was found, by line of code and what it read.
    """

    target: Target
    reads: dict[tuple[CodeLine, str], LateRead] = field(default_factory=dict)

    def note(self, what: str, row: int, read: int, wraps: bool) -> None:
        """Keep a read, if the user's code did it."""
        frame = sys._getframe(2)
        while frame.f_back and frame.f_code.co_filename.startswith(_BACKTRADER):
            if self.target.owns(frame.f_code.co_filename):  # a stock indicator is the target
                break
            frame = frame.f_back
        if not self.target.owns(frame.f_code.co_filename):
            return
        where = CodeLine(frame.f_code.co_filename, frame.f_lineno)
        late = self.reads.setdefault((where, what), LateRead(where, what))
        late.rows[row] = max(late.rows.get(row, 0), read)
        late.wraps |= wraps


class _WatchedArray(array):  # type: ignore[type-arg]
    """The values of a line; one index is looked at before it is used."""

    line: Any
    watch: Watch
    what: str

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401
        row = self.line.lencount - 1
        if row < 0:  # the whole history is computed at once: any row may be asked for
            if isinstance(index, int) and index >= len(self) > 0:
                self.watch.note(self.what, len(self) - 1, index, wraps=False)
            return super().__getitem__(index)
        if isinstance(index, slice):
            values = super().__getitem__(index)
            rows = range(*index.indices(len(self)))
            read = max((*rows[:1], *rows[-1:]), default=row)
            value = super().__getitem__(read) if read > row else math.nan
            wraps = (index.start or 0) < 0
        else:
            read = index + len(self) if index < 0 else index
            if read >= len(self):
                self.watch.note(self.what, row, read, wraps=False)
            values = value = super().__getitem__(index)
            wraps = index < 0
        if read > row and not math.isnan(value):
            self.watch.note(self.what, row, read, wraps)
        return values


def watch_lines(owner: Any, what: str, watch: Watch) -> None:  # noqa: ANN401
    """Have the reads of a feed's or an indicator's lines noted from now on.

    Args:
        owner: the feed or indicator; its lines may be full or still empty.
        what: stands before the names of its lines.
        watch: where reads are noted.
    """
    named = hasattr(owner, "getlinealiases")
    names: Iterable[str] = owner.getlinealiases() if named else ("line",)
    for line, name in zip(owner.lines, names, strict=False):
        watched = _WatchedArray("d", line.array)
        watched.line, watched.watch, watched.what = line, watch, f"{what}{name}"
        line.array = watched
