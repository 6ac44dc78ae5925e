"""`glow-bt microstructure`: bars of what an order book and trades say, recorded or live."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glow_bt.cli.data import check_new_file
from glow_bt.cli.options import ExampleCommand, hidden_beside, output_options
from glow_bt.cli.stopping import stopped_by_sigterm

if TYPE_CHECKING:
    import pandas as pd

    from glow_bt.errors import FeedError
    from glow_bt.microstructure import MicrostructureSpec

__all__ = ["microstructure"]

_RAW_FILES = (".jsonl", ".jsonl.gz")
_FILES: dict[str, Any] = {"type": click.Path(path_type=Path), "multiple": True}


@click.command(
    cls=ExampleCommand,
    examples=(
        "glow-bt microstructure --trades BTCUSDT2024-12-01.csv.gz --timeframe 1m --out f.parquet",
        "glow-bt microstructure --trades trades.jsonl.gz --book book.jsonl.gz --timeframe 10s "
        "--interval 1s --out f.parquet",
        "glow-bt microstructure --live BTC/USDT:USDT --for 1h --timeframe 1m --out f.parquet",
    ),
)
@click.option("--trades", **_FILES, help="Trades: CSV archive or JSON lines. May be repeated.")
@click.option("--book", **_FILES, help="Order-book messages, JSON lines, oldest file first.")
@click.option("--symbol", help="Bybit's name of the market, if files hold several.")
@click.option("--live", metavar="SYMBOL", help="Record this market's streams instead.")
@click.option("--for", "duration", default="1h", show_default=True, help="How long to record.")
@click.option("--depth", default=50, show_default=True, help="Levels that --live subscribes.")
@click.option(
    "--raw",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep live messages: .jsonl[.gz]",
)
@click.option("--base-url", default=None, help="Another server that speaks Bybit v5.")
@click.option("--stream-url", default=None, help="Its streams, such as wss://host.")
@click.option("--timeframe", required=True, help="Length of bars: 500ms, 10s, 1m, 1h, ...")
@click.option("--since", default=None, help="First bar, ISO 8601 (UTC).")
@click.option("--until", default=None, help="The files reach to this moment at least.")
@click.option("--levels", default=5, show_default=True, help="Levels of the book that count.")
@click.option(
    "--vwap-reference",
    type=click.Choice(("close", "mid")),
    default="close",
    show_default=True,
    help="What VWAP is compared with: the bar's last trade or its closing mid.",
)
@click.option("--interval", default=None, help="Intervals of Kyle's lambda. [default: the bar]")
@click.option("--window", default=60, show_default=True, help="How many of them it looks back on.")
@click.option(
    "--impact",
    type=click.Choice(("linear", "sqrt")),
    default="linear",
    show_default=True,
    help="Kyle's lambda, or Hasbrouck's on roots of volume.",
)
@click.option(
    "--classification",
    type=click.Choice(("sides", "bulk")),
    default="sides",
    show_default=True,
    help="Which trades VPIN takes for buys: by their takers, or in bulk.",
)
@click.option(
    "--bucket-volume",
    type=float,
    default=None,
    help="Volume of VPIN's buckets. [default: the first day's over their number]",
)
@click.option("--buckets", default=50, show_default=True, help="How many VPIN is the mean over.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="CSV (.csv, .csv.gz) or Parquet file; it appears whole or not at all.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option("--seed", type=int, default=0, help="Seed of the jitter between connections.")
@output_options
def microstructure(as_json: bool, **options: Any) -> None:
    """Bars of liquidity and order flow.

    From files of trades, of an order book or of both, or from Bybit's streams: spread, mid and
    microprice, depth imbalance, order-flow imbalance, bought and sold volume, VWAP's deviation,
    VPIN and Kyle's lambda. Values are known at a bar's close.

    What is recorded lies in a hidden folder beside FILE until that is there: after a kill the same
    call goes on, and puts what the killed one recorded before its own.
    """
    _check_source(options)
    _check_places(options)
    spec = _spec(options)
    facts = _record(spec, options) if options["live"] else _read(spec, options)
    facts["out"] = str(options["out"])
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(
        f"{facts['bars']} bars of {options['timeframe']}, {facts['from']} to {facts['until']}"
    )
    for name in ("trades", "book"):
        if name in facts:
            told = ", ".join(f"{count} {what}" for what, count in facts[name].items())
            click.echo(f"{name}: {told}")
    click.echo(f"wrote {options['out']}")


def _check_source(options: dict[str, Any]) -> None:
    """Refuse a call that names no record, or both kinds."""
    given = [f"--{name}" for name in ("trades", "book") if options[name]]
    if options["live"] is None and not given:
        raise click.UsageError(
            "expected --trades or --book (or both), or --live SYMBOL, found none of them"
        )
    if options["live"] is not None and given:
        raise click.UsageError(
            "expected --trades or --book (or both), or --live SYMBOL, found "
            f"{' and '.join([*given, '--live'])}; give files or a market to record, not both"
        )


def _check_places(options: dict[str, Any]) -> None:
    """Refuse files that could not be written, before anything is read or recorded."""
    from glow_bt.errors import ConfigError, ResultsError
    from glow_bt.ohlcv import check_bars_file

    check_bars_file(options["out"])
    raw = options["raw"]
    if raw is not None and not raw.name.endswith(_RAW_FILES):
        raise ConfigError(
            f"expected --raw as a file {' or '.join(_RAW_FILES)}, found {raw.name!r}"
        )
    for file in (options["out"], raw):
        if file is None:
            continue
        check_new_file(file, options["overwrite"])
        above = next(path for path in file.absolute().parents if os.path.lexists(path))
        if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            what = "a folder without permission to write" if above.is_dir() else "a file"
            raise ResultsError(
                f"expected a place for {file}, found {what}, {above}; choose another place"
            )


def _spec(options: dict[str, Any]) -> MicrostructureSpec:
    from glow_bt.microstructure import MicrostructureSpec, step_of

    interval = options["interval"]
    names = ("levels", "vwap_reference", "window", "impact", "classification", "buckets")
    return MicrostructureSpec(
        step_of(options["timeframe"]),
        interval_ms=None if interval is None else step_of(interval, "an interval"),
        bucket_volume=options["bucket_volume"],
        **{name: options[name] for name in names},
    )


def _read(spec: MicrostructureSpec, options: dict[str, Any]) -> dict[str, Any]:
    """Write the bars of recorded files, and return what is told of them."""
    from datafeeds.bybit_book import BookRecord
    from datafeeds.bybit_trades import read_trades
    from glow_bt.errors import DataError
    from glow_bt.microstructure import microstructure_bars
    from glow_bt.ohlcv import write_bars

    facts: dict[str, Any] = {}
    trades, book = None, None
    if options["trades"]:
        record = read_trades(options["trades"], options["symbol"])
        if not len(record.trades):
            raise DataError(
                f"expected trades in {', '.join(map(str, options['trades']))}, found none"
                f"{f' but {record.blocks} block trades' if record.blocks else ''}; check the files"
            )
        trades = record.trades
        facts["trades"] = {
            "read": len(trades),
            "duplicates": record.duplicates,
            "block_trades": record.blocks,
        }
    if options["book"]:
        book = BookRecord(options["book"], spec.levels, options["symbol"])
    bars = microstructure_bars(
        spec, trades, book, since_ms=_moment(options, "since"), until_ms=_moment(options, "until")
    )
    if book is not None:
        facts["book"] = dict(book.counts)
        if book.deepest < spec.levels:
            click.echo(
                f"note: the book holds {book.deepest} levels a side only; what concerns the "
                f"others, up to --levels {spec.levels}, is empty",
                err=True,
            )
    write_bars(bars, options["out"])
    span = {"from": bars.index[0].isoformat(), "until": bars.index[-1].isoformat()}
    return {"bars": len(bars), **span, "columns": list(bars.columns), **facts}


def _moment(options: dict[str, Any], name: str) -> int | None:
    from datafeeds.bybit_time import as_utc, to_epoch_ms

    stamp = options[name]
    return None if stamp is None else to_epoch_ms(as_utc(stamp, name))


def _record(spec: MicrostructureSpec, options: dict[str, Any]) -> dict[str, Any]:
    """Write the bars that close while a market is recorded, and return what is told of them."""
    import random
    from dataclasses import asdict

    from datafeeds.bybit_client import BybitClient
    from datafeeds.bybit_recorder import MicrostructureRecorder
    from datafeeds.bybit_retry import RetryPolicy
    from datafeeds.bybit_topics import stream_address
    from glow_bt.cli.bar_spool import BarSpool
    from glow_bt.cli.recording import RecordingProgress
    from glow_bt.microstructure import step_of

    seconds = step_of(options["duration"], "a duration") / 1000
    draw = random.Random(options["seed"]).random
    with BybitClient(base_url=options["base_url"], seed=options["seed"]) as client:
        market = client.market(options["live"])
    form = {"symbol": market.symbol, "depth": options["depth"], **asdict(spec)}
    with (
        stopped_by_sigterm(),
        BarSpool(hidden_beside(options["out"], "recording"), form) as spool,
    ):
        with (
            _kept(options["raw"]) as keep,
            RecordingProgress(market.symbol, seconds) as progress,
        ):

            def take(bars: pd.DataFrame) -> None:
                spool.add(bars)
                progress.bars(bars)

            record = MicrostructureRecorder(
                stream_address(options["stream_url"], market.category),
                market.id,
                spec,
                depth=options["depth"],
                on_bars=take,
                on_message=keep,
                on_time=progress.time,
                retry=RetryPolicy(first_delay=1.0, max_delay=30.0, draw=draw),
            ).run(seconds)
        if record.ended:
            click.echo(f"note: ended early, {record.ended}", err=True)
        if spool.earlier:
            click.echo(
                f"note: {spool.earlier} bars of a call that was cut short come first", err=True
            )
        if not spool.num_bars:
            raise _nothing_recorded(options, record.unreached)
        facts = spool.finish(options["out"])
    return {**facts, "symbol": market.symbol, "book": record.counts}


def _nothing_recorded(options: dict[str, Any], unreached: str) -> FeedError:
    """Say why no bar has closed."""
    from glow_bt.errors import FeedError, TransientFeedError

    if unreached:
        return TransientFeedError(
            f"expected streams of {options['live']} within {options['duration']}, found no "
            f"connection: {unreached}; check the network and --stream-url, and try again"
        )
    return FeedError(
        f"expected a bar of {options['timeframe']} to close within {options['duration']}, "
        "found none that began and ended then; record for longer or take shorter bars"
    )


@contextmanager
def _kept(file: Path | None) -> Iterator[Callable[[dict[str, Any]], object] | None]:
    """Give what writes messages to a file, one a line."""
    if file is None:
        yield None
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(file, "wb") if file.suffix == ".gz" else file.open("wb") as lines:
        yield lambda message: lines.write(json.dumps(message).encode() + b"\n")
