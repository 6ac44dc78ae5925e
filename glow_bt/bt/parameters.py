"""Parameters that Backtrader does not know, refused in one way."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Protocol

from glow_bt.errors import ConfigError

__all__ = ["refuse_unknown"]


class _HasParameters(Protocol):
    p: Any


def refuse_unknown(
    owner: _HasParameters, args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    """Refuse what Backtrader left over.

    Its metaclasses take data feeds and known parameters out of a call before ``__init__`` sees
    it; what remains has no use.

    Raises:
        ConfigError: if anything remains.
    """
    if args:
        raise ConfigError(
            f"expected parameters of {type(owner).__name__} by name, found {args[0]!r} without one"
        )
    if kwargs:
        found = next(iter(kwargs))
        names = list(owner.p._getkeys())
        close = get_close_matches(found, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "leave it out"
        raise ConfigError(
            f"expected parameters of {type(owner).__name__} among {', '.join(names)}, "
            f"found {found!r}; {hint}"
        )
