"""The command group, and what becomes of errors: one line, and exit code 1 or 2."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import click

import glow_bt
from glow_bt.cli.adapt import adapt
from glow_bt.cli.data import data
from glow_bt.cli.fetch import fetch
from glow_bt.cli.keys import keys
from glow_bt.cli.microstructure import microstructure
from glow_bt.cli.options import ExampleGroup
from glow_bt.cli.paper import paper
from glow_bt.cli.risk import risk
from glow_bt.cli.search import search
from glow_bt.cli.simulate import simulate
from glow_bt.cli.studies import backtest, demo, report, walk_forward
from glow_bt.cli.train import train
from glow_bt.cli.verify import verify
from glow_bt.errors import ConfigError, GlowError

__all__ = ["app", "main"]


@click.group(
    cls=ExampleGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99},
    examples=(
        "glow-bt demo",
        "glow-bt fetch --symbol BTC/USDT:USDT --timeframe 1h --since 2024-01-01 --out btc.parquet",
        "glow-bt train btc.parquet --out models/btc",
        "glow-bt backtest btc.parquet --model models/btc --out results/btc",
    ),
)
@click.version_option(glow_bt.__version__, prog_name="glow-bt")
def app() -> None:
    """GLOW normalizing flows inside Backtrader.

    Fetch bars, train a model on the past, run it over bars it has not seen, read the result.

    Exit codes: 0 done, 1 failed, 2 wrong call.
    """


_COMMANDS = (
    demo,
    fetch,
    data,
    train,
    adapt,
    backtest,
    walk_forward,
    search,
    risk,
    simulate,
    paper,
    microstructure,
    keys,
    report,
    verify,
)
for command in _COMMANDS:
    app.add_command(command)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        app(args, prog_name="glow-bt", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "glow-bt"
        _fail(f"{error.format_message()} (see {where} --help)", 2, args)
    except click.ClickException as error:
        _fail(error.format_message(), 1, args)
    except (click.Abort, KeyboardInterrupt):
        _fail(
            "interrupted; the same call of fetch, train, walk-forward or paper goes on there",
            1,
            args,
        )
    except BrokenPipeError:
        # The reader of a pipe has left, as `| head` does; nothing is wrong.
        sys.stderr.close()
        sys.exit(1)
    except ConfigError as error:
        _fail(str(error), 2, args)
    except GlowError as error:
        _fail(str(error), 1, args)
    except OSError as error:
        _fail(
            f"expected to read and write {error.filename or 'files'}, the system says: "
            f"{error.strerror or error}; check the path, its permissions and free space",
            1,
            args,
        )
    sys.exit(0)


def _fail(message: str, code: int, args: Sequence[str]) -> None:
    line = " ".join(message.split())
    if "--json" in args:
        click.echo(json.dumps({"error": line}))
    click.echo(f"Error: {line}", err=True)
    sys.exit(code)
