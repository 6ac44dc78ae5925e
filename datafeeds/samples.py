"""Real bars that need no network: daily indices, 1999-2018, shipped by the package ``arch``.

Source: the data folder of arch (https://github.com/bashtage/arch). Prices are the published
index levels, not the adjusted close. No bar breaks the contract, so nothing is repaired. What is
odd is left as it is: in 40 % of the S&P 500's sessions the open equals the close before (an
index opens before its members do), and two sessions of the NASDAQ have no volume (2015-05-12
and 2018-01-09).

`python -m datafeeds.samples NAME FILE` writes a sample as a CSV or Parquet file of bars.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import MappingProxyType

import pandas as pd
from arch.data import nasdaq, sp500

from glow_bt.errors import ConfigError
from glow_bt.ohlcv import BAR_COLUMNS, validate_bars, write_bars

__all__ = ["SAMPLES", "load_nasdaq", "load_sample", "load_sp500"]


def load_sp500() -> pd.DataFrame:
    """Return 5,031 daily bars of the S&P 500, 1999-01-04 to 2018-12-31, stamped 00:00 UTC."""
    return _as_bars(sp500.load())


def load_nasdaq() -> pd.DataFrame:
    """Return 5,031 daily bars of the NASDAQ Composite, days as in `load_sp500`."""
    return _as_bars(nasdaq.load())


SAMPLES: MappingProxyType[str, Callable[[], pd.DataFrame]] = MappingProxyType(
    {"sp500": load_sp500, "nasdaq": load_nasdaq}
)
"""Loaders by name."""


def load_sample(name: str) -> pd.DataFrame:
    """Return the sample of that name.

    Raises:
        ConfigError: naming the samples there are, if it is none of them.
    """
    if name not in SAMPLES:
        raise ConfigError(f"expected a sample among {', '.join(SAMPLES)}, found {name!r}")
    return SAMPLES[name]()


def _as_bars(days: pd.DataFrame) -> pd.DataFrame:
    """Take the published columns; a contract broken by another version of the data is refused."""
    frame = days[[name.capitalize() for name in BAR_COLUMNS]].set_axis(list(BAR_COLUMNS), axis=1)
    return validate_bars(frame.rename_axis("timestamp"))


if __name__ == "__main__":
    write_bars(load_sample(sys.argv[1]), sys.argv[2])
