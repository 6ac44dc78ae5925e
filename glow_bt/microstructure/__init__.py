"""Order book and trades of one market, and bars of what they say of its liquidity and flow.

>>> from glow_bt.microstructure import MicrostructureSpec, step_of
>>> MicrostructureSpec(step_of("1m"), levels=2).book_columns[-2:]
('ofi_1', 'ofi_2')
"""

from glow_bt.microstructure.bars import MicrostructureStream, microstructure_bars
from glow_bt.microstructure.book import BookUpdate, OrderBook, Outcome
from glow_bt.microstructure.events import BookStates, Trades
from glow_bt.microstructure.replay import BookReplay
from glow_bt.microstructure.spec import MicrostructureSpec, step_of

__all__ = [
    "BookReplay",
    "BookStates",
    "BookUpdate",
    "MicrostructureSpec",
    "MicrostructureStream",
    "OrderBook",
    "Outcome",
    "Trades",
    "microstructure_bars",
    "step_of",
]
