"""Paper trading: a strategy on live bars, with an account that survives restarts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import backtrader as bt
import pandas as pd

from glow_bt.bt.exposure import ExposureStrategy
from glow_bt.bt.forgetting import forget_done
from glow_bt.bt.indicator import GlowIndicator
from glow_bt.bt.live import FeedStatus, live_only
from glow_bt.bt.paper_broker import PaperBroker
from glow_bt.bt.paper_funding import Payment
from glow_bt.bt.paper_state import PaperState, Table, held_folder
from glow_bt.bt.stamps import to_index
from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.scoring import StreamState

__all__ = ["PaperAccount", "PaperBar", "PaperRun", "saved_bar"]

_EQUITY = ("close", "position", "cash", "equity", "funding", "live")
_PAYMENT = ("stamp", "size", "mark", "rate", "paid")
_FILL = ("created", "size", "price", "commission", "pnl")


@dataclass(frozen=True)
class PaperBar:
    """A bar that was booked.

    Attributes:
        timestamp: its open (UTC).
        close: last price.
        confidence: rank of the state's log-likelihood among held-out ones, in [0, 1].
        direction: in [-1, 1].
        var: quantile of the log return over the horizon, a negative number.
        position: signed size held at the close.
        equity: account value at the close.
        live: whether it came as it closed; orders follow such bars only.
        fills: how many orders filled in it.
    """

    timestamp: pd.Timestamp
    close: float
    confidence: float
    direction: float
    var: float
    position: float
    equity: float
    live: bool
    fills: int


@dataclass
class PaperRun:
    """A strategy on one live feed with Backtrader's simulated broker. No real order is sent.

    History comes first: the strategy is warmed up and places no order on it, nothing is charged.
    A new account opens at the first bar that comes live. A saved one is taken up as its last bar
    passes: cash, position, waiting orders, open trade and recalibration are what they were, and
    the bars that were missed are replayed: what waits fills, funding is charged, and no order is
    placed until the feed is LIVE again (`glow_bt.bt.live`). So a run in pieces equals a run in one
    go to the last bit, as long as the strategy hangs on bars and account alone: one with a memory
    of its own gives it in ``save_state() -> dict`` and takes it back in ``load_state(dict)``.

    Args:
        folder: where the state is kept (`glow_bt.bt.paper_state`).
        settings: what the run is made with, as JSON values; a restart needs the same.
        strategy: its class.
        params: its parameters. One that recalibrates needs a parameter ``state`` and gives its
            indicators what is in it, as `strategies.glow_strategy.GlowStrategy` does.
        watch: parameters of a `GlowIndicator` to show beside a strategy that has none of its own.
        cash: equity that a new account opens with.
        commission: commission scheme.
        max_bars: stop after so many live bars; None for never.
        on_start: called once when the folder is held and its account fits: trading begins.
        on_bar: called with every bar booked, when it is on the disk.
        on_status: called with the name of every new status of the feed, and the reason if it has
            one.
    """

    folder: Path
    settings: Mapping[str, Any]
    strategy: type[bt.Strategy]
    params: Mapping[str, Any]
    commission: bt.CommInfoBase
    watch: Mapping[str, Any] | None = None
    cash: float = 10_000.0
    max_bars: int | None = None
    on_start: Callable[[], None] | None = None
    on_bar: Callable[[PaperBar], None] | None = None
    on_status: Callable[[str, str], None] | None = None

    def __post_init__(self) -> None:
        self._cerebro: bt.Cerebro | None = None
        self._stopping = False

    def stop(self) -> None:
        """Ask the run to end at the next chance; from a signal handler or another thread."""
        self._stopping = True
        if self._cerebro is not None:
            self._cerebro.runstop()

    def run(self, feed: bt.AbstractDataBase) -> bt.Strategy:
        """Trade until asked to stop, or the feed ends.

        Args:
            feed: a live feed; its history has to reach back to the saved bar, with the model's
                ``min_bars`` before it.

        Returns:
            The strategy.

        Raises:
            ConfigError: if the feed is not live, the settings are others than the state's, or
                something cannot be saved.
            DataError: if the history does not reach back to the saved bar (TooFewBarsError: with
                the warm-up before it).
            ResultsError: if the folder is damaged, in use, or cannot be written.
            FeedError: from the feed.
        """
        if not feed.islive():
            raise ConfigError("expected a live feed, found one of a file; a backtest is for those")
        with held_folder(self.folder):
            saved = PaperState.read(self.folder)
            if saved is not None:
                saved.check_settings(self.settings, self.folder)
            cerebro = self._cerebro = self._prepared(feed, saved)
            if self.on_start is not None:
                self.on_start()
            try:
                strategy: bt.Strategy = cerebro.run()[0]
            except BaseException:
                feed.stop()  # Cerebro leaves it running
                raise
        return strategy

    def _prepared(self, feed: bt.AbstractDataBase, saved: PaperState | None) -> bt.Cerebro:
        cerebro = bt.Cerebro(stdstats=False)
        cerebro.setbroker(PaperBroker())
        cerebro.broker.setcash(self.cash)
        cerebro.broker.addcommissioninfo(self.commission)
        cerebro.adddata(feed)
        params, watch = dict(self.params), dict(self.watch or {})
        own, watched = self._streams(saved)
        if any(own):
            params["state"] = own
        if watched is not None:
            watch["state"] = watched
        asleep = issubclass(self.strategy, ExposureStrategy)
        cerebro.addstrategy(self.strategy if asleep else live_only(self.strategy), **params)
        if watch:
            cerebro.addindicator(GlowIndicator, **watch)
        cerebro.addanalyzer(PaperAccount, run=self, saved=saved)
        return cerebro

    def _streams(
        self, saved: PaperState | None
    ) -> tuple[list[StreamState | None], StreamState | None]:
        """Return what the strategy's own indicators go on from, and what the one beside them."""
        found = () if saved is None else saved.streams
        streams = [None if each is None else StreamState.from_dict(each) for each in found]
        beside = streams.pop() if self.watch and streams else None
        return streams, beside

    @property
    def stopping(self) -> bool:
        """Whether the run was asked to end."""
        return self._stopping


