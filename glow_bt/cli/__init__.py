"""The command line, `glow-bt`. Heavy libraries are loaded by the command that needs them."""

from glow_bt.cli.app import main

__all__ = ["main"]
