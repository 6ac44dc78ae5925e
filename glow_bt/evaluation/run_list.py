"""One page over all run folders of a place: `results/index.html`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from glow_bt.errors import ResultsError
from glow_bt.evaluation.page import page_of, prose, write_page
from glow_bt.evaluation.written import interval_of, known, percent, title_of

__all__ = ["SORT_SCRIPT", "is_list_of_runs", "runs_table", "write_run_list"]

# Sorts the first table by the column that is clicked, or named after "#sort-" in the address. A
# cell says in data-sort what it is sorted by; cells without come last.
SORT_SCRIPT = """
const table = document.querySelector('table');
const heads = [...table.tHead.rows[0].cells];
function sortBy(head) {
  const column = heads.indexOf(head);
  const down = head.getAttribute('aria-sort') !== 'descending';
  const value = row => row.cells[column].dataset.sort;
  const rows = [...table.tBodies[0].rows].sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a === '' || b === '') return (a === '') - (b === '');
    const numbers = [Number(a), Number(b)];
    const order = numbers.some(isNaN) ? a.localeCompare(b) : numbers[0] - numbers[1];
    return down ? -order : order;
  });
  heads.forEach(each => each.removeAttribute('aria-sort'));
  head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
  table.tBodies[0].append(...rows);
}
heads.forEach(head => head.addEventListener('click', () => sortBy(head)));
const wanted = heads.find(head => '#sort-' + head.dataset.name === location.hash);
if (wanted) sortBy(wanted);
"""
# What a folder of several runs is known by (see `glow_bt.evaluation.several`).
_SEVERAL = ("seeds.json", "symbols.json")
_PAGES = ("index.html", "model.html", "tearsheet.html")
_MEASURES = (
    ("return", "Return", "total_return", "{:+.1%}"),
    ("sharpe", "Sharpe", "sharpe", "{:.2f}"),
    ("drawdown", "Largest drawdown", "max_drawdown", "{:.1%}"),
    ("turnover", "Turnover a year", "turnover", "{:.1f}"),
)
_HEADS = (
    ("run", "Run"),
    ("strategy", "Strategy"),
    ("bars", "Unseen bars"),
    *((name, head) for name, head, _, _ in _MEASURES),
    ("costs", "Costs"),
    ("deflated", "Deflated Sharpe"),
)


def is_list_of_runs(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds run folders and is none itself."""
    root = Path(folder)
    return not (root / "manifest.json").exists() and bool(_metric_files(root))


def write_run_list(folder: str | os.PathLike[str]) -> int:
    """Write index.html over all run folders in a folder; return how many there are.

    Each strategy of each run is a row, losing ones too. Rows are sorted by a click on a column's
    head, or by its name in the address ("#sort-sharpe"), without network.

    Raises:
        ResultsError: if there is no run folder, one is damaged, or the page cannot be written.
    """
    root = Path(folder)
    if not _metric_files(root):
        raise ResultsError(
            f"expected run folders with metrics.json under {root}, found none; give the folder "
            "that holds what 'glow-bt backtest' or 'walk-forward' wrote"
        )
    content, count = runs_table(root)
    page = page_of(
        "Runs",
        f"{count} runs.",
        _other_pages(root),
        [f"<section>\n{content}\n</section>"],
        script=SORT_SCRIPT,
    )
    write_page(page, root / "index.html")
    return count


def runs_table(folder: str | os.PathLike[str]) -> tuple[str, int]:
    """Return a table of all run folders in a folder, for a page there.

    Each strategy of each run is a row; a folder of several seeds or symbols counts as the runs
    in it. `SORT_SCRIPT` sorts it, if it is the first on its page.

    Returns:
        HTML with words on it, and how many runs there are.

    Raises:
        ResultsError: if a run is damaged.
    """
    root = Path(folder)
    files = _metric_files(root)
    rows = [row for file in files for row in _rows(root, file)]
    heads = "".join(
        f'<th scope="col" class="{_kind(name)}" data-name="{name}">'
        f'<button class="sorts">{escape(head)}</button></th>'
        for name, head in _HEADS
    )
    body = "\n".join(rows)
    words = prose(
        "Click a column to sort by it. Small: 95 % intervals of the stationary bootstrap, where "
        "the run has them. Costs are in the account's currency. Everything is net of costs and "
        "out of sample; every contender of every run is listed, whether it gained or lost."
    )
    content = f"""{words}
<div class="wide dense"><table>
<thead><tr>{heads}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>"""
    return content, len(files)


