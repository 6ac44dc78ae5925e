"""A run's folder: what a study found, in files that stand on their own.

::

    results/demo/
      manifest.json      command, bars and their hash, settings, folds, versions, training course
      metrics.json       every number of the printed table
      states.parquet     per bar: close, exposure, equity and the seven scores
      equity.parquet     per bar: equity of every contender
      latents.parquet    per bar: z1, z2, ... and regime
      artifacts/         the models, one folder a fold (walk-forward only)
      index.html         the summary, which links the other pages
      tearsheet.html     quantstats, against buy and hold of the same bars
      model.html         the model's own pictures
      pictures/          the pictures of both as PNG files

The pages are made from the other files alone, so they can be made anew at any time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow import ArrowException

from glow_bt.artifact import Artifact, save_artifact
from glow_bt.errors import ResultsError
from glow_bt.evaluation.model_page import write_model_page
from glow_bt.evaluation.results_place import new_results
from glow_bt.evaluation.searched import (
    num_trials,
    refuse_searched,
    search_behind,
    told_of_search,
    with_search,
)
from glow_bt.evaluation.study import VAR_LEVELS, Study
from glow_bt.evaluation.summary_page import write_summary_page
from glow_bt.evaluation.tearsheet import write_tearsheet
from glow_bt.evaluation.walk_forward import FoldModel
from glow_bt.ohlcv import bar_interval, bars_sha256
from glow_bt.placing import obstacle
from glow_bt.training import TrainConfig

__all__ = ["Run", "num_trials", "read_run", "refuse_existing", "write_pages", "write_run"]

_SCHEMA_VERSION = 1
_TABLES = ("states", "equity", "latents")
# What the manifest of a run folder is known by.
_MARKS = ("schema_version", "command")
_BENCHMARK = "buy_and_hold"
_LIBRARIES = ("backtrader", "quantstats")


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder's content, without the pages.

    Attributes:
        folder: where it lies.
        manifest: where the numbers come from.
        metrics: the numbers.
        states: per bar, see `glow_bt.bt.GlowRecorder`.
        equity: per bar, one column a contender.
        latents: per bar, z1, z2, ... and regime.
    """

    folder: Path
    manifest: Mapping[str, Any]
    metrics: dict[str, Any]
    states: pd.DataFrame
    equity: pd.DataFrame
    latents: pd.DataFrame


def refuse_existing(folder: str | os.PathLike[str], overwrite: bool) -> None:
    """Refuse a place where `write_run` may not or cannot write.

    Raises:
        ResultsError: if the path exists and overwrite is off, or it is neither a run folder nor
            an empty one, or nothing can be written there.
    """
    reason = obstacle(Path(os.path.realpath(folder)), "results", _MARKS, overwrite=overwrite)
    if reason:
        raise ResultsError(reason)


