"""`glow-bt paper`: a strategy on live bars, with money that does not exist."""

from __future__ import annotations

import importlib
import json
import math
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glow_bt.cli.options import ExampleCommand, model_option
from glow_bt.cli.paper_output import PaperPrinter
from glow_bt.errors import ConfigError

if TYPE_CHECKING:
    from types import FrameType

    from datafeeds.bybit_client import BybitClient
    from glow_bt.bt import BybitPerpetual
    from glow_bt.bt.paper import PaperRun
    from glow_bt.scoring import Scorer

__all__ = ["paper"]

_LEAST_HISTORY = 500
# Bars that may close between counting those missed and fetching them.
_SPARE_BARS = 5


@click.command(
    cls=ExampleCommand,
    examples=(
        "glow-bt paper --symbol BTC/USDT:USDT --timeframe 1h --model models/btc --state paper/btc",
        "glow-bt paper --symbol BTC/USDT:USDT --timeframe 1h --model models/btc --state paper/b "
        "--strategy my_strategies:Breakout --set window=20",
    ),
)
@click.option("--symbol", required=True, help="A linear perpetual, such as BTC/USDT:USDT.")
@click.option("--timeframe", required=True, help="1m, 5m, 15m, 1h, 4h, 1d, ...")
@model_option
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the account; a restart with the same folder goes on where it was.",
)
@click.option(
    "--strategy",
    default="glow",
    show_default=True,
    help="glow, or module:Class of a Backtrader strategy.",
)
@click.option(
    "--set",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of the strategy; may be given again.",
)
@click.option(
    "--cash", type=float, default=10_000.0, show_default=True, help="Money to begin with."
)
@click.option(
    "--history",
    type=click.IntRange(min=1),
    default=None,
    help="Bars that come first. [default: 500, or what the model needs]",
)
@click.option(
    "--websocket/--no-websocket",
    default=True,
    show_default=True,
    help="How bars come; without it the exchange is asked for each.",
)
@click.option("--base-url", default=None, help="Another server that speaks Bybit v5.")
@click.option("--stream-url", default=None, help="Its websocket, such as wss://host.")
@click.option(
    "--recalibrate", is_flag=True, help="Correct VaR by how earlier forecasts turned out."
)
@click.option("--var-level", type=float, default=0.01, show_default=True, help="Level of the VaR.")
@click.option("--horizon", type=int, default=1, show_default=True, help="Bars ahead it is for.")
@click.option("--taker", type=float, default=0.00055, show_default=True, help="Taker's fee.")
@click.option("--maker", type=float, default=0.0002, show_default=True, help="Maker's fee.")
@click.option(
    "--liquidity",
    type=click.Choice(("taker", "maker")),
    default="taker",
    show_default=True,
    help="Which of the two is charged; market orders take.",
)
@click.option("--leverage", type=float, default=1.0, show_default=True, help="Most that is lent.")
@click.option("--qty-step", type=float, default=0.0, show_default=True, help="Step of quantities.")
@click.option(
    "--funding-rate",
    type=float,
    default=None,
    help="One rate for every 8 hours. [default: the exchange's, at its stamps]",
)
@click.option(
    "--bars", "max_bars", type=click.IntRange(min=1), default=None, help="Stop after so many."
)
@click.option("--seed", type=int, default=0, help="Seed of the retries' jitter.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")
def paper(**options: Any) -> None:
    """Trade live bars of Bybit with Backtrader's simulated broker. No real order is sent.

    History warms the model up; then each bar is scored as it closes, and what the strategy
    orders fills at the next open, with fees and funding. The account is saved at every bar:
    after a stop (Ctrl-C), a crash or a power cut the same call goes on with its position,
    waiting orders, averages and recalibration, and makes up for the bars that it missed: what
    waits fills and funding is charged, but the strategy places no order on them, for they are
    late.
    """
    from datafeeds.bybit_client import BybitClient
    from datafeeds.bybit_feed import BybitData
    from glow_bt.artifact import load_artifact
    from glow_bt.scoring import Scorer

    artifact = load_artifact(options["model"])
    names = ("var_level", "horizon", "recalibrate")
    scorer = Scorer(artifact, **{name: options[name] for name in names})
    _check_timeframe(options["timeframe"], scorer.bar_seconds)
    with BybitClient(base_url=options["base_url"], seed=options["seed"]) as client:
        printer = PaperPrinter(options["as_json"])

        def patient(reason: str) -> bool:
            printer.status("CONNBROKEN", f"{reason}; the funding rate is waited for")
            return not run.stopping

        run = _run(options, client, artifact, patient)
        feed = BybitData(
            dataname=options["symbol"],
            name=options["symbol"],
            live=True,
            interval=options["timeframe"],
            history=_history(options, client, scorer),
            client=client,
            websocket=options["websocket"],
            stream_url=options["stream_url"],
            funding="funding_rate" in scorer.columns,
            open_interest="open_interest" in scorer.columns,
        )
        run.on_start = lambda: printer.start(run.settings, options["state"])
        run.on_bar, run.on_status = printer.bar, printer.status
        with _stopping(run):
            run.run(feed)
        printer.stop(options["state"])


