"""One page over all run folders of a place: `results/index.html`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from glow_bt.errors import ResultsError
from glow_bt.evaluation.page import page_of, prose, write_page
from glow_bt.evaluation.written import interval_of, known, percent, title_of

__all__ = ["is_list_of_runs", "write_run_list"]

# Sorts the table by the column that is clicked, or named after "#sort-" in the address. A cell
# says in data-sort what it is sorted by; cells without come last.
_SCRIPT = """
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
    files = _metric_files(root)
    if not files:
        raise ResultsError(
            f"expected run folders with metrics.json under {root}, found none; give the folder "
            "that holds what 'glow-bt backtest' or 'walk-forward' wrote"
        )
    rows = [row for file in files for row in _rows(file)]
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
    content = f"""<section>
{words}
<div class="wide dense"><table>
<thead><tr>{heads}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>
</section>"""
    about = f"{len(files)} runs, {len(rows)} rows."
    page = page_of("Runs", about, _risk_pages(root), [content], script=_SCRIPT)
    write_page(page, root / "index.html")
    return len(files)


def _metric_files(root: Path) -> list[Path]:
    found = sorted(root.glob("*/metrics.json"))
    return [file for file in found if (file.parent / "manifest.json").is_file()]


def _risk_pages(root: Path) -> list[tuple[str, str]]:
    """Return address and name of each comparison of risk models beside the runs."""
    found = sorted(root.glob("*/risk.html"))
    return [(f"{file.parent.name}/{file.name}", file.parent.name) for file in found]


def _rows(file: Path) -> list[str]:
    try:
        manifest = json.loads((file.parent / "manifest.json").read_text(encoding="utf-8"))
        metrics = json.loads(file.read_text(encoding="utf-8"))
        return [
            _row(_link(file.parent, manifest["title"]), manifest["title"], name, own, metrics)
            for name, own in metrics["strategies"].items()
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(
            f"expected a complete results folder, found {file.parent} damaged ({error!r}); run "
            "the study again, or move the folder away"
        ) from error


def _link(folder: Path, title: str) -> str:
    """Return the run's title, linked to the first of its pages that is there."""
    for page in _PAGES:
        if (folder / page).is_file():
            return f'<a href="{escape(folder.name)}/{page}">{escape(title)}</a>'
    return escape(title)


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
