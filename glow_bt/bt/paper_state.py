"""What paper trading leaves on disk, so that a restart goes on where it was.

::

    FOLDER/
      state.json   all that the next bar depends on; replaced at every bar, whole or not at all
      equity.csv   one row a bar, appended
      trades.csv   one row a fill, appended
      funding.csv  one row a payment at the exchange's rates, with the bar that it was charged in
                   and its own stamp, which is earlier if the rate was listed late; appended
      lock         held while a process trades here

Rows are written before the state: after a kill in between they lie beyond its last bar, and a
restart cuts them off.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from glow_bt.errors import ConfigError, ResultsError
from glow_bt.placing import new_file

__all__ = ["SCHEMA", "PaperState", "Table", "held_folder"]

SCHEMA = 1
_NAME = "state.json"
_PARTS: dict[str, type] = {
    "settings": dict,
    "last_bar": str,
    "warm_bars": int,
    "account": dict,
    "streams": list,
    "strategy": dict,
}
_WORDS: dict[type, str] = {
    dict: "named values",
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "empty",
}


@dataclass(frozen=True)
class PaperState:
    """How things stand at one bar's close.

    Attributes:
        settings: what the run was made with, as JSON values.
        last_bar: open stamp (UTC) of the last bar booked.
        warm_bars: bars before it, itself included, that a restart has to feed again.
        account: the broker's (`glow_bt.bt.paper_broker.PaperBroker.account`).
        streams: of each `GlowIndicator` in order, how its recalibration stands
            (`StreamState.to_dict`); None for one without.
        strategy: what the strategy's ``save_state`` returned; empty for one that has none.
    """

    settings: Mapping[str, Any]
    last_bar: pd.Timestamp
    warm_bars: int
    account: Mapping[str, Any]
    streams: tuple[Mapping[str, Any] | None, ...] = ()
    strategy: Mapping[str, Any] | None = None

    def write(self, folder: Path) -> None:
        """Put the state in its place, whole or not at all.

        Raises:
            ConfigError: if it holds what JSON cannot.
        """
        values = {
            "schema": SCHEMA,
            "last_bar": self.last_bar.isoformat(),
            "warm_bars": self.warm_bars,
            "account": self.account,
            "streams": self.streams,
            "strategy": self.strategy or {},
            "settings": self.settings,
        }
        try:
            text = json.dumps(values, indent=1, allow_nan=False, default=_plain)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"expected a state of numbers and texts, found what JSON cannot hold ({error}); "
                "settings, orders and save_state() may have nothing else"
            ) from error
        with new_file(folder / _NAME) as file, file.open("w", encoding="utf-8") as out:
            out.write(text + "\n")
            out.flush()
            os.fsync(out.fileno())

    @classmethod
    def read(cls, folder: Path) -> PaperState | None:
        """Read a folder's state; None if it has none.

        Raises:
            ResultsError: if it is damaged or of another schema.
        """
        file = folder / _NAME
        if not file.exists():
            return None
        values = _read_values(file)
        try:
            last_bar = pd.Timestamp(values["last_bar"]).tz_convert("UTC")
            if pd.isna(last_bar):
                raise ValueError("it is empty")
        except (ValueError, TypeError) as error:
            raise _damaged(file, "last_bar is no moment with a time zone") from error
        return cls(
            settings=values["settings"],
            last_bar=last_bar,
            warm_bars=values["warm_bars"],
            account=values["account"],
            streams=tuple(values["streams"]),
            strategy=values["strategy"],
        )

    def check_settings(self, settings: Mapping[str, Any], folder: Path) -> None:
        """Refuse to go on with other settings.

        Raises:
            ConfigError: naming all that differ.
        """
        saved, asked = _flat(self.settings), _flat(json.loads(json.dumps(settings)))
        names = [name for name in {**saved, **asked} if saved.get(name) != asked.get(name)]
        if names:
            found = ", ".join(
                f"{n} {saved.get(n)!r} there and {asked.get(n)!r} now" for n in names
            )
            raise ConfigError(
                f"expected the settings that {folder} was made with, found {found}; give those of "
                "before to go on, or another folder to start anew"
            )


class Table:
    """A CSV file that only grows; its first column is a stamp.

    Args:
        file: its path; it is made, with a header, at the first `append`.
        columns: names of the columns after ``timestamp``.
    """

    def __init__(self, file: Path, columns: tuple[str, ...]) -> None:
        self._file, self._columns = file, columns

    def cut(self, last: pd.Timestamp | None) -> None:
        """Take away the rows after a stamp (None: all), and a last line that was not finished."""
        if not self._file.exists():
            return
        lines = self._file.read_bytes().splitlines(keepends=True)
        while len(lines) > 1 and not _is_whole(lines[-1], last):
            lines.pop()
        if len(lines) == 1:
            lines.clear()
        os.truncate(self._file, sum(map(len, lines)))

    def append(self, rows: list[tuple[pd.Timestamp, tuple[object, ...]]]) -> None:
        """Write rows, and a new file's header; they are on the disk when it returns."""
        if not rows and self._file.exists() and self._file.stat().st_size:
            return
        lines = [",".join([stamp.isoformat(), *map(str, row)]) for stamp, row in rows]
        with self._file.open("a", encoding="utf-8", newline="") as out:
            if out.tell() == 0:
                lines.insert(0, ",".join(["timestamp", *self._columns]))
            out.write("".join(f"{line}\n" for line in lines))
            out.flush()
            os.fsync(out.fileno())


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Make a folder and hold it, so that no two processes trade in it.

    Raises:
        ResultsError: if another one does, or it cannot be written.
    """
    lock = FileLock(folder / "lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        lock.acquire(timeout=0)
    except Timeout:
        raise ResultsError(
            f"expected to be the only process that trades in {folder}, found another one at work; "
            "stop it, or choose another folder"
        ) from None
    except OSError as error:
        raise ResultsError(
            f"expected a folder to keep the account in, could not write {folder} "
            f"({error.strerror or error}); choose another folder"
        ) from error
    try:
        for leftover in folder.glob(f".{_NAME}.*.tmp"):  # of a process that was killed
            leftover.unlink()
        yield
    finally:
        lock.release()


def _read_values(file: Path) -> dict[str, Any]:
    """Read a state's JSON and check that every part of it is there."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(file, f"no JSON: {error}") from error
    if not isinstance(values, dict):
        raise _damaged(file, f"it holds no named values but {_WORDS[type(values)]}")
    if "schema" in values and values["schema"] != SCHEMA:
        raise ResultsError(
            f"expected a state of schema {SCHEMA}, found {values['schema']} in {file}; go "
            "on with the version that wrote it, or start in another folder"
        )
    lacking = [name for name in ("schema", *_PARTS) if name not in values]
    if lacking:
        raise _damaged(file, f"it lacks {', '.join(lacking)}")
    for name, kind in _PARTS.items():
        if not isinstance(values[name], kind):
            raise _damaged(file, f"{name} is {_WORDS[type(values[name])]}")
    return values


def _damaged(file: Path, what: str) -> ResultsError:
    return ResultsError(
        f"expected the state of paper trading, found {file} damaged ({what}); restore it, or "
        "start in another folder"
    )


def _is_whole(line: bytes, last: pd.Timestamp | None) -> bool:
    if last is None or not line.endswith(b"\n"):
        return False
    try:
        return datetime.fromisoformat(line.split(b",", 1)[0].decode()) <= last
    except ValueError:
        return False


def _plain(value: object) -> object:
    """NumPy's numbers as Python's: sizes of orders are often such."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__}")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
