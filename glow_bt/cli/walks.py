"""A walk-forward of one history or of several, of one seed or of several, to its folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glow_bt.cli.contenders import contenders, fee_of, leverage_of
from glow_bt.cli.engines import engine_of, seeds_of, train_folds
from glow_bt.cli.options import hidden_beside, load_bars, train_config
from glow_bt.errors import ConfigError, DataError, GlowError

if TYPE_CHECKING:
    import pandas as pd

    from glow_bt.artifact import Artifact
    from glow_bt.evaluation.run_folder import Run
    from glow_bt.evaluation.walk_forward import FoldModel
    from glow_bt.folds import Fold
    from glow_bt.training import TrainConfig

__all__ = ["FOLDS", "History", "print_run", "read_histories", "walk", "write_study"]

FOLDS = 4
# What else lies in a folder of several symbols; the endings of a file of bars go.
_TAKEN = ("index.html", "manifest.json", "symbols.json")
_ENDINGS = (".csv.gz", ".csv", ".parquet")
# So many symbols are named in a heading.
_NAMED = 6


@dataclass(frozen=True, eq=False)
class History:
    """Bars to walk over.

    Attributes:
        symbol: name of the run folder among several; "" for the only one.
        title: heading of the run's pages.
        bars: valid ones.
        source: how errors name them; "" where they need no name.
    """

    symbol: str
    title: str
    bars: pd.DataFrame
    source: str = ""


def read_histories(files: Sequence[Path], title: str | None, fill_gaps: bool) -> list[History]:
    """Read files of bars; of several, each is a symbol by the file's name without its ending.

    Raises:
        ConfigError: if two files have the same name.
        DataError: naming the file that is no good.
    """
    if len(files) == 1:
        (file,) = files
        return [History("", title or file.name, load_bars(file, fill_gaps))]
    symbols = [_symbol_of(file) for file in files]
    _refuse_names(files, symbols)
    return [
        History(
            symbol,
            f"{title}, {symbol}" if title else file.name,
            load_bars(file, fill_gaps),
            str(file),
        )
        for symbol, file in zip(symbols, files, strict=True)
    ]


def walk(
    histories: Sequence[History],
    title: str | None,
    out: Path,
    overwrite: bool,
    as_json: bool,
    options: dict[str, Any],
    command: str,
) -> None:
    """Train every fold of every history and seed, backtest, write the folder and print.

    Args:
        histories: one or more.
        title: heading of the page over several histories; default their names.
        out: the folder.
        overwrite: whether one that is there may be replaced.
        as_json: whether to print JSON.
        options: of the command.
        command: its name.
    """
    from glow_bt.cli.output import print_several
    from glow_bt.evaluation.unit_store import UnitStore

    engine = engine_of(options)
    store, reuse = options.pop("store", None), options.pop("reuse", False)
    warm_start = options.pop("warm_start", False)
    config = train_config(options)
    seeds = seeds_of(config, options.pop("seeds", 1))
    _refuse_settings(options, config, store, reuse)
    settings = _fold_settings(options)
    search = options.get("search")
    folds = {history.symbol: _divide(history, config, settings, search) for history in histories}
    if warm_start:
        options["warm_start"] = True  # part of the manifest
    hidden = hidden_beside(out, "models")
    units, models = train_folds(
        {history.symbol: history.bars for history in histories},
        folds,
        seeds,
        store or hidden,
        engine,
        reuse=reuse,
        warm_start=warm_start,
    )
    found = _Trained(models, seeds, options, command).write(histories, title, out, overwrite)
    printed = print_run if len(models) == 1 else print_several
    if store is None:
        UnitStore(hidden).discard(units)
    printed(found, out, as_json)


@dataclass(frozen=True, eq=False)
class _Trained:
    """Models by symbol and seed, and what else their run folders need."""

    models: Mapping[tuple[str, int], list[FoldModel]]
    seeds: Mapping[int, TrainConfig]
    options: dict[str, Any]
    command: str

    def write(
        self, histories: Sequence[History], title: str | None, out: Path, overwrite: bool
    ) -> Mapping[str, Any]:
        """Write the folder; return the numbers in it."""
        from glow_bt.evaluation.several import write_several

        if len(histories) == 1:
            return self._symbol(histories[0], out, overwrite)
        named = {history.symbol: history for history in histories}
        return write_several(
            out,
            "symbols",
            list(named),
            lambda symbol, place: self._symbol(named[symbol], place),
            title=title or _names(list(named)),
            command=self.command,
            overwrite=overwrite,
        )

    def _symbol(self, history: History, out: Path, overwrite: bool = False) -> Mapping[str, Any]:
        from glow_bt.evaluation.several import write_several

        if len(self.seeds) == 1:
            return self._seed(history, next(iter(self.seeds)), out, overwrite)
        return write_several(
            out,
            "seeds",
            list(self.seeds),
            lambda seed, place: self._seed(history, seed, place),
            title=history.title,
            command=self.command,
            overwrite=overwrite,
        )

    def _seed(
        self, history: History, seed: int, out: Path, overwrite: bool = False
    ) -> Mapping[str, Any]:
        models, config = self.models[history.symbol, seed], self.seeds[seed]
        own = {**self.options, "folds": len(models), "seed": seed}
        return write_study(
            history.bars, models, history.title, out, overwrite, own, self.command, config
        ).metrics


def write_study(
    bars: pd.DataFrame,
    models: Sequence[FoldModel] | Artifact,
    title: str,
    out: Path,
    overwrite: bool,
    options: dict[str, Any],
    command: str,
    config: TrainConfig | None = None,
) -> Run:
    """Backtest and write the run folder.

    What a search tried before stands in options["search"], or in the models' own records.
    """
    from glow_bt.evaluation.run_folder import write_run
    from glow_bt.evaluation.searched import num_trials, search_behind
    from glow_bt.evaluation.study import run_study
    from glow_bt.training import TrainConfig

    search = options["search"] if "search" in options else search_behind(models)
    left_out = {"search", *TrainConfig.names()}
    study = run_study(
        bars,
        models,
        contenders(options, bars, models),
        cash=options["cash"],
        slippage_bps=options["slippage_bps"],
        liquidity=options["liquidity"],
        leverage=leverage_of(options),
        num_trials=options["trials"] - 1 + num_trials(search),
    )
    return write_run(
        out,
        study,
        models,
        bars,
        title=title,
        command=command,
        trading={
            **{name: value for name, value in options.items() if name not in left_out},
            "fee": fee_of(options),
        },
        config=config,
        search=options.get("search"),
        overwrite=overwrite,
    )


def print_run(metrics: Mapping[str, Any], out: Path, as_json: bool) -> None:
    """Print a run's metrics, and where its pages are."""
    from glow_bt.cli.output import print_study

    if as_json:
        click.echo(json.dumps({"out": str(out), **metrics}))
        return
    print_study(metrics)
    click.echo(f"wrote {out / 'index.html'}, which links tearsheet.html and model.html")


