"""`glow-bt` with a live feed whose exchange's clock is fast: ``paper_driver.py PACE ARGS...``."""

import functools
import sys

from datafeeds import bybit_hub
from datafeeds.bybit_clock import ExchangeClock
from glow_bt.cli import main

if __name__ == "__main__":
    bybit_hub.ExchangeClock = functools.partial(ExchangeClock, pace=float(sys.argv[1]))
    main(sys.argv[2:])
