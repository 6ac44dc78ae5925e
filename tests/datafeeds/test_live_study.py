import os

import pytest

from tests.datafeeds.live_study import run_study

FULL = "GLOW_BT_LIVE_STUDY"  # set it to run the whole day, about a minute


@pytest.mark.parametrize("websocket", [True, False], ids=["websocket", "polling"])
def test_each_closed_bar_comes_once_in_order_and_not_early_whatever_happens(websocket):
    hours, drops = (24, 50) if os.environ.get(FULL) else (2.5, 8)
    found = run_study(hours=hours, drops=drops, websocket=websocket, seed=1)
    assert found["bars"] == 30 + hours * 60
    assert found["told"]["CONNBROKEN"] >= 1
    assert found["told"]["LIVE"] >= 2
