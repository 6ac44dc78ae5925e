"""`glow-bt fetch`: histories from Bybit, or from any server that speaks its v5 interface."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glow_bt.cli.data import (
    ALSO,
    check_new_bars_file,
    export_bars,
    print_export,
    series_facts,
    store_folder,
    store_option,
)
from glow_bt.cli.options import ExampleCommand, hidden_beside, output_options
from glow_bt.cli.stopping import stopped_by_sigterm
from glow_bt.errors import TransientFeedError

if TYPE_CHECKING:
    from datafeeds.bybit_history import FetchedSeries

__all__ = ["fetch"]


@click.command(
    cls=ExampleCommand,
    examples=(
        "glow-bt fetch --symbol BTC/USDT:USDT --timeframe 1h --since 2024-01-01 --out btc.parquet",
        "glow-bt fetch --symbols BTCUSDT,ETHUSDT,SOLUSDT --timeframe 1h --since 2024-01-01 "
        "--also funding",
    ),
)
@click.option("--symbol", default=None, help="As ccxt names it, such as BTC/USDT:USDT.")
@click.option("--symbols", default=None, metavar="A,B,...", help="Several, fetched at once.")
@click.option("--timeframe", required=True, help="1m, 5m, 15m, 1h, 4h, 1d, ...")
@click.option("--since", required=True, help="First bar, ISO 8601 (UTC).")
@click.option("--until", default=None, help="Bars that open before it; default: the last closed.")
@click.option(
    "--also",
    type=click.Choice(tuple(ALSO)),
    multiple=True,
    help="Another history of the same span; may be repeated. Funding and open interest become "
    "columns of FILE.",
)
@click.option("--base-url", default=None, help="Another server that speaks Bybit v5.")
@click.option(
    "--requests-per-second",
    type=click.FloatRange(0.0, min_open=True),
    default=10.0,
    show_default=True,
    help="Limit for all requests together.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="CSV (.csv, .csv.gz) or Parquet file of one symbol; it appears whole or not at all. "
    "Without it everything goes into the store.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@store_option
@click.option("--seed", type=int, default=0, help="Seed of the retries' jitter.")
@output_options
def fetch(
    symbol: str | None,
    symbols: str | None,
    timeframe: str,
    since: str,
    until: str | None,
    also: tuple[str, ...],
    base_url: str | None,
    requests_per_second: float,
    out: Path | None,
    overwrite: bool,
    store: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Fetch closed bars from Bybit. No account or key is needed.

    Each page is kept as it arrives: the same call goes on where another was interrupted (Ctrl-C,
    SIGTERM, kill, power cut). With --out alone they are kept in a hidden folder beside FILE,
    which goes when FILE is there.
    """
    from datafeeds.bybit_client import BybitClient
    from datafeeds.bybit_history import fetch_histories
    from datafeeds.ohlcv_store import OhlcvStore
    from glow_bt.cli.output import series_progress

    names = _names(symbol, symbols, out)
    passing = out is not None and store is None
    if out is not None:
        _check_out(out, overwrite, "mark" in also and passing)
    root = hidden_beside(out, "fetch") if out is not None and passing else store_folder(store)
    shelf = OhlcvStore(root)
    kinds = ["bars", *(ALSO[name] for name in dict.fromkeys(also))]
    with (
        BybitClient(
            base_url=base_url, seed=seed, requests_per_second=requests_per_second
        ) as client,
        series_progress() as progress,
        stopped_by_sigterm(),
        _resumable(root),
    ):
        series = [client.series(name, kind, timeframe) for name in names for kind in kinds]
        fetched = fetch_histories(client, shelf, series, since, until, progress=progress)
    for note in _notes(fetched, since):
        click.echo(f"note: {note}", err=True)
    if out is None:
        told = {"store": str(root), "series": [series_facts(one) for one in fetched]}
        click.echo(json.dumps(told)) if as_json else _print_series(fetched, root)
        return
    facts = export_bars(shelf, series[0].key, since, until, kinds[1:], out)
    if passing:
        shutil.rmtree(root)
    click.echo(json.dumps(facts)) if as_json else print_export(facts)


def _check_out(out: Path, overwrite: bool, loses_marks: bool) -> None:
    """Refuse early a file that could not be written, or not hold what is fetched."""
    check_new_bars_file(out, overwrite)
    if loses_marks:
        raise click.UsageError(
            "expected --also mark without --out, or with --store; mark prices are no column of a "
            "file of bars"
        )


def _names(symbol: str | None, symbols: str | None, out: Path | None) -> list[str]:
    """Return the symbols asked for, each once."""
    if (symbol is None) == (symbols is None):
        raise click.UsageError("expected --symbol or --symbols, found both or neither")
    if symbols is None:
        return [str(symbol)]
    if out is not None:
        raise click.UsageError(
            "expected one --symbol with --out, found --symbols; leave --out away (they go into "
            "the store) and use `glow-bt data export`"
        )
    names = [name.strip() for name in symbols.split(",")]
    if not all(names):
        raise click.UsageError(f"expected symbols such as BTCUSDT,ETHUSDT, found {symbols!r}")
    return list(dict.fromkeys(names))


@contextmanager
def _resumable(root: Path) -> Iterator[None]:
    """Say in an error that may pass that what has arrived is kept."""
    try:
        yield
    except TransientFeedError as error:
        if root.exists():
            error.args = (f"{error}; what has arrived is kept in {root}: the same call goes on",)
        raise


def _notes(fetched: Iterable[FetchedSeries], since: str) -> Iterator[str]:
    """What a user should know of histories that are not what was asked for."""
    from datafeeds.bybit_time import as_utc
    from glow_bt.cli.output import series_name

    for one in fetched:
        name = series_name(one.key)
        if one.key.kind != "funding_rate" and one.first is not None:
            if one.first - as_utc(since, "since") >= one.interval:
                yield f"{name} begins at {one.first}"
            if one.after > 1:
                yield f"{name} ends at {one.last}; {one.after} later ones have no answer yet"
        if one.lacking:
            yield f"{name} lacks {one.lacking} bars that the exchange does not have"


def _print_series(fetched: Iterable[FetchedSeries], root: Path) -> None:
    from glow_bt.cli.output import series_name

    for one in fetched:
        span = "" if one.first is None else f", {one.first} to {one.last}"
        click.echo(f"{series_name(one.key)}: {one.rows} rows{span}, {one.new} of them new")
    click.echo(f"in {root}; `glow-bt data export` writes them as one file")
