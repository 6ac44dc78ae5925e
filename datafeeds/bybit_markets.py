"""Which instrument a symbol names, in ccxt's notation or in Bybit's own."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glow_bt.errors import SymbolError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Market", "categories_of", "find_market", "unknown_symbol"]

_VOLUME_FIELD = 5
_TURNOVER_FIELD = 6
_OFFERED_NAMES = 3


@dataclass(frozen=True)
class Market:
    """One instrument of the exchange.

    Attributes:
        symbol: ccxt's name, such as ``BTC/USDT:USDT``.
        id: Bybit's name, such as ``BTCUSDT``.
        category: Bybit's product line: linear, inverse or spot.
        listed_ms: when it was listed, in epoch milliseconds; None if Bybit does not say (spot).
    """

    symbol: str
    id: str
    category: str
    listed_ms: int | None = None

    @property
    def volume_field(self) -> int:
        """Position of the volume in the base coin within a kline row.

        Inverse contracts count volume in dollars and turnover in the base coin.
        """
        return _TURNOVER_FIELD if self.category == "inverse" else _VOLUME_FIELD


def categories_of(symbol: str) -> tuple[str, ...]:
    """Return the product lines that a symbol may belong to, the likeliest first.

    ``BASE/QUOTE`` is spot, ``BASE/QUOTE:SETTLE`` is inverse if it settles in its base coin and
    else linear. A Bybit id such as ``BTCUSDT`` may name several instruments: linear is preferred.
    """
    base, slash, rest = symbol.partition("/")
    if not slash:
        return ("linear", "inverse", "spot")
    _, colon, settle = rest.partition(":")
    if not colon:
        return ("spot",)
    return ("inverse",) if settle.split("-")[0] == base else ("linear",)


def find_market(symbol: str, markets: Iterable[Market]) -> Market | None:
    """Return the market of that symbol or Bybit id, None if there is none."""
    return next((m for m in markets if symbol in (m.symbol, m.id)), None)


def unknown_symbol(symbol: str, markets: Iterable[Market]) -> SymbolError:
    """Return the error for a symbol that none of the markets has, offering the nearest names."""
    written_by_ccxt = "/" in symbol
    names = {(m.symbol if written_by_ccxt else m.id).upper(): m for m in markets}
    near = difflib.get_close_matches(symbol.upper(), names, n=_OFFERED_NAMES)
    offer = f"did you mean {' or '.join(names[name].symbol for name in near)}?" if near else (
        "give it as ccxt does (BTC/USDT:USDT linear, BTC/USD:BTC inverse, BTC/USDT spot) "
        "or as Bybit does (BTCUSDT)"
    )  # fmt: skip
    return SymbolError(f"expected a symbol that Bybit lists, found {symbol!r}; {offer}")
