"""What a terminal shows of a recording, and that a pipe shows nothing."""

import io

import pandas as pd
from rich.console import Console

from glow_bt.cli.recording import RecordingProgress


def shown(*, terminal):
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120, color_system=None)
    with RecordingProgress("BTC/USDT:USDT", 3600.0, console) as progress:
        progress.time(0.0, "no answer yet")
        progress.bars(pd.DataFrame({"mid": [1.0, 2.0]}))
        progress.time(65.2, "")
    return file.getvalue()


def test_a_terminal_shows_what_is_recorded_how_long_and_how_many_bars():
    text = shown(terminal=True)
    assert "recording BTC/USDT:USDT" in text
    assert "0:01:05 of 1:00:00 2 bars" in text


def test_nothing_is_shown_where_nobody_watches():
    assert shown(terminal=False).strip() == ""


def test_trouble_is_shown_while_it_lasts():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120, color_system=None)
    with RecordingProgress("BTC/USDT:USDT", 60.0, console) as progress:
        progress.time(1.0, "[Errno 111] refused")
    assert "0 bars, not connected: [Errno 111] refused" in file.getvalue()
