"""What a bar says of the order book."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from glow_bt.microstructure.events import BookStates
from glow_bt.microstructure.liquidity import (
    depth_imbalance,
    hold,
    microprice,
    mid_price,
    spread_bps,
)
from glow_bt.microstructure.order_flow import order_flow
from glow_bt.microstructure.spec import MicrostructureSpec

__all__ = ["BookFeatures"]

Columns = dict[str, npt.NDArray[np.generic]]


class BookFeatures:
    """Features of consecutive bars from the states of a book.

    A book stands until its next message, so a bar without messages still has a spread. A bar is
    told apart if the book was not known for some of it: ``book_valid_share`` is the share of the
    bar's time in which it was, and all other features but ``book_updates`` (messages that count
    in the bar) are NaN unless it was known throughout. A loss that was mended within the same
    millisecond takes no time, yet flow was missed: NaN beside a share of 1.

    - ``spread_bps``, ``depth_imbalance``: means over the bar's time.
    - ``mid``, ``microprice``, ``depth_imbalance_close``: of the last state before the close.
    - ``ofi_1`` ...: sums of the order flow of each level.

    Args:
        spec: the settings.
        since_ms: open of the first bar.
        standing: the one state that holds then. Default: the book is not known.
    """

    def __init__(
        self, spec: MicrostructureSpec, since_ms: int, standing: BookStates | None = None
    ) -> None:
        self._spec = spec
        self._last = BookStates.unknown(since_ms, spec.levels)
        if standing is not None:
            self._keep(standing, self._last.stamps)

    def update(self, states: BookStates, edges: npt.NDArray[np.int64]) -> Columns:
        """Return the features of bars.

        Args:
            states: the states that began in them, with the levels of the spec at least.
            edges: (B + 1,) opens of the bars, which follow the last ones given, and the close.
        """
        levels = self._spec.levels
        states = BookStates.joined([self._last, _best(states, levels)])
        count = len(edges) - 1
        bars = (states.stamps[1:] - edges[0]) // self._spec.step_ms
        holding = hold(states.stamps, edges)
        lengths = np.diff(edges)
        share = holding.total(states.valid.astype(np.float64)) / lengths
        lost = np.bincount(bars, ~states.valid[1:], count)
        known = (share == 1.0) & (lost == 0)
        closing = np.searchsorted(states.stamps, edges[1:], side="left") - 1
        imbalance = depth_imbalance(states, levels)
        columns: dict[str, npt.NDArray[np.float64]] = {
            "spread_bps": holding.total(spread_bps(states)) / lengths,
            "mid": mid_price(states)[closing],
            "microprice": microprice(states)[closing],
            "depth_imbalance": holding.total(imbalance) / lengths,
            "depth_imbalance_close": imbalance[closing],
        }
        # Unknown flow lies in bars told apart, or led to a state that stood from the open on.
        flow = np.nan_to_num(order_flow(states)[1:])
        for level in range(levels):
            columns[f"ofi_{level + 1}"] = np.bincount(bars, flow[:, level], count).astype(
                np.float64
            )
        self._keep(states[-1:], edges[-1:])
        return {
            "book_valid_share": share,
            "book_updates": np.bincount(bars, minlength=count),
            **{name: np.where(known, values, np.nan) for name, values in columns.items()},
        }

    def _keep(self, state: BookStates, since: npt.NDArray[np.int64]) -> None:
        state = _best(state, self._spec.levels)
        self._last = BookStates(since, state.valid, state.bids, state.asks)


def _best(states: BookStates, levels: int) -> BookStates:
    return BookStates(
        states.stamps, states.valid, states.bids[:, :levels], states.asks[:, :levels]
    )
