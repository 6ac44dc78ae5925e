"""backtest.json as a page: bars first, then a section for each part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["page"]

Found = Mapping[str, Any]

_HEAD = """# Backtests and live bars

Command: `make bench-backtest`. How it is measured: [README](README.md). Synthetic
GARCH(1,1)-t bars, the trainer's default model (5 members of the return flow), one thread,
contenders in turns, medians, processor time unless said otherwise. A busy machine stretches both
times; trust ratios and exponents.
"""
_MIB = 2**20


def page(results: Mapping[str, Found]) -> str:
    """Return the results of all parts that there are, as Markdown."""
    lines = [_HEAD, "## Bars", "", "| what | bar | found |  |", "|---|---|---|---|"]
    for name, part in results.items():
        for what, bar, found, met in _BARS[name](part["found"]):
            lines.append(f"| {what} | {bar} | {found} | {'met' if met else '**not met**'} |")
    for name, part in results.items():
        about = f"{part['day']}, {part['machine']}; rounds {part['rounds']}"
        lines += ["", f"## {name}", "", f"{about}; load before and after {part['load']}.", ""]
        lines += _TABLES[name](part["found"])
    return "\n".join(lines) + "\n"


def _scaling_bars(found: Found) -> Iterator[tuple[str, str, str, bool]]:
    for name, value in found["exponents"].items():
        yield f"exponent over the bars: {name}", "at most 1.1", f"{value:.2f}", value <= 1.1
    row = found["rows"][-1]
    peak = (row["base_mb"] + row["run_mb"]) * _MIB / 1e9
    yield (
        f"peak memory of {row['bars']:,.0f} one-minute bars",
        "below 2.5 GB",
        f"{peak:.2f} GB",
        peak < 2.5,
    )


def _crossover_bars(found: Found) -> Iterator[tuple[str, str, str, bool]]:
    for observers, rows in found.items():
        for name in ("minimal", "glow_strategy"):
            ratio, least = rows[name]["ratio"], rows[name]["ratio_of_least"]
            yield (
                f"{name} over the plain crossover, {observers}",
                "at most 1.5x",
                f"{ratio:.2f}x (of least times {least:.2f}x)",
                ratio <= 1.5,
            )


def _live_bars(found: Found) -> Iterator[tuple[str, str, str, bool]]:
    for name, row in found.items():
        median, late = row["cpu"]
        yield (
            f"one bar live, {name}",
            "median 0.5 ms, 99 % within 2 ms",
            f"{median:.2f} ms, {late:.2f} ms",
            median < 0.5 and late < 2.0,
        )


def _loop_bars(found: Found) -> Iterator[tuple[str, str, str, bool]]:
    ratio = found["over_scores"]
    yield "scores of a bar beside a plain loop", "at least 200x", f"{ratio:.0f}x", ratio >= 200


def _scaling_table(found: Found) -> Iterator[str]:
    yield "| bars | scoring s | Cerebro s | (clock) | peak memory MiB | of it before | orders |"
    yield "|---|---|---|---|---|---|---|"
    for row in found["rows"]:
        yield (
            f"| {row['bars']:,.0f} | {row['score_cpu']:.2f} | {row['run_cpu']:.2f} | "
            f"{row['run_clock']:.2f} | {row['base_mb'] + row['run_mb']:.0f} | "
            f"{row['base_mb']:.0f} | {row['orders']:,.0f} |"
        )
    yield ""
    yield "Cerebro: `run_backtest` with GlowStrategy, recorder and ledger, scoring included."
    yield "The exponent of memory is of what was added. Sizes above 50,000 bars are run once."


def _crossover_table(found: Found) -> Iterator[str]:
    yield "33,259 hourly bars, whole Cerebro runs, without and with Backtrader's observers."
    yield "`minimal` holds while the state is usual and points upwards; what an order costs"
    yield "Backtrader is in its time, so a crossover that trades as often stands beside it."
    yield ""
    yield "| observers | strategy | s | times the crossover | of the least times | orders |"
    yield "|---|---|---|---|---|---|"
    for observers, rows in found.items():
        for name, row in rows.items():
            yield (
                f"| {observers} | {name} | {row['cpu']:.2f} | {row['ratio']:.2f} | "
                f"{row['ratio_of_least']:.2f} | {row['orders']:,} |"
            )


def _live_table(found: Found) -> Iterator[str]:
    yield "From indicator.next to the size of an order."
    yield ""
    yield "| VaR | time | median ms | 99 % ms |"
    yield "|---|---|---|---|"
    for name, row in found.items():
        for kind, (median, late) in row.items():
            yield f"| {name} | {kind} | {median:.3f} | {late:.3f} |"


def _loop_table(found: Found) -> Iterator[str]:
    yield (
        f"A bar takes the plain loop {found['loop']:.0f} µs. All seven scores take "
        f"{found['scores']:.1f} µs a bar ({found['over_scores']:.0f} times less); a "
        f"whole Cerebro run with GlowStrategy, broker and orders, of which the loop has none, "
        f"{found['cerebro']:.1f} µs ({found['over_cerebro']:.0f} times less)."
    )


_BARS = {
    "scaling": _scaling_bars,
    "crossover": _crossover_bars,
    "live": _live_bars,
    "loop": _loop_bars,
}
_TABLES = {
    "scaling": _scaling_table,
    "crossover": _crossover_table,
    "live": _live_table,
    "loop": _loop_table,
}
