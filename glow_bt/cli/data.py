"""`glow-bt data`: what a store of histories holds, whether it is sound, and mending it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glow_bt.cli.options import ExampleCommand, ExampleGroup, output_options

if TYPE_CHECKING:
    from datafeeds.bybit_history import FetchedSeries
    from datafeeds.ohlcv_store import Damage, OhlcvStore
    from datafeeds.series import SeriesKey

__all__ = [
    "ALSO",
    "check_new_bars_file",
    "check_new_file",
    "data",
    "export_bars",
    "print_export",
    "series_facts",
    "store_folder",
    "store_option",
]

ALSO = {"funding": "funding_rate", "open-interest": "open_interest", "mark": "mark"}
"""Histories beside bars, by their names on the command line."""

_COLUMNS = ("funding_rate", "open_interest")


def _seed_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --seed, which every command takes."""
    return click.option(
        "--seed", type=int, default=0, help="Accepted for uniformity; nothing is random."
    )(function)


def store_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --store."""
    return click.option(
        "--store",
        type=click.Path(path_type=Path, file_okay=False),
        default=None,
        help="Folder of the store. [default: $GLOW_BT_STORE, or data]",
    )(function)


def store_folder(given: Path | None) -> Path:
    """Return the store that a call means."""
    return given or Path(os.environ.get("GLOW_BT_STORE") or "data")


@click.group(
    cls=ExampleGroup,
    examples=("glow-bt data ls", "glow-bt data check --store bars", "glow-bt data repair"),
)
def data() -> None:
    """Look into the store that 'glow-bt fetch' fills: bars, funding, open interest, mark price."""


@data.command("ls", cls=ExampleCommand, examples=("glow-bt data ls --store bars",))
@store_option
@_seed_option
@output_options
def _ls(store: Path | None, seed: int, as_json: bool) -> None:
    """List what is stored, and what the exchange lacked of it."""
    from glow_bt.cli.output import print_series

    shelf = _existing(store)
    listed = [_listed(shelf, key) for key in shelf.list()]
    if as_json:
        click.echo(json.dumps({"store": str(shelf.root), "series": listed}))
    else:
        print_series(listed)


@data.command("check", cls=ExampleCommand, examples=("glow-bt data check --store bars",))
@store_option
@_seed_option
@output_options
def _check(store: Path | None, seed: int, as_json: bool) -> None:
    """Read every stored file and name what is damaged; exit code 1 if anything is.

    Pages that a killed fetch left in its journal are no damage: the next one takes them in.
    """
    from datafeeds.ohlcv_journal import JOURNAL_NAME

    shelf = _existing(store)
    found = [(key, damage) for key in shelf.list() for damage in shelf.check(key)]
    damages = [(key, damage) for key, damage in found if damage.path.name != JOURNAL_NAME]
    unfinished = [damage.path for _, damage in found if damage.path.name == JOURNAL_NAME]
    if as_json:
        told = [{**key._asdict(), **_damage_facts(damage)} for key, damage in damages]
        facts = {"store": str(shelf.root), "damages": told}
        click.echo(json.dumps({**facts, "unfinished": [str(path) for path in unfinished]}))
    else:
        for path in unfinished:
            click.echo(f"{path.parent}: a fetch was interrupted; the next one goes on from there")
        for _, damage in damages:
            click.echo(f"{damage.path}: {damage.what}")
        sound = "all sound" if not damages else "`glow-bt data repair` fetches what is damaged"
        click.echo(f"{len(shelf.list())} series in {shelf.root}, {len(damages)} damages; {sound}")
    if damages:
        raise SystemExit(1)


@data.command("repair", cls=ExampleCommand, examples=("glow-bt data repair --store bars",))
@store_option
@click.option("--base-url", default=None, help="Another server that speaks Bybit v5.")
@click.option("--seed", type=int, default=0, help="Seed of the retries' jitter.")
@output_options
def _repair(store: Path | None, base_url: str | None, seed: int, as_json: bool) -> None:
    """Drop damaged files, fetch what was in them, and ask again for bars that were lacking.

    Everything else stays as it is.
    """
    from datafeeds.bybit_client import BybitClient
    from datafeeds.bybit_history import ask_again
    from datafeeds.series import SeriesKey
    from glow_bt.cli.output import series_name, series_progress

    shelf = _existing(store)
    facts = []
    with BybitClient(base_url=base_url, seed=seed) as client, series_progress() as progress:
        for key in shelf.list():
            dropped, lacking = shelf.drop_damaged(key), shelf.lacking(key)
            new = 0
            if dropped or lacking:
                series = client.series(key.symbol, key.kind, key.timeframe or "1h")
                spans = [*dropped, *lacking]
                new = ask_again(client, shelf, series, spans, progress=progress)
            still = sum(map(len, shelf.lacking(key)))
            facts.append({**key._asdict(), "rows_fetched": new, "lacking": still})
    if as_json:
        click.echo(json.dumps({"store": str(shelf.root), "series": facts}))
        return
    for fact in facts:
        if fact["rows_fetched"] or fact["lacking"]:
            click.echo(
                f"{series_name(SeriesKey(*(fact[name] for name in SeriesKey._fields)))}: "
                f"{fact['rows_fetched']} rows fetched, {fact['lacking']} that the exchange lacks"
            )
    click.echo(f"{len(facts)} series in {shelf.root} are sound")


@data.command(
    "export",
    cls=ExampleCommand,
    examples=(
        "glow-bt data export --symbol BTC/USDT:USDT --timeframe 1h --join funding --out btc.csv",
    ),
)
@click.option("--symbol", required=True, help="As ccxt names it, such as BTC/USDT:USDT.")
@click.option("--timeframe", required=True, help="1m, 5m, 15m, 1h, 4h, 1d, ...")
@click.option("--since", default=None, help="First bar; default: all.")
@click.option("--until", default=None, help="Bars that open before it; default: all.")
@click.option(
    "--join",
    "joined",
    type=click.Choice([name for name, kind in ALSO.items() if kind in _COLUMNS]),
    multiple=True,
    help="Add a column with what was known at each bar's close; may be repeated.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@store_option
@_seed_option
@output_options
def _export(
    symbol: str,
    timeframe: str,
    since: str | None,
    until: str | None,
    joined: tuple[str, ...],
    out: Path,
    overwrite: bool,
    store: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Write stored bars as one CSV or Parquet file, with funding and open interest joined."""
    from datafeeds.series import SeriesKey

    check_new_bars_file(out, overwrite)
    shelf = _existing(store)
    key = SeriesKey("bybit", _stored_symbol(shelf, symbol), "bars", timeframe)
    kinds = [ALSO[name] for name in dict.fromkeys(joined)]
    facts = export_bars(shelf, key, since, until, kinds, out)
    click.echo(json.dumps(facts)) if as_json else print_export(facts)