def _symbol_of(file: Path) -> str:
    ending = next((end for end in _ENDINGS if file.name.endswith(end)), file.suffix)
    return file.name.removesuffix(ending) or file.name


def _refuse_names(files: Sequence[Path], symbols: Sequence[str]) -> None:
    """Refuse names that cannot stand beside each other, on any file system."""
    counts = Counter([*(symbol.casefold() for symbol in symbols), *_TAKEN])
    same = [
        str(file)
        for file, symbol in zip(files, symbols, strict=True)
        if counts[symbol.casefold()] > 1
    ]
    if same:
        raise ConfigError(
            "expected files of different names, each of which names a run folder beside "
            f"{', '.join(_TAKEN)}, found {' and '.join(same)}; rename, or call once for each"
        )


def _names(symbols: list[str]) -> str:
    return ", ".join(symbols) if len(symbols) <= _NAMED else f"{len(symbols)} symbols"


def _refuse_settings(
    options: dict[str, Any], config: TrainConfig, store: Path | None, reuse: bool
) -> None:
    if (horizon := options["var_horizon"]) not in config.return_horizons:
        raise ConfigError(
            f"expected --var-horizon among the horizons that are trained, "
            f"{', '.join(map(str, config.return_horizons))}, found {horizon}; "
            f"give --return-horizons {horizon}"
        )
    if reuse and store is None:
        raise ConfigError("expected --store with --reuse, found none; say where the models are")


def _divide(
    history: History, config: TrainConfig, settings: dict[str, Any], search: Any
) -> list[Fold]:
    """Return the folds of a history that can be trained, as far as that is seen beforehand."""
    from glow_bt.evaluation.searched import refuse_searched
    from glow_bt.evaluation.walk_forward import divide_walk_forward, refuse_untrainable

    with _naming(history.source):
        folds = divide_walk_forward(history.bars, config, **settings)
        refuse_searched(search, history.bars.index[folds[0].test.start])
        refuse_untrainable(history.bars, folds[0], config)
    return folds


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """Let errors name the file that they are about, if it has to be named."""
    try:
        yield
    except GlowError as error:
        if not source:
            raise
        kind = ConfigError if isinstance(error, ConfigError) else DataError
        raise kind(f"{source}: {error}") from error


def _fold_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Return how the bars are divided; an option that was not given leaves no trace."""
    test_every = options.pop("test_every", None)
    n_folds = options["folds"]
    folds = {
        "n_folds": FOLDS if n_folds is None and test_every is None else n_folds,
        "test_fraction": options.get("test_fraction", 0.6),
        "expanding": not options.get("rolling", False),
    }
    if test_every is None:
        return folds
    options["test_every"] = test_every  # part of the manifest
    return {**folds, "test_every": int(test_every) if test_every.isdecimal() else test_every}
