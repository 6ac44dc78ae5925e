"""Several seeds of one walk-forward: what each found, their mean and their spread.

::

    results/btc/
      manifest.json      command, title and seeds
      seeds.json         metrics of every seed, their mean and their spread
      seed_0/ ...        a run folder a seed
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from glow_bt.errors import ResultsError
from glow_bt.placing import new_folder

__all__ = ["summarize_seeds", "write_seeds"]

_SCHEMA_VERSION = 1


def summarize_seeds(metrics: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the metrics of every seed, and the mean and the spread of each number.

    The spread is the sample standard deviation. What is a number in some seeds only has neither.

    Args:
        metrics: by seed, nested numbers as `glow_bt.evaluation.study.run_study` gives them; at
            least two.
    """
    runs = list(metrics.values())
    return {
        "seeds": {str(seed): dict(found) for seed, found in metrics.items()},
        "mean": _over(runs, statistics.fmean),
        "spread": _over(runs, statistics.stdev),
    }


def write_seeds(
    folder: str | os.PathLike[str],
    seeds: Sequence[int],
    write: Callable[[int, Path], Mapping[str, Any]],
    *,
    title: str,
    command: str,
) -> dict[str, Any]:
    """Write a folder of run folders, one a seed; it appears whole or not at all.

    Args:
        folder: where to; one that is there is replaced (see `run_folder.refuse_existing`).
        seeds: at least two.
        write: from a seed and a place to its metrics; writes the run folder there.
        title: of the runs.
        command: name of the command.

    Returns:
        The content of seeds.json.

    Raises:
        ResultsError: if the folder cannot be written.
    """
    target = Path(os.path.realpath(folder))
    manifest = {
        "schema_version": _SCHEMA_VERSION,
        "command": command,
        "title": title,
        "seeds": list(seeds),
    }
    try:
        with new_folder(target) as temporary:
            found = {seed: write(seed, temporary / f"seed_{seed}") for seed in seeds}
            summary = summarize_seeds(found)
            _write_json(temporary / "manifest.json", manifest)
            _write_json(temporary / "seeds.json", summary)
    except OSError as error:
        raise ResultsError(
            f"expected to write a results folder {target}, found that it cannot be: {error}; "
            "choose another place"
        ) from error
    return summary


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
