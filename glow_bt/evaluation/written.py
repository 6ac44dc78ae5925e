"""Numbers as they are written in tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["interval_of", "known", "p_is", "p_value", "percent", "title_of"]


def known(value: float | None, pattern: str) -> str:
    """Return a number in a format such as "{:.2f}"; a dash where it is undefined."""
    return "-" if value is None else pattern.format(value)


def percent(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """Return a share in per cent."""
    return known(value, f"{{:{'+' if sign else ''}.{digits}%}}")


def p_value(value: float | None) -> str:
    """Return a p-value; tiny ones as a bound."""
    return "< 0.001" if value is not None and value < 0.001 else known(value, "{:.3f}")


def p_is(value: float | None) -> str:
    """Return a p-value as part of a sentence: "p = 0.036" or "p < 0.001"."""
    text = p_value(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def interval_of(interval: Mapping[str, Any] | None, pattern: str) -> str:
    """Return "low to high", or nothing where there is no interval or it is a point."""
    if interval is None or interval["low"] is None or interval["high"] is None:
        return ""
    if interval["low"] == interval["high"]:
        return ""
    return f"{pattern.format(interval['low'])} to {pattern.format(interval['high'])}"


def title_of(name: str) -> str:
    """Return a contender's name in words."""
    words = {"glow": "GLOW", "no_var_sizing": "no VaR sizing"}
    return words.get(name, name.replace("_", " "))
