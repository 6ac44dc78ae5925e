"""Bybit's public trades: its archives, recordings and streams, and ccxt's way to write them.

Block trades (``BT``, ``isBlockTrade``) are left out and counted: two parties agreed on them away
from the book, so their side and price tell nothing of the flow into it. Archives do not mark
them. Amounts are as published: of the base coin for linear and spot markets, US dollars for
inverse ones.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from datafeeds.bybit_answers import answer_rows
from datafeeds.bybit_book import is_stamp_ms
from datafeeds.bybit_records import OneTopic, line_error, recorded_messages, shown
from datafeeds.bybit_trade_csv import read_trade_csv
from glow_bt.errors import DataError, FeedError, MalformedAnswerError
from glow_bt.microstructure import Trades

__all__ = ["TradeBatch", "TradeRecord", "read_trades", "recent_trades", "trade_batch"]

_SIDES = {"Buy": 1, "Sell": -1}
_VALUES = ("time_us", "side", "price", "amount")
_EVERYWHERE = -1


class TradeBatch(NamedTuple):
    """Trades as they arrived, and what tells them apart.

    Attributes:
        ids: the exchange's name for each.
        trades: those that are no block trades, in order of time.
        blocks: how many block trades were left out.
    """

    ids: list[str]
    trades: Trades
    blocks: int


class TradeRecord(NamedTuple):
    """What recorded files hold.

    Attributes:
        trades: each once, in order of time; those of one moment in the files' order.
        duplicates: how many came again and were dropped.
        blocks: how many block trades were left out.
    """

    trades: Trades
    duplicates: int
    blocks: int


def trade_batch(message: dict[str, Any]) -> TradeBatch:
    """Read a message of ``publicTrade.{symbol}``.

    Raises:
        MalformedAnswerError: if it is none.
    """
    rows = message.get("data")
    if not isinstance(rows, list):
        raise MalformedAnswerError(
            f"expected a trade message with a list as data, found {shown(message)}"
        )
    return _batch(rows, ("T", "S", "p", "v", "i", "BT"))


def recent_trades(answer: object) -> TradeBatch:
    """Read an answer of ``/v5/market/recent-trade``, which has the newest first.

    Raises:
        FeedError: if it is a refusal or damaged (`datafeeds.bybit_answers`).
    """
    rows = answer_rows(answer)[::-1]
    return _batch(rows, ("time", "side", "price", "size", "execId", "isBlockTrade"))


def read_trades(
    files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], symbol: str | None = None
) -> TradeRecord:
    """Read recorded trades.

    - CSV (also .gz): archives of public.bybit.com for derivatives (timestamp in seconds, symbol,
      side, size, price, tickDirection, trdMatchID, ...) and spot (id, timestamp, price, volume,
      side), and ccxt's columns (timestamp, id, side, price, amount, cost).
    - JSON lines (.jsonl, .json, .ndjson, also .gz and .zip): stream messages and answers.

    Args:
        files: one, or several in any order.
        symbol: whose trades, as Bybit names it; None if the files hold one only.

    Raises:
        DataError: on a missing or damaged file, another layout, a row that is no trade (with file,
            line and what was found), or an id that stands for two trades.
    """
    one = isinstance(files, str | os.PathLike)
    paths = [Path(file) for file in ((files,) if one else files)]  # type: ignore[union-attr, arg-type]
    topic = OneTopic("publicTrade.", symbol)
    frames, blocks = [], 0
    for number, path in enumerate(paths):
        if any("json" in suffix for suffix in path.suffixes):
            frame, left_out = _read_lines(path, topic)
            blocks += left_out
            scope = _EVERYWHERE
        else:
            frame, ids_are_unique = read_trade_csv(path, symbol)
            scope = _EVERYWHERE if ids_are_unique else number
        frames.append(frame.assign(file=np.int16(number), scope=np.int16(scope)))
    rows = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    if rows.empty and topic.others:
        raise DataError(
            f"expected trades of {symbol} in {', '.join(map(str, paths))}, found {topic.found}; "
            "give one of these, or the symbol's files"
        )
    again = rows.duplicated(["id", "scope"]).to_numpy(np.bool_)
    if again.any():
        _refuse_contradictions(rows, again, paths)
        rows = rows[~again]
    rows = rows.sort_values("time_us", kind="stable")
    trades = Trades(
        rows["time_us"].to_numpy(np.int64) // 1000,
        rows["price"].to_numpy(np.float64),
        rows["amount"].to_numpy(np.float64),
        rows["side"].to_numpy(np.int8),
    )
    return TradeRecord(trades, int(again.sum()), blocks)


def _refuse_contradictions(
    rows: pd.DataFrame, again: npt.NDArray[np.bool_], paths: list[Path]
) -> None:
    same = rows.duplicated(["id", "scope", *_VALUES]).to_numpy(np.bool_)
    other = np.flatnonzero(again & ~same)
    if len(other):
        row = rows.iloc[int(other[0])]
        raise line_error(
            paths[int(row["file"])],
            int(row["line"]),
            f"an id that stands for one trade, found {row['id']} again with other values",
        )


def _read_lines(file: Path, topic: OneTopic) -> tuple[pd.DataFrame, int]:
    rows: list[tuple[str, int, int, float, float, int]] = []
    blocks = 0
    for number, message in recorded_messages(file):
        try:
            if "retCode" in message:
                batch = recent_trades(message)
            elif topic.picks(message):
                batch = trade_batch(message)
            else:
                continue
        except (ValueError, FeedError) as error:
            raise line_error(file, number, str(error).removeprefix("expected ")) from error
        blocks += batch.blocks
        trades = batch.trades
        columns = (trades.stamps * 1000, trades.sides, trades.prices, trades.amounts)
        values = zip(batch.ids, *(column.tolist() for column in columns), strict=True)
        rows += [(*row, number) for row in values]
    return pd.DataFrame(rows, columns=["id", *_VALUES, "line"]), blocks


def _batch(rows: list[Any], fields: tuple[str, ...]) -> TradeBatch:
    time, side, price, size, name, block = fields
    kept: list[tuple[int, int, float, float, str]] = []
    for row in rows:
        try:
            stamp, what = int(row[time]), (float(row[price]), float(row[size]))
            if not (is_stamp_ms(stamp) and all(0 < value < math.inf for value in what)):
                raise ValueError("no such moment, price or size")
            if not row.get(block):
                kept.append((stamp, _SIDES[row[side]], *what, str(row[name])))
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise MalformedAnswerError(
                f"expected trades with {time} in ms, {side} Buy or Sell, {price} and {size} above "
                f"0 and {name}, found {shown(row)}"
            ) from error
    kept.sort(key=itemgetter(0))
    stamps, sides, prices, amounts, ids = zip(*kept, strict=True) if kept else ((),) * 5
    trades = Trades(
        np.array(stamps, np.int64),
        np.array(prices, np.float64),
        np.array(amounts, np.float64),
        np.array(sides, np.int8),
    )
    return TradeBatch(list(ids), trades, len(rows) - len(kept))
