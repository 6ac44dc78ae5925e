"""A comparison of risk models on disk, in files that stand on their own.

::

    results/risk/
      risk.json           n, models, comparisons and manifest: every number of the page's tables
      forecasts.parquet   every model's forecast of every return, one row each
      risk.html           tables and pictures
      pictures/           the same pictures as PNG files

`risk.json` and the page follow from `forecasts.parquet` and the manifest's seed alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import ArrowException

from glow_bt.errors import GlowError, ResultsError
from glow_bt.evaluation.results_place import new_results
from glow_bt.evaluation.risk_page import write_risk_page
from glow_bt.evaluation.risk_study import RiskStudy
from glow_bt.evaluation.risk_summary import summarize
from glow_bt.placing import obstacle
from glow_bt.risk.forecasts import Forecasts

__all__ = [
    "RiskRun",
    "forecasts_frame",
    "forecasts_from_frame",
    "read_risk",
    "refuse_existing",
    "write_risk",
]

_SCHEMA_VERSION = 1
_COMMAND = "risk"
# What the risk.json of such a folder is known by, even a damaged one.
_MARKS = ("models", "comparisons", "manifest")
_SINGLE = {"realised_log_return": "returns", "log_prob": "log_prob", "pit": "pit"}


@dataclass(frozen=True, eq=False)
class RiskRun:
    """A folder's content, without the page.

    Attributes:
        folder: where it lies.
        report: what risk.json holds: n, models, comparisons, manifest.
        study: the forecasts.
    """

    folder: Path
    report: Mapping[str, Any]
    study: RiskStudy


def refuse_existing(folder: str | os.PathLike[str], overwrite: bool) -> None:
    """Refuse a place where `write_risk` may not or cannot write.

    Raises:
        ResultsError: if the path exists and overwrite is off, or it is neither a folder of this
            kind nor an empty one, or nothing can be written there.
    """
    target = Path(os.path.realpath(folder))
    if overwrite and _is_ours(target) and not Path.cwd().is_relative_to(target):
        return
    reason = obstacle(target, "results", _MARKS, overwrite=overwrite)
    if reason:
        raise ResultsError(reason)


def write_risk(
    folder: str | os.PathLike[str],
    study: RiskStudy,
    *,
    title: str,
    overwrite: bool = False,
) -> RiskRun:
    """Back-test a study and write its folder, the page included, whole or not at all.

    Args:
        folder: where to.
        study: the forecasts; tests that resample take the seed of its manifest, or 0.
        title: heading of the page.
        overwrite: whether a folder of this kind, or an empty one, is replaced; nothing else ever
            is.

    Raises:
        ResultsError: if the path exists and may not be replaced, or cannot be written.
        DataError: if a forecast cannot be tested; TooFewBarsError too.
    """
    target = Path(os.path.realpath(folder))
    refuse_existing(target, overwrite)
    summary = summarize(study, seed=int(study.manifest.get("seed", 0)))
    manifest = {
        "schema_version": _SCHEMA_VERSION,
        "command": _COMMAND,
        "title": title,
        "bounds": [stamp.isoformat() for stamp in study.bounds],
        **study.manifest,
    }
    text = json.dumps({**summary, "manifest": manifest}, indent=2, allow_nan=False)
    with new_results(target) as temporary:
        (temporary / "risk.json").write_text(text + "\n", encoding="utf-8")
        forecasts_frame(study).to_parquet(temporary / "forecasts.parquet", index=False)
        pictures = write_risk_page(study, summary, temporary / "risk.html", title=title)
        (temporary / "pictures").mkdir()
        for picture in pictures:
            (temporary / "pictures" / f"{picture.name}.png").write_bytes(picture.png)
    return RiskRun(target, json.loads(text), study)


def read_risk(folder: str | os.PathLike[str]) -> RiskRun:
    """Read a folder that `write_risk` wrote.

    Raises:
        ResultsError: if it is missing, incomplete, damaged or of another version.
    """
    root = Path(folder)
    missing = [name for name in ("risk.json", "forecasts.parquet") if not (root / name).is_file()]
    if missing:
        raise ResultsError(
            f"expected a folder that 'glow-bt risk' wrote, found {root} without "
            f"{', '.join(missing)}; run it again"
        )
    try:
        report = json.loads((root / "risk.json").read_text(encoding="utf-8"))
        frame = pd.read_parquet(root / "forecasts.parquet")
        manifest = report["manifest"]
        found = manifest["schema_version"]
        bounds = [pd.Timestamp(stamp) for stamp in manifest["bounds"]]
        study = forecasts_from_frame(frame, bounds, manifest)
    except (OSError, ValueError, KeyError, TypeError, ArrowException, GlowError) as error:
        raise ResultsError(
            f"expected a complete results folder, found {root} damaged "
            f"({str(error).splitlines()[0]}); run 'glow-bt risk' again"
        ) from error
    if found != _SCHEMA_VERSION:
        raise ResultsError(
            f"expected results of schema version {_SCHEMA_VERSION}, found {found!r} in {root}; "
            "run 'glow-bt risk' again with this version of glow_bt"
        )
    return RiskRun(root, report, study)


def forecasts_frame(study: RiskStudy) -> pd.DataFrame:
    """Return every forecast as a row: model, timestamp, realised_log_return, log_prob, pit.

    Then var_<level> and es_<level> of each level. The timestamp is the open of the bar at whose
    close the forecast was made; the return that came true is that of the next bar.
    """
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "model": name,
                    "timestamp": study.stamps,
                    **{column: getattr(own, field) for column, field in _SINGLE.items()},
                    **{f"var_{level:g}": own.quantile(level) for level in own.levels},
                    **{f"es_{level:g}": own.shortfall(level) for level in own.levels},
                }
            )
            for name, own in study.forecasts.items()
        ],
        ignore_index=True,
    )


def forecasts_from_frame(
    frame: pd.DataFrame, bounds: list[pd.Timestamp], manifest: Mapping[str, Any]
) -> RiskStudy:
    """Return the study that `forecasts_frame` was given.

    Raises:
        DataError: if models have different numbers of rows.
        KeyError: if a column is missing.
    """
    columns = [str(column) for column in frame]
    names = [column.removeprefix("var_") for column in columns if column.startswith("var_")]
    levels = tuple(float(name) for name in names)
    forecasts = {}
    stamps = pd.DatetimeIndex([])
    for name, rows in frame.groupby("model", sort=False):
        single = [rows[column].to_numpy(np.float64) for column in _SINGLE]
        tables = [
            rows[[f"{kind}_{level}" for level in names]].to_numpy(np.float64)
            for kind in ("var", "es")
        ]
        forecasts[str(name)] = Forecasts(levels, *single, *tables)
        stamps = pd.DatetimeIndex(rows["timestamp"], name="timestamp")
    return RiskStudy(stamps, forecasts, bounds, manifest)


def _is_ours(folder: Path) -> bool:
    try:
        report = (folder / "risk.json").read_bytes()
    except OSError:
        return False
    return all(f'"{mark}"'.encode() in report for mark in _MARKS)
