"""A strategy or an indicator in Cerebro: what it said, ordered and held at each bar."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import backtrader as bt
import numpy as np
import pandas as pd

from glow_bt.bt.commission import BybitPerpetual
from glow_bt.bt.feed import ArrayFeed
from glow_bt.errors import TooFewBarsError
from glow_bt.evaluation.leaks.record import Floats, Record
from glow_bt.evaluation.leaks.watching import Watch, watch_lines

if TYPE_CHECKING:
    from glow_bt.evaluation.leaks.runs import Tracer
    from glow_bt.evaluation.leaks.target import Target

__all__ = ["run_in_cerebro"]

_CASH = 100_000.0
_ORDERS = ("orders placed", "order size", "order price", "order type")
_ACCOUNT = ("account value", "position")
_BAR_LINES = ("close", "open", "high", "low")


def run_in_cerebro(
    target: Target,
    bars: pd.DataFrame,
    *,
    runonce: bool,
    until: int | None = None,
    watch: Watch | None = None,
    tracer: Tracer | None = None,
) -> Record:
    """Run a strategy, or an indicator in a strategy that does nothing else.

    Args:
        target: what to run.
        bars: over which bars.
        runonce: compute indicators over the whole history first.
        until: stop after this row.
        watch: notes the reads of later bars.
        tracer: looks at the user's lines.

    Raises:
        TooFewBarsError: if there are fewer bars than its warm-up.
    """
    cerebro = bt.Cerebro(stdstats=False, runonce=runonce)
    feed = ArrayFeed(dataname=bars)
    cerebro.adddata(feed)
    broker = _NotingBroker()
    broker.setcash(_CASH)
    broker.addcommissioninfo(BybitPerpetual())
    cerebro.setbroker(broker)
    if target.kind == "strategy":
        cerebro.addstrategy(target.call, **target.params)
    else:
        cerebro.addstrategy(_Host, indicator=target.call, settings=target.params)
    cerebro.addanalyzer(_Recorder, num_bars=len(bars), until=until, watch=watch, kind=target.kind)
    if tracer is None:
        recorder = cerebro.run()[0].analyzers[0]
    else:
        with tracer as set_clock:
            set_clock(lambda: len(feed) - 1)
            recorder = cerebro.run()[0].analyzers[0]
    record: Record = recorder.record()
    return record


class _Host(bt.Strategy):
    """Holds one indicator."""

    params: ClassVar[Any] = (("indicator", None), ("settings", None))

    def __init__(self) -> None:
        indicator = self.p.indicator
        inputs = [self.data]
        if indicator._mindatas > 1:
            inputs = [getattr(self.data, name) for name in _BAR_LINES[: indicator._mindatas]]
        self.target = indicator(*inputs, **self.p.settings)


class _NotingBroker(bt.brokers.BackBroker):
    """Keeps the orders that were placed since it was last asked."""

    def __init__(self) -> None:
        super().__init__()
        self.placed: list[tuple[float, float, float]] = []

    def submit(self, order: bt.Order, check: bool = True) -> bt.Order:
        price = order.created.price or 0.0
        limit = order.created.pricelimit or 0.0
        self.placed.append((order.created.size, price + math.pi * limit, order.exectype + 1.0))
        return super().submit(order, check=check)

    def take_placed(self) -> tuple[float, ...]:
        """Return number, size, price and type of them, each in one number, and forget them."""
        placed, self.placed = self.placed, []
        sums = [
            sum((place + 1.0) * order[part] for place, order in enumerate(placed))
            for part in range(3)
        ]
        return (float(len(placed)), *sums)


class _Recorder(bt.Analyzer):
    """Writes down every bar what is known at its close."""

    params: ClassVar[Any] = (("num_bars", 0), ("until", None), ("watch", None), ("kind", ""))

    def start(self) -> None:
        """Find the lines, and refuse too short a history before Backtrader fails on it."""
        needed = int(self.strategy._minperiod)
        if needed > self.p.num_bars:
            raise TooFewBarsError(needed, self.p.num_bars, "its warm-up")
        self.first = max(needed - 1, 0)
        self.lines_by_name = dict(_named_lines(self.strategy, self.p.kind))
        self.is_strategy = self.p.kind == "strategy"
        names = [*_ORDERS, *_ACCOUNT] if self.is_strategy else []
        self.books = {name: np.full(self.p.num_bars, np.nan) for name in names}
        self.values = {name: np.full(self.p.num_bars, np.nan) for name in self.lines_by_name}
        if self.p.watch is not None:
            watch_lines(self.data, "", self.p.watch)
            for name, owner in _indicators(self.strategy, self.p.kind):
                watch_lines(owner, f"{name}.", self.p.watch)

    def prenext(self) -> None:
        """Write down a bar of the warm-up."""
        self.next()

    def nextstart(self) -> None:
        """Write down the first bar."""
        self.next()

    def next(self) -> None:
        """Write down a bar."""
        row = len(self.data) - 1
        if not self.strategy.env._dorunonce:
            for name, line in self.lines_by_name.items():
                if len(line):
                    self.values[name][row] = line[0]
        if self.is_strategy:
            broker = self.strategy.broker
            position = sum(broker.getposition(data).size for data in self.strategy.datas)
            said = (*broker.take_placed(), broker.getvalue(), position)
            for values, value in zip(self.books.values(), said, strict=True):
                values[row] = value
        # Under runonce an indicator's lines are there before the first bar.
        done = not self.is_strategy and self.strategy.env._dorunonce
        if done or (self.p.until is not None and row >= self.p.until):
            self.strategy.env.runstop()

    def record(self) -> Record:
        """Return what was written down; under runonce the lines as they were computed."""
        values: dict[str, Floats] = dict(self.values)
        if self.strategy.env._dorunonce:
            for name, line in self.lines_by_name.items():
                known = np.array(line.array, dtype=np.float64)[: self.p.num_bars]
                values[name][: len(known)] = known
        return Record({**values, **self.books}, self.first, _ORDERS if self.is_strategy else ())


def _named_lines(strategy: bt.Strategy, kind: str) -> Iterator[tuple[str, Any]]:
    """Every line of every indicator, and of the strategy itself."""
    own = [name for name in strategy.getlinealiases() if name != "datetime"]
    for name in own:
        yield name, getattr(strategy.lines, name)
    seen: dict[str, int] = {}
    for label, indicator in _indicators(strategy, kind):
        aliases = indicator.getlinealiases() if hasattr(indicator, "getlinealiases") else [""]
        for line, alias in zip(indicator.lines, aliases, strict=False):
            name = ".".join(part for part in (label, alias) if part)
            seen[name] = seen.get(name, 0) + 1
            yield (f"{name} #{seen[name]}" if seen[name] > 1 else name), line


def _indicators(strategy: bt.Strategy, kind: str) -> Iterator[tuple[str, Any]]:
    """Indicators and operations between lines by name, those inside others after these."""
    for owner, path in _owned(strategy, ""):
        # The host's name for its only indicator says nothing.
        yield (path.removeprefix("target").lstrip(".") if kind == "indicator" else path), owner


def _owned(owner: Any, prefix: str) -> Iterator[tuple[Any, str]]:  # noqa: ANN401
    children = getattr(owner, "_lineiterators", {}).get(bt.LineIterator.IndType, [])
    attributes: dict[int, str] = {}  # by identity: two lines compared are a new line
    for key, value in getattr(owner, "__dict__", {}).items():
        if not key.startswith("_"):
            attributes[id(value)] = key
            members = value if isinstance(value, list | tuple) else ()
            attributes |= {id(member): f"{key}[{place}]" for place, member in enumerate(members)}
    for child in children:
        # Backtrader numbers some classes as it makes them, anew in each run.
        kind = re.sub(r"_\d+$", "", type(child).__name__)
        name = prefix + attributes.get(id(child), kind)
        yield child, name
        yield from _owned(child, f"{name}.")