def write_run(
    folder: str | os.PathLike[str],
    study: Study,
    models: Sequence[FoldModel] | Artifact,
    bars: pd.DataFrame,
    *,
    title: str,
    command: str,
    trading: Mapping[str, Any],
    config: TrainConfig | None = None,
    search: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Run:
    """Write a run folder, pages included; it appears whole or not at all.

    Args:
        folder: where to.
        study: what was found.
        models: the models behind it.
        bars: the whole history, for its hash.
        title: heading of the pages.
        command: name of the command.
        trading: settings of cash, costs and policy.
        config: settings of the trainer, for a walk-forward.
        search: what a search tried before, see `glow_bt.artifact.search_record`; default what
            the models have on record. A walk-forward's models are written with it.
        overwrite: whether a run folder of that name, or an empty one, is replaced; nothing
            else ever is.

    Raises:
        ResultsError: if the path exists and may not be replaced, or cannot be written.
        ConfigError: if what is said of a search cannot be.
        LookAheadError: if the search used bars that were tested.
    """
    target = Path(os.path.realpath(folder))
    refuse_existing(target, overwrite)
    warm_up = None
    if search is None:
        search, warm_up = search_behind(models), _artifacts(models)[0].min_bars - 1
    refuse_searched(search, _starts(study, models)[0], warm_up=warm_up)
    if search is not None and not isinstance(models, Artifact):
        models = with_search(models, search)
    manifest = _manifest(study, models, bars, title, command, trading, config)
    if search is not None:
        manifest["search"] = dict(search)
    with new_results(target) as temporary:
        _fill(temporary, study, models, manifest)
    return read_run(target)


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Read a run folder.

    Raises:
        ResultsError: if it is missing, incomplete, damaged or of another version.
    """
    root = Path(folder)
    if not (root / "manifest.json").is_file():
        raise ResultsError(
            f"expected a results folder with manifest.json, found none at {root}; give the "
            "folder that 'glow-bt backtest' or 'walk-forward' wrote"
        )
    needed = ("metrics.json", *(f"{name}.parquet" for name in _TABLES))
    missing = [name for name in needed if not (root / name).is_file()]
    if missing:
        raise ResultsError(
            f"expected a complete results folder, found {root} without {', '.join(missing)}; "
            "run the study again to make them"
        )
    try:
        manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
        metrics = json.loads((root / "metrics.json").read_text(encoding="utf-8"))
        tables = {name: pd.read_parquet(root / f"{name}.parquet") for name in _TABLES}
        found = manifest["schema_version"]
    except (OSError, ValueError, KeyError, TypeError, ArrowException) as error:
        raise ResultsError(
            f"expected a complete results folder, found {root} damaged "
            f"({str(error).splitlines()[0]}); run the study again"
        ) from error
    if found != _SCHEMA_VERSION:
        raise ResultsError(
            f"expected results of schema version {_SCHEMA_VERSION}, found {found!r} in {root}; "
            "run the study again with this version of glow_bt"
        )
    return Run(root, manifest, metrics, **tables)


def write_pages(run: Run) -> None:
    """Write index.html, tearsheet.html and model.html of a run, and the pictures."""
    title = f"GLOW strategy, {run.manifest['title']}"
    folds = run.manifest["models"]
    bounds = [pd.Timestamp(fold["valid_from"]) for fold in folds[1:]]
    facts = _facts(run)
    summary = write_summary_page(
        run.metrics,
        run.equity,
        run.folder / "index.html",
        title=title,
        cash=run.manifest["trading"]["cash"],
        fold_bounds=bounds,
        facts=facts,
        pages=[("model.html", "The model's page"), ("tearsheet.html", "Tearsheet")],
        search=run.manifest.get("search"),
    )
    write_tearsheet(
        run.equity["glow"],
        run.equity.get(_BENCHMARK),
        run.folder / "tearsheet.html",
        title=title,
    )
    pictures = write_model_page(
        run.states.assign(
            filter_low=_by_fold(run.states, folds, "filter_low"),
            filter_high=_by_fold(run.states, folds, "filter_high"),
        ),
        run.folder / "model.html",
        title=title,
        latents=run.latents,
        training=[{"label": fold["label"], **fold["history"]["state"]} for fold in folds],
        fold_bounds=bounds,
        var_level=min(VAR_LEVELS),
        var_horizon=run.manifest["trading"].get("var_horizon", 1),
        benchmark=run.equity.get(_BENCHMARK),
        facts=facts,
        pages=[("index.html", "Summary")],
    )
    folder = run.folder / "pictures"
    folder.mkdir(exist_ok=True)
    for picture in [*summary, *pictures]:
        (folder / f"{picture.name}.png").write_bytes(picture.png)


def _fill(
    folder: Path,
    study: Study,
    models: Sequence[FoldModel] | Artifact,
    manifest: dict[str, Any],
) -> None:
    run = Run(
        folder=folder,
        manifest=manifest,
        metrics=dict(study.metrics),
        states=next(iter(study.results.values())).states,
        equity=pd.DataFrame({k: r.states["equity"] for k, r in study.results.items()}),
        latents=study.latents,
    )
    _write_json(folder / "manifest.json", manifest)
    _write_json(folder / "metrics.json", run.metrics)
    for name in _TABLES:
        getattr(run, name).to_parquet(folder / f"{name}.parquet")
    if not isinstance(models, Artifact):
        for fold in models:
            save_artifact(fold.artifact, folder / "artifacts" / f"fold_{fold.number}")
    write_pages(run)


def _by_fold(states: pd.DataFrame, folds: list[dict[str, Any]], key: str) -> pd.Series[float]:
    """Spread a number of each fold's model over the bars that it scores."""
    values = pd.Series(float("nan"), index=states.index)
    for fold in folds:
        values[states.index >= pd.Timestamp(fold["valid_from"])] = fold[key]
    return values


def _manifest(
    study: Study,
    models: Sequence[FoldModel] | Artifact,
    bars: pd.DataFrame,
    title: str,
    command: str,
    trading: Mapping[str, Any],
    config: TrainConfig | None,
) -> dict[str, Any]:
    artifacts = _artifacts(models)
    record = artifacts[0].training
    return {
        "schema_version": _SCHEMA_VERSION,
        "title": title,
        "command": command,
        "bars": {
            "count": len(bars),
            "from": bars.index[0].isoformat(),
            "until": bars.index[-1].isoformat(),
            "seconds": bar_interval(bars).total_seconds(),
            "sha256": bars_sha256(bars),
        },
        "seed": record.seed,
        "trading": dict(trading),
        "training": dict(record.config) if config is None else config.to_dict(),
        "models": [
            _model_facts(artifact, f"fold {i + 1}", start)
            for i, (artifact, start) in enumerate(
                zip(artifacts, _starts(study, models), strict=True)
            )
        ],
        "versions": {**record.versions, **{name: version(name) for name in _LIBRARIES}},
    }


def _artifacts(models: Sequence[FoldModel] | Artifact) -> list[Artifact]:
    return [models] if isinstance(models, Artifact) else [fold.artifact for fold in models]


def _starts(study: Study, models: Sequence[FoldModel] | Artifact) -> list[pd.Timestamp]:
    if isinstance(models, Artifact):
        return [study.latents.index[0]]
    return [fold.valid_from for fold in models]


def _model_facts(artifact: Artifact, label: str, valid_from: pd.Timestamp) -> dict[str, Any]:
    record = artifact.training
    parent = {} if record.parent is None else {"parent": record.parent}
    return {
        "label": label,
        **parent,
        "valid_from": valid_from.isoformat(),
        "trained_from": record.trained_from.isoformat(),
        "trained_until": record.trained_until.isoformat(),
        "trained_bars": record.n_bars,
        "data_sha256": record.data_sha256,
        "filter_low": artifact.likelihood.low,
        "filter_high": artifact.likelihood.high,
        "metrics": dict(record.metrics),
        "history": {name: dict(course) for name, course in record.history.items()},
    }


def _facts(run: Run) -> dict[str, str]:
    """Return what a reader wants to know before trusting a picture."""
    bars, span, trading = run.manifest["bars"], run.metrics["span"], run.manifest["trading"]
    return {
        "Bars": f"{bars['count']}, {bars['from'][:10]} to {bars['until'][:10]}",
        "Unseen bars shown": f"{span['bars']}, {span['from'][:10]} to {span['until'][:10]}",
        "Models": str(len(run.manifest["models"])),
        **_told_of_parent(run.manifest["models"]),
        **told_of_search(run.manifest.get("search"), pd.Timestamp(span["from"])),
        "Seed": str(run.manifest["seed"]),
        "Slippage": f"{trading['slippage_bps']:g} basis points",
        "Risk budget at 1 % VaR": f"{trading['risk_budget']:.1%} of equity",
        **_told_of_policy(trading),
        "Data sha256": bars["sha256"][:16],
        "glow_bt": run.manifest["versions"]["glow_bt"],
    }


def _told_of_policy(trading: Mapping[str, Any]) -> dict[str, str]:
    """Return what decides on positions beside the budget; a run of before it was set lacks it."""
    told = {"stance": "Stance", "half_life": "Half-life, bars", "dead_band": "Dead-band"}
    found = {label: f"{trading[name]:g}" for name, label in told.items() if name in trading}
    return found | ({"VaR": "recalibrated"} if trading.get("recalibrate") else {})


def _told_of_parent(models: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return what a page tells of the model that a run's only model comes from."""
    parent = models[0].get("parent") if len(models) == 1 else None
    return {} if parent is None else {"Adapted from or started at": parent[:16]}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
