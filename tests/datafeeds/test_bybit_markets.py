import pytest

from datafeeds.bybit_markets import Market, categories_of, find_market, unknown_symbol
from glow_bt.errors import SymbolError

MARKETS = [
    Market("BTC/USDT:USDT", "BTCUSDT", "linear"),
    Market("ETH/USDT:USDT", "ETHUSDT", "linear"),
    Market("BTC/USDC:USDC", "BTCPERP", "linear"),
    Market("DOGE/USDT:USDT", "DOGEUSDT", "linear"),
]


@pytest.mark.parametrize(
    ("symbol", "categories"),
    [
        ("BTC/USDT:USDT", ("linear",)),
        ("BTC/USDC:USDC", ("linear",)),
        ("BTC/USDT:USDT-251226", ("linear",)),
        ("BTC/USD:BTC", ("inverse",)),
        ("BTC/USD:BTC-251226", ("inverse",)),
        ("BTC/USDT", ("spot",)),
        ("BTCUSDT", ("linear", "inverse", "spot")),
    ],
)
def test_categories_follow_from_the_notation(symbol, categories):
    assert categories_of(symbol) == categories


@pytest.mark.parametrize("symbol", ["BTC/USDC:USDC", "BTCPERP"])
def test_both_notations_find_a_market(symbol):
    assert find_market(symbol, MARKETS) is MARKETS[2]


def test_what_is_not_listed_is_not_found():
    assert find_market("btcusdt", MARKETS) is None


@pytest.mark.parametrize("symbol", ["BTC/USDT:USDTT", "btcusdt", "BTC/USD:USD", "BTCUSDTT"])
def test_nearest_names_are_offered(symbol):
    error = unknown_symbol(symbol, MARKETS)
    assert isinstance(error, SymbolError)
    assert "did you mean BTC/USDT:USDT" in str(error)
    assert repr(symbol) in str(error)


@pytest.mark.parametrize("symbol", ["", "qqqqqq"])
def test_notation_is_explained_where_nothing_is_near(symbol):
    assert "BTC/USD:BTC inverse" in str(unknown_symbol(symbol, MARKETS))


@pytest.mark.parametrize(("category", "field"), [("linear", 5), ("spot", 5), ("inverse", 6)])
def test_volume_is_counted_in_the_base_coin(category, field):
    assert Market("A/B", "AB", category).volume_field == field
