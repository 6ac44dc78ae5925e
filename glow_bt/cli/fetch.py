"""`glow-bt fetch`: bars from Bybit, or from any server that speaks its v5 interface."""

from __future__ import annotations

import json
from pathlib import Path

import click

from glow_bt.cli.options import ExampleCommand, output_options

__all__ = ["fetch"]


@click.command(
    cls=ExampleCommand,
    examples=(
        "glow-bt fetch --symbol BTC/USDT:USDT --timeframe 1h --since 2024-01-01 --out btc.parquet",
    ),
)
@click.option("--symbol", required=True, help="As ccxt names it, such as BTC/USDT:USDT.")
@click.option("--timeframe", required=True, help="1m, 5m, 15m, 1h, 4h, 1d, ...")
@click.option("--since", required=True, help="First bar, ISO 8601 (UTC).")
@click.option("--until", default=None, help="Bars that open before it; default: the last closed.")
@click.option("--base-url", default=None, help="Another server that speaks Bybit v5.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="CSV (.csv, .csv.gz) or Parquet file; it appears whole or not at all.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@click.option("--seed", type=int, default=0, help="Seed of the retries' jitter.")
@output_options
def fetch(
    symbol: str,
    timeframe: str,
    since: str,
    until: str | None,
    base_url: str | None,
    out: Path,
    overwrite: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Fetch closed bars from Bybit. No account or key is needed."""
    from datafeeds.bybit_client import BybitClient
    from glow_bt import ohlcv
    from glow_bt.cli.output import fetch_progress
    from glow_bt.errors import ResultsError

    if out.exists() and not overwrite:
        raise ResultsError(f"expected a new file, found {out} there already; use --overwrite")
    with (
        BybitClient(base_url=base_url, seed=seed) as client,
        fetch_progress(f"{symbol} {timeframe}") as progress,
    ):
        bars = client.fetch_ohlcv(symbol, timeframe, since, until, progress=progress)
    ohlcv.write_bars(bars, out)
    gaps = ohlcv.find_gaps(bars)
    facts = {
        "symbol": symbol,
        "timeframe": timeframe,
        "bars": len(bars),
        "from": bars.index[0].isoformat(),
        "until": bars.index[-1].isoformat(),
        "gaps": len(gaps),
        "missing_bars": sum(gap.missing for gap in gaps),
        "sha256": ohlcv.bars_sha256(bars),
        "out": str(out),
    }
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(f"{len(bars)} bars of {symbol} {timeframe}, {facts['from']} to {facts['until']}")
    if gaps:
        click.echo(f"{len(gaps)} gaps, {facts['missing_bars']} bars that the exchange lacks")
    click.echo(f"wrote {out}")
