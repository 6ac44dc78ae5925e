"""Where requests go, and what may be told about it."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from glow_bt.errors import ConfigError

__all__ = ["check_secrecy", "host_of", "reason_of"]


def host_of(base_url: str) -> str:
    """Return host and port, without the user and password that an address may carry.

    Raises:
        ConfigError: if it is no http(s) address.
    """
    try:
        parts = urlsplit(base_url)
        labels = (parts.hostname or "").split(".")
        # Reading the port checks it.
        sound = parts.scheme in ("http", "https") and "" not in labels and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        found = repr(base_url) if "@" not in base_url else "another with a user and a password"
        raise ConfigError(f"expected base_url as http://host or https://host, found {found}")
    return parts.netloc.rpartition("@")[2]


def check_secrecy(base_url: str | None) -> None:
    """Refuse an address to which an API key would travel in the open.

    Raises:
        ConfigError: if it is neither https nor this machine.
    """
    parts = urlsplit(base_url or "https://api.bybit.com")
    if parts.scheme == "https" or parts.hostname == "localhost":
        return
    try:
        local = ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        local = False
    if not local:
        raise ConfigError(
            f"expected https for requests with a key, found http to {parts.hostname}; give an "
            "https base_url or no keys"
        )


def reason_of(error: BaseException) -> str:
    """Return what lies at the bottom of a chain of errors, on one line."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