def check_new_bars_file(out: Path, overwrite: bool) -> None:
    """Refuse early a file that bars could not be written to.

    Raises:
        ConfigError: if it is of another kind.
        ResultsError: if it exists and is not to be replaced.
    """
    from glow_bt.ohlcv import check_bars_file

    check_bars_file(out)
    check_new_file(out, overwrite)


def check_new_file(out: Path, overwrite: bool) -> None:
    """Refuse a file that exists and is not to be replaced.

    Raises:
        ResultsError: if it is so.
    """
    from glow_bt.errors import ResultsError

    if out.exists() and not overwrite:
        raise ResultsError(f"expected a new file, found {out} there already; use --overwrite")


def export_bars(
    shelf: OhlcvStore,
    key: SeriesKey,
    since: str | None,
    until: str | None,
    kinds: Sequence[str],
    out: Path,
) -> dict[str, Any]:
    """Write bars of a store, joined with other histories, and return what was written.

    Raises:
        DataError: if there are none in the span.
    """
    from datafeeds.ohlcv_joined import read_joined
    from glow_bt import ohlcv
    from glow_bt.errors import DataError

    also = [kind for kind in kinds if kind in _COLUMNS]
    bars = read_joined(shelf, *key[:2], key.timeframe, since, until, also=also)
    if bars.empty:
        beside = f" with {' and '.join(also)}" if also else ""
        raise DataError(
            f"expected stored bars of {key.symbol} {key.timeframe}{beside} from "
            f"{since or 'the first'} until {until or 'the last'}, found none; `glow-bt data ls` "
            "tells from when to when each history is there"
        )
    ohlcv.write_bars(bars, out)
    gaps = ohlcv.find_gaps(bars)
    return {
        "symbol": key.symbol,
        "timeframe": key.timeframe,
        "bars": len(bars),
        "from": bars.index[0].isoformat(),
        "until": bars.index[-1].isoformat(),
        "gaps": len(gaps),
        "missing_bars": sum(gap.missing for gap in gaps),
        "columns": list(bars.columns),
        "sha256": ohlcv.bars_sha256(bars),
        "out": str(out),
    }


