"""What paper trading prints: a line a bar, for people or for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from glow_bt.bt.paper import PaperBar

__all__ = ["PaperPrinter"]

_NO_REAL_ORDERS = "paper trading: the broker is simulated, no real order is sent"


class PaperPrinter:
    """Prints what happens.

    Args:
        as_json: one JSON object a line, with ``event`` start, status, bar or stop.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._bars = 0

    def start(self, settings: Mapping[str, Any], folder: Path) -> None:
        """Say what begins, and whether it goes on from something."""
        from glow_bt.bt.paper import saved_bar

        last = saved_bar(folder)
        if self._as_json:
            goes_on = None if last is None else last.isoformat()
            facts = {"note": _NO_REAL_ORDERS, "real_orders": False, "last_bar": goes_on}
            self._tell("start", **facts, state=str(folder), settings=settings)
            return
        click.echo(_NO_REAL_ORDERS)
        what = f"{settings['symbol']} {settings['interval']}, strategy {settings['strategy']}"
        begun = f"a new account of {settings['cash']:,.2f}"
        begun = begun if last is None else f"going on after the bar of {last:%Y-%m-%d %H:%M} UTC"
        click.echo(f"{what}, {begun}; state in {folder}; Ctrl-C stops")

    def status(self, name: str, reason: str) -> None:
        """Tell the feed's new status."""
        if self._as_json:
            self._tell("status", status=name, reason=reason)
        else:
            click.echo(f"feed: {name}{f' ({reason})' if reason else ''}")

    def bar(self, bar: PaperBar) -> None:
        """Tell a bar that is on the disk."""
        self._bars += 1
        if self._as_json:
            values = {k: _number(v) for k, v in asdict(bar).items() if k != "timestamp"}
            self._tell("bar", timestamp=bar.timestamp.isoformat(), **values)
            return
        notes = [f"{bar.fills} filled"] if bar.fills else []
        notes += [] if bar.live else ["late: no order"]
        noted = f"  ({', '.join(notes)})" if notes else ""
        click.echo(
            f"{bar.timestamp:%Y-%m-%d %H:%M}  close {bar.close:<10.8g}  "
            f"rank {_shown(bar.confidence, '.2f')}  direction {_shown(bar.direction, '+.2f')}  "
            f"VaR {_shown(bar.var, '.2%')}  position {bar.position:+.6g}  "
            f"equity {bar.equity:,.2f}{noted}"
        )

    def stop(self, folder: Path) -> None:
        """Say how it ended."""
        if self._as_json:
            self._tell("stop", bars=self._bars, state=str(folder))
        else:
            click.echo(f"stopped after {self._bars} bars; the same call goes on from {folder}")

    def _tell(self, event: str, **facts: Any) -> None:
        click.echo(json.dumps({"event": event, **facts}))


def _number(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(value: float, pattern: str) -> str:
    return "-" if math.isnan(value) else format(value, pattern)