class PaperAccount(bt.Analyzer):
    """Takes up the account of a run, and saves it at every bar.

    Args:
        run: the run.
        saved: the state to go on from; None for a new account.
    """

    params: ClassVar[Any] = (("run", None), ("saved", None))

    def create_analysis(self) -> None:
        """Open the books."""
        run: PaperRun = self.p.run
        self._saved: PaperState | None = self.p.saved
        self._equity = Table(run.folder / "equity.csv", _EQUITY)
        self._trades = Table(run.folder / "trades.csv", _FILL)
        self._payments = Table(run.folder / "funding.csv", _PAYMENT)
        self._fills: list[tuple[pd.Timestamp, tuple[object, ...]]] = []
        self._live_bars = 0
        self._feeds = FeedStatus()

    def start(self) -> None:
        """Cut off what a kill left beyond the state, and listen to the feed."""
        last = None if self._saved is None else self._saved.last_bar
        for table in (self._equity, self._trades, self._payments):
            table.cut(last)
        self._glow = [i for i in self.strategy.getindicators() if isinstance(i, GlowIndicator)]
        run: PaperRun = self.p.run
        own = self._glow[:-1] if run.watch else self._glow
        takes_state = "state" in self.strategy.params._getkeys()
        if not takes_state and any(glow.stream_state is not None for glow in own):
            raise ConfigError(
                "expected a strategy that goes on with a recalibration, found "
                f"{type(self.strategy).__name__} without a parameter state; add one and hand it "
                "to its GlowIndicator, or do not recalibrate"
            )
        self.strategy.env.adddatacb(self._note)
        if run.stopping:
            self.strategy.env.runstop()

    def notify_order(self, order: bt.Order) -> None:
        """Book what filled."""
        for fill in order.executed.iterpending():
            created, filled = to_index([order.created.dt, fill.dt])
            fields = (fill.size, fill.price, fill.closedcomm + fill.openedcomm, fill.pnl)
            self._fills.append((filled, (created.isoformat(), *fields)))

    def next(self) -> None:
        """Save the bar, or take up the account if it is the saved one."""
        stamp = to_index([self.data.datetime[0]])[0]
        if self._saved is not None:
            if stamp >= self._saved.last_bar:
                self._take_up(stamp, self._saved)
        elif self.strategy.broker.opened:
            self._book(stamp)

    def get_analysis(self) -> dict[str, int]:
        """Return how many live bars this run has booked."""
        return {"live_bars": self._live_bars}

    def _note(
        self, data: bt.AbstractDataBase, status: int, *args: object, **kwargs: object
    ) -> None:
        self._feeds.note(data, status)
        if status == data.LIVE and self.p.saved is None:
            self.strategy.broker.opened = True
        if self.p.run.on_status is not None:
            self.p.run.on_status(data._getstatusname(status), " ".join(map(str, args)))

    def _take_up(self, stamp: pd.Timestamp, saved: PaperState) -> None:
        if stamp > saved.last_bar:
            raise DataError(
                f"expected bars from before {saved.last_bar}, the last one of the saved account, "
                f"found {stamp} as the next; let the history reach further back"
            )
        if len(self.data) < saved.warm_bars:
            raise TooFewBarsError(
                saved.warm_bars, len(self.data), f"the warm-up until {saved.last_bar}"
            )
        self.strategy.broker.restore(saved.account, self.strategy)
        if hasattr(self.strategy, "load_state"):
            self.strategy.load_state(saved.strategy)
        self._saved = None

    def _book(self, stamp: pd.Timestamp) -> None:
        run, broker = self.p.run, self.strategy.broker
        account = broker.account(self.strategy)
        position = float(broker.getposition(self.data).size)
        equity = float(broker.getvalue())
        paid = math.fsum(account["funding"].values())
        live = self._feeds.is_current(self.data)
        row = (self.data.close[0], position, account["cash"], equity, paid, int(live))
        self._trades.append(self._fills)
        if broker.payments:
            self._payments.append([(stamp, _paid(each)) for each in broker.payments])
            broker.payments.clear()
        self._equity.append([(stamp, row)])
        self._state(stamp, account).write(run.folder)
        if run.on_bar is not None:
            run.on_bar(self._report(stamp, position, equity, live))
        self._fills = []
        forget_done(broker, self.strategy)
        self._live_bars += live
        if run.max_bars is not None and self._live_bars >= run.max_bars:
            run.stop()

    def _state(self, stamp: pd.Timestamp, account: Mapping[str, Any]) -> PaperState:
        streams = [glow.stream_state for glow in self._glow]
        remember = getattr(self.strategy, "save_state", dict)
        return PaperState(
            settings=self.p.run.settings,
            last_bar=stamp,
            warm_bars=min(len(self.data), self.strategy._minperiod),
            account=account,
            streams=tuple(None if stream is None else stream.to_dict() for stream in streams),
            strategy=remember(),
        )

    def _report(self, stamp: pd.Timestamp, position: float, equity: float, live: bool) -> PaperBar:
        scores = {"confidence": math.nan, "direction": math.nan, "var": math.nan}
        if self._glow:
            scores = {name: float(getattr(self._glow[0].lines, name)[0]) for name in scores}
        return PaperBar(
            timestamp=stamp,
            close=float(self.data.close[0]),
            position=position,
            equity=equity,
            live=live,
            fills=len(self._fills),
            **scores,
        )


def _paid(payment: Payment) -> tuple[object, ...]:
    due = pd.Timestamp(payment.stamp_ns, tz="UTC").isoformat()
    return due, payment.size, payment.mark, payment.rate, payment.paid


def saved_bar(folder: Path) -> pd.Timestamp | None:
    """Return the last bar of a folder's account; None if it has none.

    Raises:
        ResultsError: if the state is damaged.
    """
    saved = PaperState.read(folder)
    return None if saved is None else saved.last_bar
