import io

import pytest
from rich.console import Console
from rich.progress import TextColumn

from glow_bt.terminal import TerminalDisplay, table_console, terminal_progress


class Counted(TerminalDisplay):
    def __init__(self, console):
        super().__init__(terminal_progress(TextColumn("{task.description}"), console=console))
        self._progress.add_task("counting")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_display_is_shown_on_a_terminal_only_and_ends_with_its_block(is_terminal):
    written = io.StringIO()
    with (
        pytest.raises(KeyError) as raised,
        Counted(Console(file=written, force_terminal=is_terminal, width=80)) as display,
    ):
        raise KeyError(display._progress.live.is_started)
    assert raised.value.args == (is_terminal,)
    assert not display._progress.live.is_started
    assert ("counting" in written.getvalue()) == is_terminal


def test_it_goes_to_standard_error():
    assert terminal_progress("{task.description}").console.stderr


def test_tables_are_wide_where_no_terminal_decides(capsys):
    table_console().print("x" * 119)
    table_console(160).print("y" * 159)
    assert capsys.readouterr().out.splitlines() == ["x" * 119, "y" * 159]
