"""Which line of the user's code first knew of the future.

The same code runs twice, with two futures, and the variables at each line are looked at: of what
is known at the last bar before the futures part, nothing may differ. The line after which
something does is the one that looked ahead.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from glow_bt.evaluation.leaks.snapshots import Known, snapshot
from glow_bt.evaluation.leaks.target import CodeLine, Target

__all__ = ["LineTracer", "Step", "differ"]

_MOST_STEPS = 20_000
# A strategy's bars before the one that changed: what they kept may act later.
_BARS_BEFORE = 30

Values = dict[str, tuple[bool, tuple[float, ...]]]


@dataclass(frozen=True, eq=False)
class Step:
    """A line about to run, or a function about to return.

    Attributes:
        frame: number of the call that it belongs to.
        where: the line.
        is_return: whether the function returns.
        bar: row of the current bar; -1 outside the loop over bars.
        values: what variables hold of what is known.
    """

    frame: int
    where: CodeLine
    is_return: bool
    bar: int
    values: Values


@dataclass(eq=False)
class LineTracer:
    """Records the steps of user code.

    Attributes:
        target: whose code it is.
        known: which bars are known.
        steps: what was recorded.
    """

    target: Target
    known: Known
    steps: list[Step] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)
    _num_frames: int = 0
    _clock: Callable[[], int] = lambda: -1
    _before: Any = None

    def __enter__(self) -> Callable[[Callable[[], int]], None]:
        """Start to record."""
        self._before = sys.gettrace()
        sys.settrace(self._on_call)
        return self._set_clock

    def __exit__(self, *error: object) -> None:
        """Stop."""
        sys.settrace(self._before)

    def _set_clock(self, clock: Callable[[], int]) -> None:
        self._clock = clock

    def _on_call(self, frame: FrameType, event: str, arg: object) -> Any:  # noqa: ANN401
        code = frame.f_code
        if code.co_name.startswith("<") and code.co_name != "<lambda>":
            return None
        if not self.target.owns(code.co_filename) or len(self.steps) >= _MOST_STEPS:
            return None
        bar = self._clock()
        if bar >= 0 and not self.known.last - _BARS_BEFORE <= bar <= self.known.last:
            return None
        self._num_frames += 1
        self._numbers[id(frame)] = self._num_frames
        return self._on_step

    def _on_step(self, frame: FrameType, event: str, arg: object) -> Any:  # noqa: ANN401
        if event in ("line", "return") and len(self.steps) < _MOST_STEPS:
            number = self._numbers[id(frame)]
            where = CodeLine(frame.f_code.co_filename, frame.f_lineno)
            bar = self._clock()
            values = dict(self._snapshots(frame, number))
            if event == "return":
                for name, whole, numbers in snapshot("return", arg, self.known):
                    values[f"{number}:{name}"] = (whole, numbers)
            self.steps.append(Step(number, where, event == "return", bar, values))
        return self._on_step

    def _snapshots(
        self, frame: FrameType, number: int
    ) -> Iterator[tuple[str, tuple[bool, tuple[float, ...]]]]:
        for name, value in list(frame.f_locals.items()):
            prefix = f"{number}:"
            if name == "self":
                yield from self._of_object(value)
            else:
                with contextlib.suppress(Exception):  # what cannot be looked at says nothing
                    for key, whole, numbers in snapshot(name, value, self.known):
                        yield prefix + key, (whole, numbers)

    def _of_object(self, owner: object) -> Iterator[tuple[str, tuple[bool, tuple[float, ...]]]]:
        prefix = f"0:{type(owner).__name__} "
        for name, value in list(getattr(owner, "__dict__", {}).items()):
            if not name.startswith(("_", "data")):
                with contextlib.suppress(Exception):
                    for key, whole, numbers in snapshot(f"self.{name}", value, self.known):
                        yield prefix + key, (whole, numbers)
        lines = getattr(owner, "lines", None)
        for place, line in enumerate(lines if lines is not None else ()):
            with contextlib.suppress(Exception):
                for key, whole, numbers in snapshot(f"lines[{place}]", line, self.known):
                    yield prefix + key, (whole, numbers)


def differ(left: tuple[bool, tuple[float, ...]], right: tuple[bool, tuple[float, ...]]) -> bool:
    """Say whether two snapshots are of different things."""
    if len(left[1]) != len(right[1]):
        return True
    return any(
        not (a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-9))
        for a, b in zip(left[1], right[1], strict=True)
    )
