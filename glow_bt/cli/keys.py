"""`glow-bt keys`: whether Bybit takes a key, and what it allows."""

from __future__ import annotations

import json
from pathlib import Path

import click

from glow_bt.cli.options import ExampleCommand, output_options
from glow_bt.errors import ConfigError

__all__ = ["keys"]


@click.command(cls=ExampleCommand, examples=("glow-bt keys --key-file ~/.config/bybit.keys",))
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Two lines, key=... and secret=..., that only its owner may read. [default: "
    "$BYBIT_API_KEY and $BYBIT_API_SECRET]",
)
@click.option("--base-url", default=None, help="Another server that speaks Bybit v5, by https.")
@click.option("--seed", type=int, default=0, help="Seed of the retries' jitter.")
@output_options
def keys(key_file: Path | None, base_url: str | None, seed: int, as_json: bool) -> None:
    """Ask Bybit whether it takes a key. Nothing else here needs one: market data is public.

    Key and secret are never shown, logged or written.
    """
    from datafeeds.bybit_client import BybitClient
    from datafeeds.bybit_keys import KEY_VARIABLES, load_keys

    found = load_keys(key_file)
    if found is None:
        raise ConfigError(
            f"expected a key, found none; set {' and '.join(KEY_VARIABLES)} or give --key-file"
        )
    with BybitClient(base_url=base_url, seed=seed, keys=found) as client:
        facts = client.check_keys()
    if as_json:
        click.echo(json.dumps(facts, default=str))
        return
    for name, value in facts.items():
        click.echo(f"{name.replace('_', ' ')}: {value}")
    if not facts["read_only"]:
        click.echo("note: this key may trade; one that may only read is enough here", err=True)