def print_export(facts: dict[str, Any]) -> None:
    """Print what was written."""
    click.echo(
        f"{facts['bars']} bars of {facts['symbol']} {facts['timeframe']}, {facts['from']} to "
        f"{facts['until']}"
    )
    if facts["gaps"]:
        click.echo(f"{facts['gaps']} gaps, {facts['missing_bars']} bars that the exchange lacks")
    click.echo(f"wrote {facts['out']}")


def series_facts(fetched: FetchedSeries) -> dict[str, Any]:
    """Return what a fetch left, for --json."""
    return {
        **fetched.key._asdict(),
        "rows": fetched.rows,
        "new": fetched.new,
        "from": None if fetched.first is None else fetched.first.isoformat(),
        "until": None if fetched.last is None else fetched.last.isoformat(),
        "lacking": fetched.lacking,
        "after": fetched.after,
    }


def _stored_symbol(shelf: OhlcvStore, name: str) -> str:
    """Return the stored symbol that a name means, such as BTCUSDT; the name if there is none.

    As in fetching, a perpetual comes before the spot market of the same name.
    """
    symbols = {key.symbol for key in shelf.list()}
    pairs = {symbol: symbol.partition(":")[::2] for symbol in symbols if "-" not in symbol}
    like = [symbol for symbol, (pair, _) in pairs.items() if pair.replace("/", "") == name]
    return name if name in symbols or not like else min(like, key=lambda one: not pairs[one][1])


def _listed(shelf: OhlcvStore, key: SeriesKey) -> dict[str, Any]:
    """Return what is told of a series, or that it is damaged."""
    from glow_bt.errors import DataError

    facts: dict[str, Any] = {**key._asdict(), "rows": 0, "from": None, "until": None}
    facts |= {"lacking": 0, "bytes": 0, "damage": None}
    try:
        size, span = shelf.size(key), shelf.span(*key[:2], key.timeframe, kind=key.kind)
        facts |= {"rows": size.rows, "bytes": size.bytes}
        if span is not None:
            facts |= {"from": span[0].isoformat(), "until": span[1].isoformat()}
        facts["lacking"] = sum(map(len, shelf.lacking(key)))
    except DataError as error:
        facts["damage"] = str(error)
    return facts


def _damage_facts(damage: Damage) -> dict[str, Any]:
    return {"path": str(damage.path), "what": damage.what}


def _existing(store: Path | None) -> OhlcvStore:
    from datafeeds.ohlcv_store import OhlcvStore
    from glow_bt.errors import ConfigError

    root = store_folder(store)
    if not root.is_dir():
        raise ConfigError(
            f"expected a store, found no folder {root}; `glow-bt fetch` fills one, "
            "--store names it"
        )
    shelf = OhlcvStore(root)
    if not shelf.list() and any(root.iterdir()):
        raise ConfigError(f"expected a store, found other things in {root}; --store names it")
    return shelf
