"""Random order-book and trade messages in Bybit's shapes, as one market would send them."""

from tests.microstructure.markets import random_trades, random_updates

SYMBOL = "BTCUSDT"
BOOK, TRADES = f"orderbook.50.{SYMBOL}", f"publicTrade.{SYMBOL}"
START = 1_700_000_000_000


def book_message(update, delay=0):
    return {
        "topic": BOOK,
        "type": "snapshot" if update.snapshot else "delta",
        "ts": update.stamp_ms + delay,
        "data": {
            "s": SYMBOL,
            "b": [list(level) for level in update.bids],
            "a": [list(level) for level in update.asks],
            "u": update.update_id,
            "seq": 1000 + update.update_id,
        },
        "cts": update.stamp_ms,
    }


def trade_message(*rows, at, delay=0):
    """A message with trades (id, side, price, size)."""
    data = [
        {"T": at, "s": SYMBOL, "S": side, "v": str(size), "p": str(price), "i": name, "BT": False}
        for name, side, price, size in rows
    ]
    return {"topic": TRADES, "type": "snapshot", "ts": at + delay, "data": data}


def market_messages(seed, seconds=20, a_second=20, delay=3):
    """All messages of a market in order of arrival, the first a snapshot."""
    span = seconds * 1000
    count = seconds * a_second
    trades = random_trades(seed, count, span, START)
    messages = [book_message(update, delay) for update in random_updates(seed, count, span, START)]
    for number, (stamp, price, amount, side) in enumerate(
        zip(trades.stamps, trades.prices, trades.amounts, trades.sides, strict=True)
    ):
        row = (f"id{number}", "Buy" if side > 0 else "Sell", price, amount)
        messages.append(trade_message(row, at=int(stamp), delay=2 * delay))
    return sorted(messages, key=lambda message: message["ts"])