def _run(
    options: Mapping[str, Any], client: BybitClient, artifact: Any, patient: Callable[[str], bool]
) -> PaperRun:
    """Gather what trades, with which parameters and costs."""
    from glow_bt.artifact import fingerprint
    from glow_bt.bt.paper import PaperRun
    from glow_bt.evaluation.backtest import check_money

    check_money(options["cash"], 0.0)
    market = client.market(options["symbol"])
    if market.category != "linear":
        raise ConfigError(
            f"expected a linear perpetual, found {market.symbol}, which is {market.category}; "
            "give a symbol such as BTC/USDT:USDT"
        )
    strategy = _strategy(options["strategy"])
    known = set(strategy.params._getkeys())
    scores = {name: options[name] for name in ("var_level", "horizon", "recalibrate")}
    offered = {"cost_rate": options["taker"], **scores}
    params = {name: value for name, value in offered.items() if name in known}
    params |= _given(options["given"], strategy.__name__, known)
    own_model = "model" in known
    costs = ("taker", "maker", "liquidity", "leverage", "qty_step", "funding_rate")
    settings = {
        "symbol": market.symbol,
        "interval": options["timeframe"],
        "model": fingerprint(artifact),
        "scores": scores,
        "strategy": options["strategy"],
        "parameters": {**_defaults(strategy), **params},
        "cash": options["cash"],
        "costs": {name: options[name] for name in costs},
    }
    return PaperRun(
        folder=options["state"],
        settings=settings,
        strategy=strategy,
        params={**params, "model": artifact} if own_model else params,
        commission=_commission(options, client, patient),
        watch=None if own_model else {"model": artifact, **scores},
        cash=options["cash"],
        max_bars=options["max_bars"],
    )


def _defaults(strategy: Any) -> dict[str, Any]:
    """Return the strategy's parameters where nobody gives others, as far as JSON holds them.

    Another version of it may have others, and would not go on as it began.
    """
    return {
        name: value
        for name, value in strategy.params._getpairs().items()
        if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    }


def _commission(
    options: Mapping[str, Any], client: BybitClient, patient: Callable[[str], bool]
) -> BybitPerpetual:
    from datafeeds.bybit_funding import BybitFunding
    from glow_bt.bt import BybitPerpetual
    from glow_bt.bt.paper_funding import PaperFunding

    names = ("taker", "maker", "liquidity", "leverage", "qty_step")
    costs = {name: options[name] for name in names}
    if options["funding_rate"] is not None:
        return BybitPerpetual(**costs, funding_rate=options["funding_rate"])
    funding = PaperFunding(BybitFunding(client, options["symbol"], patient=patient))
    return BybitPerpetual(**costs, funding=funding)


def _strategy(name: str) -> Any:
    """Find the class that a name means."""
    if name == "glow":
        from strategies.glow_strategy import GlowStrategy

        return GlowStrategy
    module, colon, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), attribute) if colon else None
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"expected --strategy glow or module:Class, found {name!r} ({error}); the module is "
            "looked for in the working folder too"
        ) from error
    finally:
        sys.path.pop(0)
    if not (isinstance(found, type) and hasattr(found, "notify_data")):
        raise ConfigError(
            f"expected --strategy glow or module:Class of a Backtrader strategy, found {name!r}"
        )
    return found


def _given(pairs: tuple[str, ...], strategy: str, known: set[str]) -> dict[str, Any]:
    """Read NAME=VALUE; a value is JSON, or else a text."""
    params: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in known - {"model", "state"}:
            raise ConfigError(
                f"expected --set NAME=VALUE with a parameter of {strategy} "
                f"({', '.join(sorted(known - {'model', 'state'})) or 'it has none'}), "
                f"found {pair!r}"
            )
        try:
            params[name] = json.loads(text)
        except json.JSONDecodeError:
            params[name] = text
    return params


def _check_timeframe(timeframe: str, bar_seconds: float) -> None:
    """Refuse bars of another interval than the model's, before anything begins."""
    import numpy as np

    from datafeeds.bybit_time import TIMEFRAMES, timeframe_of
    from glow_bt.errors import ArtifactError
    from glow_bt.scoring import check_interval

    step_ms = timeframe_of(timeframe).step_ms
    try:
        check_interval(np.array([0, step_ms * 1_000_000], np.int64), bar_seconds)
    except ArtifactError as error:
        names = [name for name, one in TIMEFRAMES.items() if one.step_ms == bar_seconds * 1000]
        own = names[0] if names else f"{bar_seconds:g}s"
        raise ConfigError(
            f"expected --timeframe {own}, the bars that the model was trained on, found "
            f"{timeframe}; take {own}, or a model of {timeframe} bars"
        ) from error


def _history(options: Mapping[str, Any], client: BybitClient, scorer: Scorer) -> int:
    """Return how many bars have to come first: a warm-up before what was missed."""
    from datafeeds.bybit_time import timeframe_of
    from glow_bt.bt.paper import saved_bar

    step_ms = timeframe_of(options["timeframe"]).step_ms
    warm_up: int = max(options["history"] or _LEAST_HISTORY, scorer.min_bars)
    last = saved_bar(options["state"])
    if last is None:
        return warm_up
    missed = (client.server_time() - last).total_seconds() * 1000.0 / step_ms
    return warm_up + max(int(missed), 0) + _SPARE_BARS


@contextmanager
def _stopping(run: PaperRun) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the run after the bar in hand; a second one ends it at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        if run.stopping:
            raise KeyboardInterrupt
        run.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
