"""glow_bt: a GLOW normalizing flow inside Backtrader.

Importing this package loads neither torch, Backtrader, ccxt, quantstats nor matplotlib;
import what you need from its submodules.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