def _metric_files(root: Path) -> list[Path]:
    """Return metrics.json of each run folder, those of several seeds or symbols too."""
    found: list[Path] = []
    for file in sorted(root.glob("*/manifest.json")):
        folder = file.parent
        if (folder / "metrics.json").is_file():
            found.append(folder / "metrics.json")
        elif any((folder / name).is_file() for name in _SEVERAL):
            found += _metric_files(folder)
    return found


def _other_pages(root: Path) -> list[tuple[str, str]]:
    """Return address and name of comparisons of risk models, and of pages over several runs."""
    found = [*root.glob("*/risk.html")]
    for name in _SEVERAL:
        found += [file.with_name("index.html") for file in root.glob(f"*/{name}")]
    return [(f"{quote(file.parent.name)}/{file.name}", file.parent.name) for file in sorted(found)]


def _rows(root: Path, file: Path) -> list[str]:
    try:
        manifest = json.loads((file.parent / "manifest.json").read_text(encoding="utf-8"))
        metrics = json.loads(file.read_text(encoding="utf-8"))
        title = manifest["title"]
        if file.parent.name.startswith("seed_"):
            title = f"{title}, seed {manifest['seed']}"
        link = _link(root, file.parent, title)
        return [
            _row(link, title, name, own, metrics) for name, own in metrics["strategies"].items()
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(
            f"expected a complete results folder, found {file.parent} damaged ({error!r}); run "
            "the study again, or move the folder away"
        ) from error


def _link(root: Path, folder: Path, title: str) -> str:
    """Return the run's title, linked to the first of its pages that is there, and its folder."""
    path = folder.relative_to(root).as_posix()
    named = f"<br><small>{escape(path)}</small>"
    for page in _PAGES:
        if (folder / page).is_file():
            return f'<a href="{quote(path)}/{page}">{escape(title)}</a>{named}'
    return f"{escape(title)}{named}"


def _row(
    link: str, title: str, name: str, own: Mapping[str, Any], metrics: Mapping[str, Any]
) -> str:
    span, statistics = metrics["span"], metrics.get("statistics")
    intervals = {} if statistics is None else statistics["intervals"].get(name, {})
    cells = [
        f'<td class="text" data-sort="{escape(name)}">{escape(title_of(name))}</td>',
        _cell(f"{span['bars']:,}", span["bars"], f"{span['from'][:10]} to {span['until'][:10]}"),
        *_measured(own, intervals),
    ]
    total = sum(own["costs"].values())
    cells.append(_cell(f"{total:,.0f}", total))
    deflated = None
    if statistics is not None and name == "glow":
        deflated = statistics["deflated_sharpe"]["probability"]
    cells.append(_cell(percent(deflated), deflated))
    kind = ' class="flow"' if name == "glow" else ""
    head = f'<th scope="row" data-sort="{escape(title)}">{link}</th>'
    return f"<tr{kind}>{head}{''.join(cells)}</tr>"


def _measured(own: Mapping[str, Any], intervals: Mapping[str, Any]) -> Sequence[str]:
    return [
        _cell(known(own[key], pattern), own[key], interval_of(intervals.get(key), pattern))
        for _, _, key, pattern in _MEASURES
    ]


def _kind(name: str) -> str:
    return "text" if name in {"run", "strategy"} else "number"


def _cell(text: str, value: float | str | None, small: str = "") -> str:
    below = f'<span class="interval">{escape(small)}</span>' if small else ""
    return f'<td data-sort="{"" if value is None else value}">{escape(text)}{below}</td>'
