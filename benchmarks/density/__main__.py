"""Run one density benchmark and write its table and numbers beside this file.

    python -m benchmarks.density tails
    python -m benchmarks.density market [--btc BARS]

A benchmark is a module of this package with SUMMARY, add_arguments(parser) and
run(options) -> Report.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module

from benchmarks.density.reports import page_of, write_report

BENCHMARKS = ("tails", "market")


def main(words: list[str]) -> None:
    """Run the benchmark that the first word names with the options after it."""
    chooser = argparse.ArgumentParser(prog="python -m benchmarks.density", add_help=not words[1:])
    chooser.add_argument("name", choices=BENCHMARKS)
    name = chooser.parse_args(words[:1]).name
    benchmark = import_module(f"benchmarks.density.{name}")
    parser = argparse.ArgumentParser(prog=f"{chooser.prog} {name}", description=benchmark.SUMMARY)
    benchmark.add_arguments(parser)
    options = parser.parse_args(words[1:])
    start = time.perf_counter()
    report = benchmark.run(options)
    # A smoke test must not stand where results do.
    show = page_of if getattr(options, "quick", False) else write_report
    print(show(name, report, time.perf_counter() - start))


if __name__ == "__main__":
    main(sys.argv[1:])
