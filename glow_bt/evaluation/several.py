"""Several runs of one study, one a seed or one a symbol: their means and their spreads.

::

    results/btc/                        results/many/
      manifest.json                       manifest.json   command, title and members
      seeds.json                          symbols.json    metrics of all, their mean and spread
      index.html                          index.html      all runs and strategies on one page
      seed_0/ ...                         btc/ ...        a run folder each

A symbol of several seeds has a folder as on the left.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from glow_bt.errors import ResultsError
from glow_bt.evaluation.results_place import new_results
from glow_bt.evaluation.run_folder import refuse_existing
from glow_bt.evaluation.several_page import write_several_page

__all__ = ["KINDS", "kind_of", "summarize", "write_overview", "write_several"]

_SCHEMA_VERSION = 1
# What the members are, as files and keys name them, with the names of their folders.
KINDS = {"seeds": "seed_{}", "symbols": "{}"}
_Member = TypeVar("_Member", int, str)


def summarize(kind: str, metrics: Mapping[Any, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the metrics of every member, and the mean and the spread of each number.

    The spread is the sample standard deviation. What is a number in some members only has
    neither. Of a symbol of several seeds its mean counts.

    Args:
        kind: one of `KINDS`, the key of the metrics.
        metrics: by member, nested numbers as `glow_bt.evaluation.study.run_study` gives them, or
            of several seeds what this function returns; at least two.
    """
    runs = [found.get("mean", found) for found in metrics.values()]
    return {
        kind: {str(member): dict(found) for member, found in metrics.items()},
        "mean": _over(runs, statistics.fmean),
        "spread": _over(runs, statistics.stdev),
    }


def write_several(
    folder: str | os.PathLike[str],
    kind: str,
    members: Sequence[_Member],
    write: Callable[[_Member, Path], Mapping[str, Any]],
    *,
    title: str,
    command: str,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a folder of run folders, one a member; it appears whole or not at all.

    Args:
        folder: where to.
        kind: one of `KINDS`.
        members: seeds or names of symbols, at least two.
        write: from a member and a place to its metrics; writes the run folder there.
        title: of the runs.
        command: name of the command.
        overwrite: as `glow_bt.evaluation.run_folder.write_run` takes it.

    Returns:
        The content of seeds.json or symbols.json.

    Raises:
        ResultsError: if the path exists and may not be replaced, or cannot be written.
    """
    target = Path(os.path.realpath(folder))
    refuse_existing(target, overwrite)
    manifest = {
        "schema_version": _SCHEMA_VERSION,
        "command": command,
        "title": title,
        kind: list(members),
    }
    with new_results(target) as temporary:
        found = {
            member: write(member, temporary / KINDS[kind].format(member)) for member in members
        }
        summary = summarize(kind, found)
        _write_json(temporary / "manifest.json", manifest)
        _write_json(temporary / f"{kind}.json", summary)
        write_several_page(temporary, kind, title, summary)
    return summary


def kind_of(folder: str | os.PathLike[str]) -> str | None:
    """Return what the members of such a folder are; None if it is none."""
    root = Path(folder)
    if not (root / "manifest.json").is_file():
        return None
    return next((kind for kind in KINDS if (root / f"{kind}.json").is_file()), None)


def write_overview(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Write index.html of a folder of run folders anew; return what its numbers are.

    Raises:
        ResultsError: if it is no such folder, is damaged, or cannot be written.
    """
    root, kind = Path(folder), kind_of(folder)
    if kind is None:
        raise ResultsError(
            f"expected a folder of runs of several seeds or symbols, found {root}; give the "
            "folder that 'glow-bt walk-forward' wrote"
        )
    try:
        manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
        summary = json.loads((root / f"{kind}.json").read_text(encoding="utf-8"))
        write_several_page(root, kind, manifest["title"], summary)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(
            f"expected a complete results folder, found {root} damaged ({error!r}); run the "
            "study again"
        ) from error
    return dict(summary)


def _over(values: Sequence[Any], statistic: Callable[[Sequence[float]], float]) -> Any:  # noqa: ANN401
    """Apply a statistic to each number of nested values; None where it cannot be."""
    first = values[0]
    if isinstance(first, Mapping):
        return {
            name: _over([value.get(name) for value in values], statistic)
            for name in first
            if all(isinstance(value, Mapping) for value in values)
        }
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return statistic(values)
    return None


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
